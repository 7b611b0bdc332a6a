"""Logits of blocks, asked for after they were decoded: what an arm leaves out where tokens alone are compared is seen.

The text of forged weights can be guessed, so a block's tokens say little. Which steps are looked at chance decides, and
nothing tells an arm before: what it leaves out in blocks, it leaves out in some of these. On a GPU, where all blocks
are of one length, those are blocks of any length, and are not timed.
"""

import random
import tempfile
from dataclasses import dataclass

import numpy as np

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS, same_logits
from gemma3n_perf.duel.logits import place, taken
from gemma3n_perf.duel.startup import Prepared, expect
from gemma3n_perf.duel.tools import Tools

CHECKS, EVERY = 6, 4
"""How many steps of a candidate are looked at in a launch; fewer where that were more than one in so many pairs."""

TEXTS = 2**20
"""From so many the one is drawn that both blocks of a pair decode where they rewind."""


@dataclass(slots=True)
class SpotChecks:
    """Those of one candidate in one launch. ``due`` are the pairs, from 1, after which there is one, of blocks of
    ``steps``; ``_alike`` says whether both arms decoded the same since they last rewound."""

    ready: Prepared
    candidate: str
    steps: int
    due: frozenset[int]
    rng: random.Random
    _pairs: int = 0
    _alike: bool = True

    def paired(self, alike: bool, goes_on: bool, tools: Tools) -> bool:
        """Take note of a pair of blocks, and look at both arms' logits if that is due. Returns whether they were
        asked for: blocks cannot go on after that. Raises InvalidError where they differ, and what a worker raises."""
        self._pairs += 1
        self._alike = alike and (self._alike or not goes_on)
        if self._pairs not in self.due:
            return False
        if not self.ready.can_continue:
            steps, text = self.rng.randint(1, self.steps), self.rng.randrange(TEXTS)
            timed = [
                self.ready.time(name, steps, tools.waits.block, text=text)
                for name in self.rng.sample(self._arms, len(ARMS))
            ]
            self._alike = timed[0].tokens == timed[1].tokens
        if self._alike:
            self._compare(tools)
        return True

    @property
    def _arms(self) -> tuple[str, str]:
        return ARMS[0], self.candidate

    def _compare(self, tools: Tools) -> None:
        written, found = list[wire.Written](), list[np.ndarray]()
        with tempfile.TemporaryDirectory(prefix="gemma3n-perf-") as folder:
            for name in self._arms:
                worker, path = self.ready.running.workers[name], place(folder)
                worker.send(wire.LastLogits(str(path), self.ready.model_id(name)))
                written.append(expect(worker, wire.Written, tools.waits.block))
                found.append(taken(path))
        same_versions = self.ready.same_versions(self.candidate)
        same_logits((written[0], written[1]), (found[0], found[1]), same_versions=same_versions)


def drawn(ready: Prepared, candidate: str, steps: int, pairs: int, tools: Tools) -> SpotChecks:
    """Draw after which of a launch's ``pairs`` of blocks; none where a worker, or an engine, gives no logits."""
    rng = tools.rng_apart()
    count = min(CHECKS, max(1, pairs // EVERY)) if ready.gives_logits else 0
    return SpotChecks(ready, candidate, steps, frozenset(rng.sample(range(1, pairs + 1), min(count, pairs))), rng)
