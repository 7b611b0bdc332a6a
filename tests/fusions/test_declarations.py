"""What fusions say of themselves, asked of processes of their own."""

import subprocess
import sys
from dataclasses import replace

import pytest

from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.fusions import declarations, registry
from tests.fakes import CHIP

ON, KNOB, OFF = "stacked-altup", "ops-per-buffer", "cuda-step"


def test_it_says_what_the_registry_does() -> None:
    """On or off for a chip, and the variables of a knob; files and digests are the registry's own."""
    gpu = replace(CHIP, chip_class="nvidia-h200", vendor="nvidia")
    assert {name: declarations.enabled(name, CHIP) for name in (ON, KNOB, OFF)} == {ON: True, KNOB: False, OFF: False}
    assert declarations.enabled(f"{KNOB}+{ON}", gpu) is registry.enabled(f"{KNOB}+{ON}", gpu) is True
    assert declarations.env(KNOB) == registry.get(KNOB).env != {}
    assert declarations.env(ON) == {}


def test_the_process_that_asks_imports_none() -> None:
    """Neither does one that reads an arm, or asks the gate's sources: what importing does, it does elsewhere."""
    script = (
        "import sys\n"
        "from gemma3n_perf.duel.arms import parse\n"
        "from gemma3n_perf.gate.change import registered\n"
        "from gemma3n_perf.gate.session import states\n"
        "from tests.fakes import CHIP\n"
        f"arm, (on, broken) = parse('here+fusion:{KNOB}'), states(['{ON}'], registered(), CHIP)\n"
        "print(dict(arm.env), on, broken)\n"
        "modules = {'gemma3n_perf.fusions.' + name.replace('-', '_') for name in registered().names()}\n"
        "print(sorted(modules & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said, imported = done.stdout.splitlines()
    assert said == f"{dict(sorted(registry.get(KNOB).env.items()))} {{'{ON}': True}} {{}}"
    assert imported == "[]"


@pytest.mark.parametrize(("name", "said"), [("staked-altup", "there is no fusion"), (f"{ON}+{ON}", "both replace")])
def test_what_names_no_fusion_is_a_mistake(name: str, said: str) -> None:
    """As the registry says it."""
    for ask in (declarations.env, lambda one: declarations.enabled(one, CHIP)):
        with pytest.raises(UsageError, match=said):
            ask(name)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended its process with exit code -11"),
        ("import sys; sys.exit(3)", "ended its process with exit code 3"),
        ("import time; time.sleep(60)", "did not end within 0.5 s"),
        ("print('[{]')", "replied what is no declaration"),
        (r"import sys; sys.stdout.buffer.write(b'[\xff]')", "replied what is no declaration"),
        ("print('[null, null]')", "declared nothing"),
        ("""print('[null, {"kind": "SystemExit", "found": "it broke"}]')""", "it broke"),
    ],
)
def test_what_breaks_its_process_is_invalid(script: str, said: str) -> None:
    """It is the fusion's fault, and is told as one."""
    with pytest.raises(InvalidError, match=said):
        declarations.ask((sys.executable, "-c", script), ON, None, limit_s=0.5 if "sleep" in script else 60.0)
