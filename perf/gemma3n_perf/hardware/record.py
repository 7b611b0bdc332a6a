"""Recording a machine: what it answered to every question, so that tests can ask it again elsewhere.

Serial numbers, UUIDs, process ids and what git tells of a checkout are left out: recordings are committed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gemma3n_perf.hardware.system import Accelerator, System

FORMAT = 1
HIDDEN = "hidden"


class Recorder:
    """Wraps a System. Use ``system`` in its place, then ``document()`` holds all that was asked of it."""

    def __init__(self, system: System) -> None:
        self._commands: dict[str, str | None] = {}
        self._files: dict[str, str | None] = {}
        self._nvml: dict[str, Any] = {}
        self._accelerator: dict[str, Any] | None = None
        self._inner = system
        self.system = replace(
            system, run=self._run, read=self._read, accelerator=self._ask_accelerator, nvml=self._ask_nvml
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
        answer = self._inner.run(argv)
        if argv[0] != "git":
            self._commands[" ".join(argv)] = None if answer is None else _scrubbed(answer)
        return answer

    def _read(self, path: str) -> str | None:
        answer = self._inner.read(path)
        self._files[path] = None if answer is None else _scrubbed(answer)
        return answer

    def _ask_accelerator(self) -> Accelerator:
        answer = self._inner.accelerator()
        info = {key: HIDDEN if key == "uuid" else value for key, value in answer.info.items()}
        self._accelerator = {"backend": answer.backend, "info": info}
        return answer

    def _ask_nvml(self) -> Any | None:
        nvml = self._inner.nvml()
        return None if nvml is None else _NvmlRecorder(nvml, self._nvml)


class _NvmlRecorder:
    """Passes calls on to ``pynvml`` and keeps each answer under the call's name and its plain arguments."""

    def __init__(self, nvml: Any, answers: dict[str, Any]) -> None:
        self._inner = nvml
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if not name.startswith("nvml"):
            return inner

        def call(*arguments: Any) -> Any:
            key = " ".join([name, *(str(argument) for argument in arguments if isinstance(argument, int))])
            try:
                answer = inner(*arguments)
            except self._inner.NVMLError as error:
                self._answers[key] = {"error": error.value}
                raise
            self._answers[key] = _plain(answer)
            return answer

        return call


def _plain(answer: Any) -> Any:
    if isinstance(answer, bytes):
        return answer.decode(errors="replace")
    if answer is None or isinstance(answer, str | int | float):
        return answer
    if isinstance(answer, list | tuple):
        return [_plain(item) for item in answer]
    # ctypes structures name their fields; the binding's friendly objects keep plain attributes.
    names = [name for name, *_ in getattr(answer, "_fields_", ())] or list(vars(answer))
    return {name: 0 if name == "pid" else _plain(getattr(answer, name)) for name in names}


def _scrubbed(text: str) -> str:
    """Drop what names one machine: displays in system_profiler, ids and serial numbers elsewhere."""
    if text.lstrip().startswith("{"):
        try:
            return json.dumps(_without_displays(json.loads(text)), indent=2)
        except ValueError:
            return text
    text = re.sub(r"\(id=\d+\)", "(id=0)", text)
    text = re.sub(r"(?m)(/[^/\n]*?)[0-9a-f]{12,}", rf"\1{HIDDEN}", text)
    return re.sub(r'(?i)("[^"\n]*(?:uuid|serial)[^"\n]*"\s*=\s*).*', rf"\1<{HIDDEN}>", text)


def _without_displays(tree: Mapping[str, Any]) -> dict[str, Any]:
    hidden = ("spdisplays_ndrvs", "spdisplays_device-id")
    return {
        key: [{name: value for name, value in item.items() if name not in hidden} for item in items]
        if isinstance(items, list)
        else items
        for key, items in tree.items()
    }
