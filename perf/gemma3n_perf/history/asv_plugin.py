"""What asv's own commands need to measure commits of this suite: an environment without installing, and a fit machine.

asv imports it (``plugins`` of asv.conf.json) before a command begins. ``asv run`` and ``asv continuous`` end there on a
machine that is not fit, with one line, rather than with a traceback for each workload.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from asv import environment, util

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.machine import BusyPolicy, open_machine

MEASURING = ("run", "continuous")


class Checkout(environment.Environment):  # type: ignore[misc]
    """A commit as a checkout beside the others, run by this Python with its own ``perf/`` before everything else.

    Nothing is installed: the packages are those of this environment, so two commits differ in their code alone.
    """

    tool_name = "checkout"

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:
        """Take what asv gives; the base class asks for these two before it sets them."""
        self._python, self._requirements = python, requirements
        super().__init__(conf, python, requirements, tagged_env_vars)

    @classmethod
    def matches(cls, python: str) -> bool:
        """Whether this can be run by ``python``: this one, or one of its version."""
        return python == f"{sys.version_info[0]}.{sys.version_info[1]}"

    def check_presence(self) -> bool:
        """Whether the folder is there."""
        return os.path.isdir(self._path)

    def _setup(self) -> None:
        Path(self._path).mkdir(parents=True, exist_ok=True)

    def install_project(self, conf: Any, repo: Any, commit_hash: str) -> None:
        """Check the commit out."""
        self.checkout_project(repo, commit_hash)
        self._set_installed_commit_hash(commit_hash)

    def find_executable(self, executable: str) -> str:
        """Return this Python, whatever is asked for: there is no other."""
        return sys.executable

    def run(self, args: list[str], **kwargs: Any) -> Any:
        """Run this Python on the commit's own code."""
        environ = dict(kwargs.pop("env", None) or os.environ)
        # asv takes PYTHONPATH out of its processes, and puts this at the front instead.
        environ["ASV_PYTHONPATH"] = str(Path(self._build_root, "perf"))
        return util.check_output([sys.executable, *args], env=environ, **kwargs)


def setup() -> None:
    """End asv, with one line and the error's exit code, where it would measure on a machine that is not fit."""
    command = next((one for one in sys.argv[1:] if not one.startswith("-")), "")
    if command not in MEASURING or "just-discover" in sys.argv:
        return
    # asv shows what every library logs; that a machine without a desktop has no screen saver is no news.
    logging.getLogger("wakepy").setLevel(logging.CRITICAL)
    try:
        with open_machine(sys.stderr, BusyPolicy()):
            pass
    except PerfError as error:
        remedy = error.remedy or ""
        if not remedy or "--" in remedy:  # asv has none of our options
            remedy = "gemma3n-perf doctor --wait 600 waits for a fit machine; then run asv again"
        sys.stderr.write(" ".join(f"{error.found}; next: {remedy}".split()) + "\n")
        raise SystemExit(error.exit_code) from None
