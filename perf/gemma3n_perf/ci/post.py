"""The one comment of a pull request: written once, changed in place ever after, and never anybody else's.

This is the only place that holds a token which can write, so it reads one text file, knows nothing of what it says,
and needs nothing but Python itself.
"""

import itertools
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import InvalidError, NotMeasuredError, UsageError

MARKER = "<!-- gemma3n-perf gate -->"
MAX_COMMENT = 60_000
AUTHOR = "github-actions[bot]"
_PAGE = 100
_REPO = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_TIMEOUT_S = 30.0

Ask = Callable[[str, str, Mapping[str, str] | None], Any]
"""From method, path and body to the API's response."""


def ask_github(url: str, token: str, method: str, path: str, body: Mapping[str, str] | None) -> Any:
    """Return the response of GitHub's API at ``url``. Raises NotMeasuredError for a refusal, without the token."""
    request = urllib.request.Request(
        f"{url}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return json.loads(response.read())
    except (urllib.error.URLError, ValueError, OSError) as error:
        raise NotMeasuredError(
            f"{method} {path}: {error}",
            expected="an answer from GitHub",
            remedy="the verdict stands in the job's summary; run this job again to have it commented",
        ) from error


def read_comment(path: Path) -> str:
    """Return a comment's text. Raises InvalidError for one that is too long, no text or not ours."""
    try:
        data = path.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path.name}: {error}", expected="the comment as gemma3n-perf wrote it") from error
    if len(data) > MAX_COMMENT or not text.startswith(MARKER):
        raise InvalidError(f"{path.name} is no comment of ours", expected=f"{MARKER} and at most {MAX_COMMENT} bytes")
    return text


def post(text: str, repo: str, number: int, ask: Ask) -> str:
    """Put ``text`` into our comment of a pull request, the first time as a new one. Returns ``created`` or ``updated``.

    Raises UsageError for a repository or number that cannot be one, NotMeasuredError for what GitHub refuses.
    """
    if not _REPO.fullmatch(repo) or number < 1:
        raise UsageError(f"pull request {number} of {repo!r}", expected="OWNER/NAME and a number")
    for page in itertools.count(1):
        comments = ask("GET", f"/repos/{repo}/issues/{number}/comments?per_page={_PAGE}&page={page}", None)
        for comment in comments:
            # Anyone can write the marker; only a comment of the bot's is ours to change.
            if (comment.get("user") or {}).get("login") == AUTHOR and str(comment.get("body", "")).startswith(MARKER):
                ask("PATCH", f"/repos/{repo}/issues/comments/{int(comment['id'])}", {"body": text})
                return "updated"
        if len(comments) < _PAGE:
            break
    ask("POST", f"/repos/{repo}/issues/{number}/comments", {"body": text})
    return "created"
