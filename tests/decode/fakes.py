"""Stand-ins for decode: a clock that only passes when told, a device that computes behind it, an engine, a probe.

The nano checkpoint is real: it is forged and loaded once a process, and never written to.
"""

import functools
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gemma3n_perf.decode.decoder import Decoder
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.errors import NonFiniteError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.workload import forge, load
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Shape, Workload

Log = list[tuple[str, int]]
SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass
class FakeClock:
    """Seconds that pass when something takes time, and by ``tick`` at each reading."""

    now: float = 100.0
    tick: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        self.now += self.tick
        return self.now

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class FakeToken:
    """The token at a ``position``. It costs ``seconds`` of the device, and reading it waits for them."""

    position: int
    value: int
    seconds: float
    device: "FakeDevice"
    log: Log

    def item(self) -> int:
        """Wait for the token, which starts computing now unless it was dispatched, and read it."""
        self.device.wait(self)
        self.log.append(("read", self.position))
        return self.value


@dataclass
class FakeDevice:
    """Computes one dispatched token after another, while the host goes on."""

    clock: FakeClock
    log: Log = field(default_factory=list)
    peak: int = 1_000
    resets: int = 0
    _ready: dict[int, float] = field(default_factory=dict)
    _free: float = 0.0

    def dispatch(self, token: FakeToken) -> None:
        """Queue ``token`` behind what was dispatched before, once."""
        self.log.append(("dispatch", token.position))
        if id(token) not in self._ready:
            self._start(token)

    def wait(self, token: FakeToken) -> None:
        """Let time pass until ``token`` is computed."""
        if id(token) not in self._ready:
            self._start(token)
        self.clock.now = max(self.clock.now, self._ready[id(token)])

    def synchronize(self) -> None:
        """Wait for all that was started."""
        self.log.append(("synchronize", 0))
        self.clock.now = max(self.clock.now, self._free)

    def reset_peak_memory(self) -> None:
        """Count the resets."""
        self.resets += 1

    def peak_memory(self) -> int:
        """Return what the test set."""
        return self.peak

    def _start(self, token: FakeToken) -> None:
        self._free = max(self.clock.now, self._free) + token.seconds
        self._ready[id(token)] = self._free


def several(position: int) -> int:
    """Return a token that varies with its position."""
    return (position * 7919) % 251


@dataclass
class FakeEngine:
    """Decodes ``token_at(position)``. Building a step takes the host ``host_s``, computing it the device ``step_s``."""

    device: FakeDevice
    host_s: float = 0.001
    step_s: float = 0.010
    prefill_s: float = 0.5
    token_at: Callable[[int], int] = several
    finite: bool = True
    fault: str = ""
    position: int = 0
    name: str = "fake"
    cache: Any = None
    rewinds: int = 0
    steps: int = 0
    tokens: list[FakeToken] = field(default_factory=list)

    def prefill(self, prompt: Prompt) -> FakeToken:
        """Start over with the prompt."""
        self.position = len(prompt.ids)
        return self._token(self.prefill_s)

    def shaped(self, shape: Shape, prompt: Prompt) -> "FakeEngine":
        """Know plain shapes alone."""
        raise NotImplementedError(f"{shape} of {prompt}")

    def prefill_fault(self) -> str:
        """Say what the test says."""
        return self.fault

    def begin(self, token_id: int) -> FakeToken:
        """Start over with nothing."""
        self.position = 0
        return self.token(token_id)

    def token(self, token_id: int) -> FakeToken:
        """Return a token to feed at this position."""
        return FakeToken(self.position, token_id, 0.0, self.device, self.device.log)

    def step(self, token: FakeToken) -> FakeToken:
        """Feed ``token``, which must be the one of this position."""
        assert token.position == self.position, "a token of another position was fed"
        self.device.clock.passes(self.host_s)
        self.device.log.append(("step", self.position))
        self.position += 1
        self.steps += 1
        return self._token(self.step_s)

    def snapshot(self) -> int:
        """Remember the position."""
        return self.position

    def rewind(self, snapshot: int) -> None:
        """Go back to a remembered position."""
        self.rewinds += 1
        self.device.log.append(("rewind", snapshot))
        self.position = snapshot

    def last_logits(self) -> tuple[np.ndarray, str]:
        """Return logits that tell the position."""
        return np.full(8, self.position, dtype=np.float32), "float32"

    def kv_bytes(self) -> int:
        """Return eight bytes a position."""
        return 8 * self.position

    def check_finite(self, token: FakeToken) -> None:
        """Take a step, as the real engine does, and refuse what is not finite."""
        self.step(token)
        if not self.finite:
            raise NonFiniteError("1 of 8 logits are NaN or infinite")

    def _token(self, seconds: float) -> FakeToken:
        # Kept, so that no two tokens of a test share an id.
        self.tokens.append(
            FakeToken(self.position, self.token_at(self.position), seconds, self.device, self.device.log)
        )
        return self.tokens[-1]


@dataclass
class RunningAhead(FakeEngine):
    """An engine whose every token comes with the next one under way, as a generator gives them."""

    ahead: FakeToken | None = None

    def step(self, token: FakeToken) -> FakeToken:
        """Start the next token, and wait for the one that is under way."""
        current = self.ahead or self._started()
        self.ahead = self._started()
        self.device.wait(current)
        return current

    def prefill(self, prompt: Prompt) -> FakeToken:
        """Start over with the prompt."""
        self.ahead = None
        return super().prefill(prompt)

    def rewind(self, snapshot: int) -> None:
        """Go back, with a token under way and computed."""
        super().rewind(snapshot)
        self.ahead = self._started()
        self.settle()

    def settle(self) -> None:
        """Wait for the token that is under way."""
        self.device.synchronize()

    def _started(self) -> FakeToken:
        self.device.clock.passes(self.host_s)
        self.position += 1
        token = self._token(self.step_s)
        self.device.dispatch(token)
        return token


@dataclass
class FakeProbe:
    """Reports one condition after another, and repeats the last one. ``idle``: a GPU clocked down."""

    conditions: list[Conditions] = field(default_factory=lambda: [Conditions()])
    started: int = 0
    stopped: int = 0
    idle: bool = False

    def start(self) -> bool:
        """Count a start."""
        self.started += 1
        return self.idle

    def stop(self) -> Conditions:
        """Return the next conditions."""
        self.stopped += 1
        assert self.started == self.stopped
        return self.conditions.pop(0) if len(self.conditions) > 1 else self.conditions[0]


def fake_decoder(
    workload: str = "nano/text/pp40-tg64",
    *,
    planted: float = 0.0,
    tick: float = 0.0,
    kind: type[FakeEngine] = FakeEngine,
    **engine: Any,
) -> tuple[Decoder, FakeEngine]:
    """Return a prepared decoder over a fake engine, its log emptied."""
    parsed = Workload.parse(workload)
    clock = FakeClock(tick=tick)
    made = kind(FakeDevice(clock), **engine)
    prompt = Prompt(np.arange(parsed.shape.prompt, dtype=np.int32))
    decoder = Decoder(made, parsed, prompt, clock=clock, device=made.device, planted=planted)
    decoder.prepare()
    made.device.log.clear()
    made.steps = made.rewinds = 0
    return decoder, made


@functools.cache
def nano_root(base: Path) -> Path:
    """Forge nano below ``base`` once a process; the folder is shared, so never write to it."""
    root = base / "forged"
    forge.forge(PRESETS["nano"], root, progress=lambda written: None)
    return root


@functools.cache
def nano_model(base: Path) -> tuple[load.Checkpoint, Any]:
    """Load nano once a process."""
    checkpoint = load.inspect("nano", nano_root(base))
    return checkpoint, load.load(checkpoint, with_towers=False)


def nano_copy(base: Path, target: Path) -> Path:
    """Copy nano to ``target``, to be damaged there."""
    return Path(shutil.copytree(nano_root(base) / PRESETS["nano"].directory, target))


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change config.json in place."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def edit_header(folder: Path, edit: Callable[[dict[str, Any], bytearray], object]) -> None:
    """Change the shard's header and data in place."""
    path = folder / SHARD
    stored = path.read_bytes()
    (length,) = struct.unpack("<Q", stored[:8])
    header, data = json.loads(stored[8 : 8 + length]), bytearray(stored[8 + length :])
    edit(header, data)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
