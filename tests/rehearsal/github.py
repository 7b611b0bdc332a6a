"""A pull request on this machine: scratch clones, artifacts and an API, so that the workflow's own steps can run.

Opinion: what is played is only what GitHub does (events, checkouts, archives, comments). Every step that is ours runs
as it stands in the workflow, in a shell, as on a runner.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gemma3n_perf.ci.artifacts import MANIFEST
from gemma3n_perf.ci.post import AUTHOR
from gemma3n_perf.errors import NotMeasuredError

REPO, NUMBER, RUN_ID = "example/gemma3n", 7, "1234567890"


@dataclass
class Clone:
    """A scratch clone. Commits are made by a name of the rehearsal's own; nothing is ever pushed."""

    root: Path

    @classmethod
    def of(cls, source: Path, root: Path) -> "Clone":
        """Clone ``source`` as it lies there: what is not committed yet becomes a commit of the clone."""
        made = cls(root)
        _run(["git", "clone", "--quiet", "--no-hardlinks", str(source), str(root)])
        listed = _run(["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        names = [name for name in listed.split("\0") if name]
        gone = [path for path in made.git("ls-files", "-z").split("\0") if path and not (source / path).exists()]
        for name in gone:
            (root / name).unlink(missing_ok=True)
        for name in names:
            if (source / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, root / name)
        made.save("the checkout as it lies there")
        return made

    def git(self, *argv: str) -> str:
        """Run git in the clone and return what it says."""
        who = ["-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost", "-c", "commit.gpgsign=false"]
        return _run(["git", "-C", str(self.root), *who, *argv])

    def save(self, message: str) -> str:
        """Commit everything there is, if anything changed, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def at(self, commit: str, root: Path) -> "Clone":
        """Return another clone, with its history, at a commit."""
        _run(["git", "clone", "--quiet", "--no-checkout", str(self.root), str(root)])
        made = Clone(root)
        made.git("checkout", "--quiet", "--detach", commit)
        return made


@dataclass
class Comments:
    """GitHub's comments of one pull request, as its API serves them. ``bodies`` are by id, in order."""

    bodies: dict[int, str] = field(default_factory=dict)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve them on this machine's own address; yields the API's URL."""
        comments = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(
                    [{"id": key, "body": one, "user": {"login": AUTHOR}} for key, one in comments.bodies.items()]
                )

            def do_POST(self) -> None:
                key = len(comments.bodies) + 1
                comments.bodies[key] = self._body()
                self._reply({"id": key})

            def do_PATCH(self) -> None:
                key = int(self.path.rsplit("/", 1)[-1])
                comments.bodies[key] = self._body()
                self._reply({"id": key})

            def log_message(self, format: str, *args: object) -> None:
                """Stay quiet."""

            def _body(self) -> str:
                length = int(self.headers.get("Content-Length", 0))
                return str(json.loads(self.rfile.read(length))["body"])

            def _reply(self, value: object) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def event(path: Path, head: str, base: str, *, head_repo: str = REPO) -> Path:
    """Write the payload of a pull request's event, as far as anything here reads it."""
    tree = {
        "pull_request": {
            "number": NUMBER,
            "user": {"login": "somebody"},
            "head": {"sha": head, "repo": {"full_name": head_repo}},
            "base": {"sha": base, "repo": {"full_name": REPO}},
        }
    }
    path.write_text(json.dumps(tree))
    return path


def dispatch(path: Path, pull: Path, head: str, approved: str, base: str) -> Path:
    """Write the payload of a maintainer's dispatch for one commit, and what the API says of the pull request."""
    event(pull, head, base, head_repo="stranger/gemma3n")
    pull.write_text(json.dumps(json.loads(pull.read_text())["pull_request"]))
    inputs = {"pull_request": str(NUMBER), "commit": approved}
    tree = {"ref": "refs/heads/main", "repository": {"default_branch": "main"}, "inputs": inputs}
    path.write_text(json.dumps(tree))
    return path


def pack(
    folder: Path,
    chip_class: str,
    commit: str,
    records: Iterable[Path],
    attempt: int = 1,
    comparison: Path | None = None,
) -> Path:
    """Write the archive a measuring job of this run uploads: evidence, and the ``comparison`` of base and head."""
    names = {path.name: path.read_bytes() for path in records}
    manifest = {
        "schema": 1,
        "chip_class": chip_class,
        "commit": commit,
        "run_id": RUN_ID,
        "run_attempt": attempt,
        "fusions": [name.removesuffix(".json") for name in names],
        "regression": comparison is not None,
    }
    names |= {path.name: path.read_bytes() for path in [comparison] if path is not None}
    return _archived(folder, chip_class, {MANIFEST: json.dumps(manifest).encode(), **names}, attempt)


def zipped(folder: Path, chip_class: str, measured: Path) -> Path:
    """Write the archive of what a measuring job left in the folder ``measured``."""
    return _archived(folder, chip_class, {path.name: path.read_bytes() for path in sorted(measured.glob("*.json"))})


def _archived(folder: Path, chip_class: str, names: Mapping[str, bytes], attempt: int = 1) -> Path:
    path = folder / f"evidence-{chip_class}-{attempt}" / f"evidence-{chip_class}-{attempt}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return path


def jobs(path: Path, conclusions: Mapping[str, str | None], failed: str | None = None) -> Path:
    """Write what the API says of the measuring jobs, by class; None is one that never finished.

    ``failed`` is the step at which they failed.
    """
    tree = [
        {"name": f"measure {name}", "status": "completed" if end else "queued", "conclusion": end, "run_attempt": 1,
         "failed": failed}
        for name, end in conclusions.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"jobs": tree}) + "\n")
    return path


def installed(checkout: Path) -> None:
    """Put this interpreter where ``make setup`` would have put one, so that nothing is installed for a rehearsal."""
    command = checkout / ".venv" / "bin" / "gemma3n-perf"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{checkout / "perf"}" exec "{sys.executable}" -m gemma3n_perf "$@"\n')
    command.chmod(0o755)


_KEPT = ("HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""With those of pip and uv: they say how a package index is reached from here."""


def variables(folder: Path, api: str) -> dict[str, str]:
    """Return a runner's environment for a step: little more than PATH, with this interpreter as ``python3``."""
    tools = folder / "bin"
    if not tools.is_dir():
        tools.mkdir(parents=True)
        (tools / "python3").symlink_to(sys.executable)
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(("UV_", "PIP_"))}
    return kept | {
        "PATH": f"{tools}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "GITHUB_REPOSITORY": REPO,
        "GITHUB_RUN_ID": RUN_ID,
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_API_URL": api,
        "GITHUB_OUTPUT": str(folder / "outputs"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _run(argv: list[str]) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, env=environ, check=False)
    if done.returncode:
        raise NotMeasuredError(
            f"{argv[0]} {argv[1]} failed: {done.stderr.decode(errors='replace').strip()[-300:]}",
            expected="a git checkout that can be cloned",
        )
    return done.stdout.decode(errors="replace")
