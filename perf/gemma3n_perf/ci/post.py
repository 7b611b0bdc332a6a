"""The one comment of a pull request, and the one issue of the nights: written once, changed in place ever after, and
never anybody else's.

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
from gemma3n_perf.store.files import contents

MARKER = "<!-- gemma3n-perf gate -->"
ISSUE = "<!-- gemma3n-perf nightly -->"
TITLE = "Nightly: decode is slower"
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


def read_comment(path: Path, marker: str = MARKER) -> str:
    """Return the text of a comment, or of the issue by its ``marker``.

    Raises InvalidError for one that is too long, no text or not ours.
    """
    try:
        data = contents(path)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path.name}: {error}", expected="the comment as gemma3n-perf wrote it") from error
    if len(data) > MAX_COMMENT or not text.startswith(marker):
        raise InvalidError(f"{path.name} is no comment of ours", expected=f"{marker} and at most {MAX_COMMENT} bytes")
    return text


def post(text: str, repo: str, number: int, ask: Ask) -> str:
    """Put ``text`` into our comment of a pull request, the first time as a new one. Returns ``created`` or ``updated``.

    Raises UsageError for a repository or number that cannot be one, NotMeasuredError for what GitHub refuses.
    """
    if not _REPO.fullmatch(repo) or number < 1:
        raise UsageError(f"pull request {number} of {repo!r}", expected="OWNER/NAME and a number")
    ours = _first(f"/repos/{repo}/issues/{number}/comments?", MARKER, ask)
    if ours is not None:
        ask("PATCH", f"/repos/{repo}/issues/comments/{int(ours['id'])}", {"body": text})
        return "updated"
    ask("POST", f"/repos/{repo}/issues/{number}/comments", {"body": text})
    return "created"


def post_issue(text: str, repo: str, ask: Ask, *, lost: bool | None) -> str:
    """Keep the one issue of nightly losses: open where something ``lost``, changed in place, closed where nothing did.

    None is a night that left something open: an issue stays open, and none is opened.
    Returns ``opened``, ``updated``, ``closed`` or ``nothing to say``. Raises UsageError, NotMeasuredError.
    """
    if not _REPO.fullmatch(repo):
        raise UsageError(f"repository {repo!r}", expected="OWNER/NAME")
    ours = _first(f"/repos/{repo}/issues?state=open&", ISSUE, ask)
    if ours is not None:
        state = {"state": "closed" if lost is False else "open"}
        ask("PATCH", f"/repos/{repo}/issues/{int(ours['number'])}", {"body": text, **state})
        return "closed" if lost is False else "updated"
    if not lost:
        return "nothing to say"
    ask("POST", f"/repos/{repo}/issues", {"title": TITLE, "body": text})
    return "opened"


def _first(path: str, marker: str, ask: Ask) -> Any:
    for page in itertools.count(1):
        found = ask("GET", f"{path}per_page={_PAGE}&page={page}", None)
        for one in found:
            # Anyone can write the marker; only what the bot wrote is ours to change.
            if (one.get("user") or {}).get("login") == AUTHOR and str(one.get("body") or "").startswith(marker):
                return one
        if len(found) < _PAGE:
            return None
    return None
