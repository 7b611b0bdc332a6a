"""The project's own files: lock files that install one honest environment, and the set-up that uses them."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-cuda.lock")
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)", re.MULTILINE)

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *python_version*) echo "$FAKE_VERSION" ;;
    *machine*) echo arm64 ;;
    *realpath*) echo "$0" ;;
    *"-m venv"*)
        [ -z "$FAKE_VENV_FAILS" ] || exit 1
        mkdir -p .venv/bin
        pwd -P | sed 's|$|/.venv|' >.venv/bin/activate
        cp "$0" .venv/bin/python
        cp "$(dirname "$0")/uv" .venv/bin/uv ;;
    *) echo "pip $*" >>calls && [ -z "$FAKE_INSTALL_FAILS" ] ;;
esac
"""
FAKE_UV = """#!/bin/sh
echo "uv $*" >>calls
[ -z "$FAKE_INSTALL_FAILS" ]
"""
FAKE_UNAME = """#!/bin/sh
[ "$1" = -s ] && echo Linux || echo Linux x86_64
"""


def pins(lock: str) -> dict[str, str]:
    """Names and versions that a lock file pins."""
    return dict(PIN.findall((ROOT / lock).read_text()))


def script(path: Path, text: str) -> None:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Checkout:
    """A copy of the set-up files around interpreters that only log what they are asked."""

    def __init__(self, root: Path) -> None:
        self.root = root / "check out"
        self.bin = root / "bin"
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        for name in ("pyproject.toml", "Makefile", *LOCKS):
            shutil.copy(ROOT / name, self.root)
        script(self.bin / "python3", FAKE_PYTHON)
        script(self.bin / "uv", FAKE_UV)
        script(self.bin / "uname", FAKE_UNAME)

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the fakes first on the path."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        full = {"PATH": path, "FAKE_VERSION": "3.12.1", "BACKEND": "cpu"} | env
        return subprocess.run(command, cwd=self.root, env=full, capture_output=True, text=True, check=False)

    def setup(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the set-up."""
        return self.run(".ci/setup", **env)

    def calls(self) -> str:
        """What was asked of the fakes since the last look."""
        log = self.root / "calls"
        text = log.read_text() if log.exists() else ""
        log.unlink(missing_ok=True)
        return text

    def stamped(self) -> bool:
        """Whether the environment counts as complete."""
        return (self.root / ".venv/.setup").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh checkout in a folder whose name holds a space."""
    return Checkout(tmp_path)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_place(lock: str) -> None:
    """A lock holds no address, path or index: it works behind any mirror."""
    text = (ROOT / lock).read_text()
    for place in ("/", " @ ", "--index", "--find-links", "--extra-index"):
        assert place not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_hashes_every_package(lock: str) -> None:
    """Every package is pinned to one version and to the hashes of its files."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    stanzas = re.split(r"\n(?=\S)", text.strip())
    assert len(stanzas) > 50
    for stanza in stanzas:
        assert PIN.match(stanza), stanza
        assert "--hash=sha256:" in stanza, stanza


def test_locks_differ_only_in_the_backend() -> None:
    """The CUDA lock is the plain one with one MLX build in place of the other, and that build's libraries."""
    plain, cuda = (pins(lock) for lock in LOCKS)
    assert plain.pop("mlx-cpu") == plain["mlx"]
    assert cuda.pop("mlx-cuda-13") == plain["mlx"]
    extra = {name: version for name, version in cuda.items() if name not in plain}
    assert {name: version for name, version in cuda.items() if name in plain} == plain
    assert extra
    assert all(name.startswith("nvidia-") for name in extra)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_answers_for_every_declared_dependency(lock: str) -> None:
    """What pyproject.toml asks for is locked at a version it allows, and torch never comes along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    locked = pins(lock)
    assert "torch" not in locked
    for requirement in map(Requirement, declared):
        version = locked[canonicalize_name(requirement.name)]
        assert Version(version) in requirement.specifier, requirement


def test_setup_installs_the_lock_and_then_rests(checkout: Checkout) -> None:
    """The first set-up syncs the lock and installs the project; the second asks nothing of anyone."""
    assert checkout.setup().returncode == 0
    calls = checkout.calls()
    assert re.search(r"pip sync .*--require-hashes requirements\.lock$", calls, re.MULTILINE)
    assert re.search(r"pip install .*--no-build-isolation --editable \.$", calls, re.MULTILINE)
    assert checkout.setup().returncode == 0
    assert checkout.calls() == ""


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_setup_runs_again_when_its_inputs_change(checkout: Checkout, name: str) -> None:
    """A changed lock or project file is installed, without building the environment anew."""
    checkout.setup()
    checkout.calls()
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")
    again = checkout.setup()
    assert "pip sync" in checkout.calls()
    assert "building" not in again.stderr


def test_setup_rebuilds_after_a_move(checkout: Checkout) -> None:
    """A moved checkout gets a new environment: the old one would run the code of the old place."""
    checkout.setup()
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    assert "building .venv" in checkout.setup().stderr


def test_setup_rebuilds_for_another_python(checkout: Checkout) -> None:
    """Naming another interpreter replaces the environment; naming none keeps it."""
    checkout.setup()
    script(checkout.bin / "other", FAKE_PYTHON.replace("$FAKE_VERSION", "3.13.0"))
    assert "building .venv on Python 3.13.0" in checkout.setup(PYTHON="other").stderr
    assert checkout.setup().stderr == ""


@pytest.mark.parametrize("version", ["3.9.18", "3.10.13", "3.14.0", "4.11.0"])
def test_setup_refuses_other_pythons(checkout: Checkout, version: str) -> None:
    """A Python outside the range is refused by name, with the range, before anything is touched."""
    refused = checkout.setup(PYTHON="python3", FAKE_VERSION=version)
    assert refused.returncode == 2
    assert f"Python {version}" in refused.stderr
    assert "expected: Python 3.11, 3.12 or 3.13" in refused.stderr
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize(
    ("env", "found"),
    [({"PYTHON": "absent-python"}, "absent-python does not run"), ({"BACKEND": "tpu"}, "BACKEND=tpu is unknown")],
)
def test_setup_refuses_unknown_choices(checkout: Checkout, env: dict[str, str], found: str) -> None:
    """A wrong PYTHON or BACKEND is a usage error that says what was found."""
    refused = checkout.setup(**env)
    assert refused.returncode == 2
    assert found in refused.stderr


def test_failed_setup_leaves_no_stamp(checkout: Checkout) -> None:
    """A set-up that fails half-way does not pass for a complete one, even over one that was."""
    checkout.setup()
    assert checkout.stamped()
    script(checkout.bin / "other", FAKE_PYTHON.replace("$FAKE_VERSION", "3.13.0"))
    assert checkout.setup(PYTHON="other", FAKE_VENV_FAILS="1").returncode != 0
    assert not checkout.stamped()
    assert checkout.setup().returncode == 0
    assert checkout.stamped()


def test_setup_falls_back_on_pip_and_says_what_to_do(checkout: Checkout) -> None:
    """Where uv fails pip is tried with the same hashes; where both fail nothing passes for complete."""
    checkout.setup()
    checkout.calls()
    with (checkout.root / "requirements.lock").open("a") as file:
        file.write("# changed\n")
    failed = checkout.setup(FAKE_INSTALL_FAILS="1")
    assert failed.returncode == 2
    assert "run make setup again" in failed.stderr
    assert re.search(r"^pip .*--require-hashes -r requirements\.lock$", checkout.calls(), re.MULTILINE)
    assert not checkout.stamped()


@pytest.mark.parametrize(
    ("driver", "lock", "said"),
    [
        ("580.65.06", "requirements-cuda.lock", ""),
        ("570.124.06", "requirements.lock", "older than 580"),
        ("No devices were found", "requirements.lock", "no GPU answers"),
    ],
)
def test_setup_picks_the_backend_that_the_driver_runs(checkout: Checkout, driver: str, lock: str, said: str) -> None:
    """CUDA is installed where the driver can run it, and the CPU build, saying why, where it cannot."""
    script(checkout.bin / "nvidia-smi", f"#!/bin/sh\necho '{driver}'\n")
    done = checkout.setup(BACKEND="auto")
    assert said in done.stderr
    assert re.search(rf"pip sync .* {re.escape(lock)}$", checkout.calls(), re.MULTILINE)


@pytest.mark.parametrize("status", [0, 1, 4])
def test_make_perf_fails_with_pytests_code_in_its_message(checkout: Checkout, status: int) -> None:
    """make itself can only say 2, every version of it; the code that pytest exited with is in what it prints."""
    script(checkout.root / ".ci/setup", "#!/bin/sh\n")
    script(checkout.root / ".venv/bin/python", f'#!/bin/sh\necho "$@"\nexit {status}\n')
    done = checkout.run("make", "perf", "ARGS=--plant-slowdown 25%")
    assert "-m pytest perf/ --runs 3 --plant-slowdown 25% --benchmark-compare" in done.stdout
    assert done.returncode == (2 if status else 0)
    assert (f"Error {status}" in done.stderr) == bool(status)


def browser(checkout: Checkout, **env: str) -> str:
    """Run the set-up of the tests where the fakes are all there is; returns what was asked of them."""
    script(checkout.bin / "id", '#!/bin/sh\necho "$FAKE_UID"\n')
    script(checkout.bin / "apt-get", '#!/bin/sh\necho "apt-get $*" >>calls\n[ -z "$FAKE_INSTALL_FAILS" ]\n')
    script(checkout.root / ".venv/bin/playwright", '#!/bin/sh\necho "playwright $*" >>calls\n')
    done = checkout.run("/bin/sh", ".ci/browser", **{"PATH": str(checkout.bin), "FAKE_UID": "0"} | env)
    assert done.returncode == 0, done.stderr
    return checkout.calls()


def test_the_tests_get_a_browser_where_it_can_be_had(checkout: Checkout) -> None:
    """root gets it by apt-get, CI by playwright too, and nobody else is kept from testing."""
    assert "apt-get install -y -qq --no-install-recommends chromium" in browser(checkout)
    assert browser(checkout, FAKE_UID="1000") == ""
    assert browser(checkout, FAKE_INSTALL_FAILS="1") == "apt-get update -qq\n"
    assert browser(checkout, FAKE_UID="1000", REQUIRE_BROWSER="1") == "playwright install chromium\n"
    script(checkout.bin / "chromium", "#!/bin/sh\n")
    assert browser(checkout, REQUIRE_BROWSER="1") == ""
