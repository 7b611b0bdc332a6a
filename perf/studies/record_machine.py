"""Recording a machine: every reading taken of it, so that tests can take the same readings elsewhere.

``python -m studies.record_machine ../tests/hardware/recorded/NAME.json``, from perf/. Serial numbers, UUIDs and process
ids are left out: recordings are committed.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from gemma3n_perf.cli.chip import as_text, examine
from gemma3n_perf.hardware.system import Accelerator, System, this_machine
from gemma3n_perf.store.files import write_over
from studies import carry_out

FORMAT = 1
HIDDEN = "hidden"


class Recorder:
    """Wraps a System. Use ``system`` in its place, then ``document()`` holds all that was read through it."""

    def __init__(self, system: System) -> None:
        self._commands: dict[str, str | None] = {}
        self._files: dict[str, str | None] = {}
        self._nvml: dict[str, Any] = {}
        self._accelerator: dict[str, Any] | None = None
        self._inner = system
        self.system = replace(
            system, run=self._run, read=self._read, accelerator=self._read_accelerator, nvml=self._open_nvml
        )

    def document(self, note: str) -> dict[str, Any]:
        """Return the recording; ``note`` says which machine it is and how it was recorded."""
        affinity = self._inner.affinity()
        return {
            "format": FORMAT,
            "note": note,
            "platform": self._inner.platform,
            "machine": self._inner.machine,
            "affinity": None if affinity is None else sorted(affinity),
            "accelerator": self._accelerator,
            "commands": self._commands,
            "files": self._files,
            "nvml": self._nvml or None,
        }

    def _run(self, argv: Sequence[str]) -> str | None:
        output = self._inner.run(argv)
        self._commands[" ".join(argv)] = None if output is None else _scrubbed(output)
        return output

    def _read(self, path: str) -> str | None:
        text = self._inner.read(path)
        self._files[path] = None if text is None else HIDDEN if path.endswith("machine-id") else _scrubbed(text)
        return text

    def _read_accelerator(self) -> Accelerator:
        accelerator = self._inner.accelerator()
        info = {key: HIDDEN if key == "uuid" else value for key, value in accelerator.info.items()}
        self._accelerator = {"backend": accelerator.backend, "info": info}
        return accelerator

    def _open_nvml(self) -> Any | None:
        nvml = self._inner.nvml()
        return None if nvml is None else _NvmlRecorder(nvml, self._nvml)


class _NvmlRecorder:
    """Passes calls on to ``pynvml`` and keeps each result under the call's name and its plain arguments."""

    def __init__(self, nvml: Any, results: dict[str, Any]) -> None:
        self._inner = nvml
        self._results = results

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if not name.startswith("nvml"):
            return inner

        def call(*arguments: Any) -> Any:
            key = " ".join([name, *(str(argument) for argument in arguments if isinstance(argument, int))])
            try:
                result = inner(*arguments)
            except self._inner.NVMLError as error:
                self._results[key] = {"error": error.value}
                raise
            self._results[key] = _plain(result)
            return result

        return call


def _plain(result: Any) -> Any:
    if isinstance(result, bytes):
        return result.decode(errors="replace")
    if result is None or isinstance(result, str | int | float):
        return result
    if isinstance(result, list | tuple):
        return [_plain(item) for item in result]
    # ctypes structures name their fields; the binding's friendly objects keep plain attributes.
    names = [name for name, *_ in getattr(result, "_fields_", ())] or list(vars(result))
    return {name: 0 if name == "pid" else _plain(getattr(result, name)) for name in names}


def _scrubbed(text: str) -> str:
    """Drop what names one machine: displays in system_profiler, ids and serial numbers elsewhere."""
    if text.lstrip().startswith("{"):
        try:
            return json.dumps(json.loads(text, object_hook=_without_displays), indent=2)
        except ValueError:
            return text
    text = re.sub(r"\(id=\d+\)", "(id=0)", text)
    text = re.sub(r'"pid \d+, [^"\n]*"', f'"pid 0, {HIDDEN}"', text)
    text = re.sub(r'(?m)^[ |]*"(?!voltage-states9")[^"\n]*" = <[0-9a-f]{32,}>\n', "", text)  # tables nobody reads
    text = re.sub(r"(?m)(/[^/\n]*?)[0-9a-f]{12,}", rf"\1{HIDDEN}", text)
    return re.sub(r'(?i)("[^"\n]*(?:uuid|serial)[^"\n]*"\s*=\s*).*', rf"\1<{HIDDEN}>", text)


def _without_displays(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in ("spdisplays_ndrvs", "spdisplays_device-id")}


def main(argv: Sequence[str], out: TextIO) -> int:
    """Record this machine and print what is found. Raises DiskFullError, UsageError."""
    parser = argparse.ArgumentParser(prog="python -m studies.record_machine", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    recorder = Recorder(this_machine())
    report = examine(recorder.system)
    document = recorder.document(f"recorded on {report.chip.name}, {report.stack.os}")
    write_over(args.file, json.dumps(document, indent=2).encode() + b"\n")
    out.write(as_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
