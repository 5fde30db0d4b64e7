"""Sign patterns of a small first layer, enumerated: branch and bound on signs with a linear theory of what is
reachable.

Where a box leaves only some tens of first-layer gates open, everything behind them is a Boolean function of so few
bits that its values can be tabulated: blocks of patterns are run through the later layers at about a million a second.
Only patterns that satisfy the asserted rows need to be reachable, and most blocks are never tabulated, because

* a depth-first search over the first bits closes what integer intervals of the later layers close, and what a
  linear program says cannot be reached (see ``reach``);
* every unreachable pattern names a conflict, a few gates with values they cannot have together, which then sieves all
  other patterns: the clauses of logic-based Benders decomposition (Hooker and Ottosson 2003).

What remains is rigorous: conflicts are checked in integers, and sums of integers are exact in float32.  A pattern that
real levels reach but integer levels may not is given to HiGHS as an integer program; a "no" there is a solver's word,
and the answer says so (``rigorous``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verifier.binarised.reach import Reach, integer_levels
from verifier.deadline import Deadline
from verifier.encodings.sat.program import Program
from verifier.progress import Event, Progress, silent
from verifier.proofs.conflict import Conflict, pair_conflicts
from verifier.solve.gate_engines import GateAnswer

Integers = NDArray[np.int64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class PatternOptions:
    """most: open gates of the first layer that are still worth a try.

    block: bits that are tabulated at once.  chunk: patterns per matrix product.  samples: patterns of a block that are
    tried against the linear theory before the block is tabulated, and again as long as half of them teach something.
    """

    most: int = 40
    block: int = 16
    chunk: int = 4096
    samples: int = 8


@dataclass(frozen=True, eq=False)
class PatternOutcome:
    """rigorous: a "no" rests on integer arithmetic alone.  conflicts, order: its proof (see ``verifier.proofs``)."""

    answer: GateAnswer
    rigorous: bool
    conflicts: tuple[Conflict, ...]
    order: tuple[int, ...]


def few_enough(program: Program, options: PatternOptions) -> bool:
    """Whether the first layer is small enough for this engine."""
    return bool(program.layers) and len(program.layers[0]) <= options.most


def search_patterns(
    program: Program, deadline: Deadline, options: PatternOptions | None = None, progress: Progress = silent
) -> PatternOutcome:
    """Decide the program."""
    if not len(program.layers[0]):
        levels = np.zeros(len(program.counts), np.int64)
        holds = bool(program.holds(levels[None])[0])
        return PatternOutcome(GateAnswer(holds, levels if holds else None), True, (), ())
    return _Search(program, deadline, options or PatternOptions(), progress).run()


class _OutOfTimeError(Exception):
    pass


class _FoundError(Exception):
    def __init__(self, levels: Integers) -> None:
        self.levels = levels


class _Search:
    def __init__(self, program: Program, deadline: Deadline, options: PatternOptions, progress: Progress) -> None:
        self._program, self._deadline, self._options, self._progress = program, deadline, options, progress
        self._first = program.layers[0]
        self._reach = Reach(self._first, program.counts)
        self._later = [*program.layers[1:], program.asserted]
        self._dense = [layer.weights.toarray().astype(np.float32) for layer in self._later]
        self._sides = [(layer.thresholds - 0.5).astype(np.float32) for layer in self._later]
        self._rng = np.random.default_rng(0)
        self._conflicts: list[tuple[int, int]] = []
        self._lessons: list[Conflict] = []
        for conflict in pair_conflicts(program):
            self._enter(conflict)
        self._rigorous = True
        self._seen = 0.0
        count = len(self._first)
        low, high = self._first.weights.minimum(0) @ program.counts, self._first.weights.maximum(0) @ program.counts
        # Gates first whose rarer value needs most levels at their ends: it leaves least to the others.
        room = np.minimum(high - self._first.thresholds, self._first.thresholds - 1 - low)
        self._order = np.argsort(room / np.maximum(high - low, 1), kind="stable").tolist()
        block = min(options.block, count)
        self._head, self._tail = self._order[: count - block], self._order[count - block :]
        numbers = np.arange(2**block, dtype=np.int64)
        self._tail_bits = ((numbers[:, None] >> np.arange(block)) & 1).astype(np.float32)
        self._tail_masks = np.zeros(2**block, np.int64)
        for place, gate in enumerate(self._tail):
            self._tail_masks |= ((numbers >> place) & 1) << gate

    def run(self) -> PatternOutcome:
        try:
            self._visit({}, 1.0)
            answer = GateAnswer(False)
        except _FoundError as found:
            answer = GateAnswer(True, found.levels)
        except _OutOfTimeError:
            answer = GateAnswer(None, None, f"{self._seen:.0%} of the patterns seen")
        return PatternOutcome(answer, self._rigorous, tuple(self._lessons), tuple(self._order))

    def _visit(self, pattern: dict[int, bool], share: float) -> None:
        """Depth first over the head; share: of all patterns, for progress."""
        if self._deadline.expired:
            raise _OutOfTimeError
        if not self._possible(pattern) or self._blocked(pattern) or (pattern and self._learn(pattern)):
            self._seen += share
            return
        depth = len(pattern)
        if depth == len(self._head):
            self._tabulate(pattern)
            self._seen += share
            self._progress(Event("patterns", open=int((1 - self._seen) * 100), unit="percent of the patterns"))
            return
        gate = self._head[depth]
        for bit in (False, True):
            self._visit({**pattern, gate: bit}, share / 2)

    def _possible(self, pattern: dict[int, bool]) -> bool:
        """Whether intervals of the later layers leave the asserted rows a chance."""
        low, high = np.zeros(len(self._first), np.float32), np.ones(len(self._first), np.float32)
        for gate, bit in pattern.items():
            low[gate] = high[gate] = bit
        for weights, side in zip(self._dense, self._sides, strict=True):
            positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
            smallest, largest = positive @ low + negative @ high, positive @ high + negative @ low
            low, high = (smallest > side).astype(np.float32), (largest > side).astype(np.float32)
        return bool(np.all(high > 0))

    def _blocked(self, pattern: dict[int, bool]) -> bool:
        asked = sum(1 << gate for gate in pattern)
        values = sum(1 << gate for gate, bit in pattern.items() if bit)
        return any(mask & asked == mask and values & mask == value for mask, value in self._conflicts)

    def _learn(self, pattern: dict[int, bool]) -> bool:
        """Whether the pattern is out of reach; the reason is kept."""
        answer = self._reach.ask(pattern)
        if not isinstance(answer, Conflict):
            return False
        self._enter(answer)
        return True

    def _enter(self, conflict: Conflict) -> None:
        mask = sum(1 << int(gate) for gate in conflict.gates)
        value = sum(1 << int(gate) for gate, bit in zip(conflict.gates, conflict.bits, strict=True) if bit)
        self._conflicts.append((mask, value))
        self._lessons.append(conflict)

    def _tabulate(self, pattern: dict[int, bool]) -> None:
        """All patterns of the tail with this head."""
        fixed = sum(1 << gate for gate, bit in pattern.items() if bit)
        numbers = self._tail_masks | fixed
        alive = np.ones(len(numbers), bool)
        used = self._sieve(alive, numbers, 0)
        while True:
            left = np.flatnonzero(alive)
            if not len(left):
                return
            taught = 0
            for chosen in self._rng.choice(left, min(self._options.samples, len(left)), replace=False).tolist():
                taught += bool(alive[chosen] and self._learn(self._pattern(int(numbers[chosen]))))
                used = self._sieve(alive, numbers, used)
            if 2 * taught < self._options.samples or self._deadline.expired:
                break
        left = np.flatnonzero(alive)
        base = np.zeros(len(self._first), np.float32)
        for gate, bit in pattern.items():
            base[gate] = bit
        for begin in range(0, len(left), self._options.chunk):
            if self._deadline.expired:
                raise _OutOfTimeError
            rows = left[begin : begin + self._options.chunk]
            rows = rows[alive[rows]]
            for row in rows[self._satisfying(base, rows)].tolist():
                if alive[row]:
                    self._try(int(numbers[row]))
                    used = self._sieve(alive, numbers, used)

    def _satisfying(self, base: Singles, rows: Integers) -> NDArray[np.bool_]:
        bits = self._tail_bits[rows]
        weights = self._dense[0]
        # OpenBLAS sets the invalid flag on some tiny matrices, though all numbers are finite.
        with np.errstate(invalid="ignore"):
            values = bits @ weights[:, self._tail].T + (weights @ base - self._sides[0])
            for weights, side in zip(self._dense[1:], self._sides[1:], strict=True):
                values = (values > 0).astype(np.float32) @ weights.T - side
        return np.asarray((values > 0).all(axis=1))

    def _sieve(self, alive: NDArray[np.bool_], numbers: Integers, used: int) -> int:
        for mask, value in self._conflicts[used:]:
            alive &= (numbers & mask) != value
        return len(self._conflicts)

    def _pattern(self, number: int) -> dict[int, bool]:
        return {gate: bool(number >> gate & 1) for gate in range(len(self._first))}

    def _try(self, number: int) -> None:
        """A pattern that satisfies the asserted rows: out of reach, or a solution."""
        pattern = self._pattern(number)
        if self._learn(pattern):
            return
        bits = np.array([pattern[gate] for gate in range(len(self._first))])
        levels, decided = integer_levels(self._first, self._program.counts, bits, self._deadline)
        if levels is not None and self._program.holds(levels[None])[0]:
            raise _FoundError(levels)
        if not decided:
            raise _OutOfTimeError
        self._rigorous = False
        self._conflicts.append(((1 << len(self._first)) - 1, number))
