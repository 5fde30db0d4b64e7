"""The two numbers of a run, which only ever move towards each other, and the answer made of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.errors import SoundnessError
from verifier.radius.incumbent import Incumbent
from verifier.verdict import EvidenceLevel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """What was known after so many seconds."""

    seconds: float
    certified: float
    adversarial: float
    stage: str


@dataclass(frozen=True, eq=False)
class Radius:
    """How far the nearest counterexample is, from both sides.

    certified: there is no counterexample at this distance or nearer; 0 claims nothing, inf says that there is
        none in the whole box.  It speaks of the real-valued function that the stored weights define.
    adversarial: the distance of ``witness``, rounded up; inf without one.
    witness: in the shape of the input, confirmed by onnxruntime; None without one.
    label: the class that should win.  predicted: the class of the witness, None without one.
    level: on what ``certified`` rests.
    reason: why the gap is open, "" where it is within the tolerance.
    history: what was known when; ``certified`` never falls in it and ``adversarial`` never rises.
    step: 1 where all distances are whole numbers, as in l0 with whole weights, otherwise 0.
    """

    certified: float
    adversarial: float
    witness: Array | None
    label: int
    predicted: int | None
    norm: str
    level: EvidenceLevel
    reason: str
    seconds: float
    history: tuple[Moment, ...]
    step: float = 0.0

    @property
    def gap(self) -> float:
        """How far apart the two are; 0 where both are infinite.

        Where distances are whole numbers, adjacent ones leave nothing open: ``certified`` 2 and ``adversarial`` 3 have
        a gap of 0.
        """
        if self.certified == self.adversarial:
            return 0.0
        return max(0.0, self.adversarial - self.certified - self.step)

    @property
    def closed(self) -> bool:
        """Whether nothing within the tolerance is left open."""
        return not self.reason


Watch = Callable[[Moment], None]


class Record:
    """What a run knows; only ``raise_to`` and ``see`` change it, and only in the right direction."""

    def __init__(self, incumbent: Incumbent, watch: Watch | None = None) -> None:
        self._begun, self._watch = time.monotonic(), watch
        self.incumbent = incumbent
        self.certified = 0.0
        self.adversarial = math.inf
        self.history: list[Moment] = []

    def raise_to(self, certified: float, stage: str) -> None:
        """There is no counterexample within this distance.  Raises SoundnessError where one is known."""
        if math.isnan(certified) or certified <= self.certified:
            return
        if certified > self.incumbent.distance:
            raise SoundnessError(
                f"{stage} proves that there is no counterexample within {certified:.17g}, but onnxruntime confirms one "
                f"at {self.incumbent.distance:.17g}"
            )
        self.certified = self.incumbent.floor = certified
        self._note(stage)

    def see(self, stage: str) -> None:
        """The incumbent may have become better."""
        if self.incumbent.distance < self.adversarial:
            if self.incumbent.distance < self.certified:
                raise SoundnessError(
                    f"there is no counterexample within {self.certified:.17g}, but onnxruntime confirms one at "
                    f"{self.incumbent.distance:.17g}"
                )
            self.adversarial = self.incumbent.distance
            self._note(stage)

    def finish(self) -> None:
        """After an interrupt, which may have come between a confirmed witness and its entry here."""
        self._watch = None
        self.see("interrupted")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def _note(self, stage: str) -> None:
        moment = Moment(self.seconds, self.certified, self.adversarial, stage)
        self.history.append(moment)
        if self._watch is not None:
            self._watch(moment)
