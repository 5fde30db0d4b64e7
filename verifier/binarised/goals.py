"""Rows of a property as integer inequalities over the bits of the last layer.

    sum_j c_j y_j <= bound    becomes    weights @ bits >= threshold

For ``y_a <= y_b``, the comparison of two classes, the outputs' own float32 arithmetic decides: all values that the
two sums can take are run through the model's last nodes, and the smallest difference of sums for which the comparison
can hold is the threshold.  Where that difference alone does not decide (the outputs have different scales), and for all
other rows, the inequality is the weakest that covers rounding: ``unsat`` remains true, and ``sat`` is decided by
onnxruntime anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from verifier.binarised.network import Outputs
from verifier.errors import SpecError
from verifier.vnnlib.spec import Disjunct, Spec

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WIDEST = 4096
"""Ranges of sums up to this are run through the last nodes value by value."""
UNIT = 2.0**-24
SLACK = 2.0**-20
"""Relative rounding of an affine chain of a few nodes in float32, generously."""
SCALE = 2.0**20
"""Real coefficients become integers of about this size."""


@dataclass(frozen=True, eq=False)
class Goal:
    """All rows of one disjunct: ``weights @ bits >= thresholds``.

    weights: (rows, bits).  thresholds: (rows,).  exact: whether every point of the box with these bits satisfies
    the disjunct, up to what it asks of the inputs.
    """

    weights: sp.csr_array
    thresholds: Integers
    exact: bool
    unit: float
    """What a slack of 1 is in the outputs: the margin of a point with slack s is between -unit (s + 1) and -unit s.
    0 where the rows have no unit in common."""


class GoalMaker:
    """The rows of properties about one network's outputs."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._dense = outputs.weights.toarray()
        negative = np.asarray(outputs.weights.minimum(0).sum(axis=1)).reshape(-1)
        positive = np.asarray(outputs.weights.maximum(0).sum(axis=1)).reshape(-1)
        self._low, self._high = negative + outputs.offset, positive + outputs.offset

    def goals(self, spec: Spec) -> list[Goal]:
        """One per disjunct.  Raises SpecError for rows that the network's form cannot answer."""
        if self._outputs.softmax:
            _check_softmax(spec)
        return [self._goal(disjunct, spec.source) for disjunct in spec.disjuncts]

    def _goal(self, disjunct: Disjunct, source: str) -> Goal:
        rows = disjunct.constraints
        weights, thresholds, units, exact = [], [], set(), True
        for i in range(len(rows)):
            bound = float(rows.bounds[i])
            if rows.mentions_inputs:
                part = rows.inputs[i]
                bound -= float(np.sum(np.minimum(part * disjunct.lower, part * disjunct.upper)))
                bound += SLACK * float(np.abs(part) @ np.maximum(np.abs(disjunct.lower), np.abs(disjunct.upper)))
                exact = exact and not np.any(part)
            row, threshold, decides, unit = self._row(rows.outputs[i], bound, bool(rows.strict[i]), source)
            weights.append(row)
            thresholds.append(threshold)
            units.add(0.0 if rows.mentions_inputs and np.any(rows.inputs[i]) else unit)
            exact &= decides
        stacked = np.stack(weights) if weights else np.zeros((0, self._dense.shape[1]), np.int64)
        unit = units.pop() if len(units) == 1 else 0.0
        return Goal(sp.csr_array(stacked), np.array(thresholds, np.int64), exact, unit)

    def _row(self, coefficients: Floats, bound: float, strict: bool, source: str) -> tuple[Integers, int, bool, float]:
        """Weights, threshold, whether they decide, and the unit."""
        named = np.flatnonzero(coefficients)
        comparison = len(named) == 2 and bound == 0 and coefficients[named].sum() == 0
        if comparison:
            less, more = named if coefficients[named[0]] > 0 else named[::-1]
            if self._outputs.softmax or (self._table is not None and self._outputs.exact):
                return *self._compare(int(less), int(more), strict), self._unit(int(less), int(more))
        if self._outputs.softmax:
            raise SpecError(
                "behind a Softmax only comparisons of two outputs are decided; state the property as Y_i <= Y_j",
                source or None,
            )
        whole = self._outputs.chain is None and self._outputs.exact and bool(np.all(self._outputs.offset % 1 == 0))
        unit = 1.0 if whole and np.all(coefficients % 1 == 0) and not np.any(np.abs(coefficients) >= 2**10) else 0.0
        return *self._linear(coefficients, bound), unit

    def _unit(self, less: int, more: int) -> float:
        """Of a comparison: the slope that both outputs have."""
        if self._outputs.softmax:
            return 0.0
        slope = self._affine[0]
        return float(slope[more]) if np.isclose(slope[less], slope[more], rtol=1e-5, atol=0) else 0.0

    def _compare(self, less: int, more: int, strict: bool) -> tuple[Integers, int, bool]:
        """``y_less <= y_more``, or ``<`` where strict."""
        outputs = self._outputs
        row = _integers(self._dense[more] - self._dense[less])
        if outputs.softmax or outputs.chain is None:
            # Integers: y_more - y_less >= 0 or >= 1.
            threshold = int(outputs.offset[less] - outputs.offset[more]) + (1 if strict else 0)
            return row, threshold, True
        table = self._table
        assert table is not None
        lower, upper = table[less], table[more]
        reached = np.searchsorted(upper, lower, side="right" if strict else "left")
        possible = reached < len(upper)
        shift = int(outputs.offset[more] - outputs.offset[less])
        if not np.any(possible):
            return row, int(self._high[more] - self._low[less]) + 1 - shift, True
        sums_more = reached[possible] + int(self._low[more])
        sums_less = np.flatnonzero(possible) + int(self._low[less])
        differences = sums_more - sums_less
        threshold = int(differences.min()) - shift
        return row, threshold, bool(np.all(differences == differences.min()))

    @cached_property
    def _table(self) -> list[Floats] | None:
        """Every output at every value of its sum, from the smallest on; None where that is not worth it."""
        outputs = self._outputs
        width = int((self._high - self._low).max()) + 1
        if outputs.chain is None:
            return [] if outputs.exact else None
        if not outputs.exact or width > WIDEST:
            return None
        values = np.stack([outputs.chain(np.minimum(self._low + k, self._high)) for k in range(width)])
        if np.any(np.diff(values, axis=0) < 0):
            return None
        sizes = (self._high - self._low).astype(int) + 1
        return [values[: sizes[j], j] for j in range(len(outputs))]

    def _linear(self, coefficients: Floats, bound: float) -> tuple[Integers, int, bool]:
        """Any row, weakened by everything that rounding could add."""
        slope, shift, error = self._affine
        outputs = self._outputs
        scaled = coefficients * slope
        row = -(scaled @ self._dense)
        needed = -bound - float(np.abs(coefficients) @ error) + float(coefficients @ (slope * outputs.offset + shift))
        needed -= SLACK * (abs(bound) + float(np.abs(coefficients) @ np.abs(slope * outputs.offset + shift))) * 2.0**-20
        largest = float(np.abs(row).max(initial=0.0))
        if np.all(row == np.rint(row)) and largest < SCALE:
            return _integers(row), int(np.ceil(needed)), False
        factor = 2.0 ** np.floor(np.log2(SCALE / largest))
        integers = _integers(row * factor)
        # Every rounded coefficient is off by at most a half.
        return integers, int(np.ceil(needed * factor - np.count_nonzero(row) / 2 - 1)), False

    @cached_property
    def _affine(self) -> tuple[Floats, Floats, Floats]:
        """slope, shift, error (outputs,): ``|y - (slope * sum + shift)| <= error`` on the range of the sums."""
        outputs = self._outputs
        terms = np.diff(outputs.weights.indptr)
        largest = np.asarray(abs(outputs.weights).sum(axis=1)).reshape(-1) + np.abs(outputs.offset)
        accumulated = (terms + 2) * UNIT * largest
        if outputs.chain is None:
            zero = np.zeros(len(outputs))
            return zero + 1, zero, np.where(outputs.exact, 0.0, accumulated)
        low, high = self._low, np.maximum(self._high, self._low + 1)
        at_low, at_high = outputs.chain(low), outputs.chain(high)
        slope = (at_high - at_low) / (high - low)
        shift = at_low - slope * low
        size = np.abs(at_low) + np.abs(at_high) + np.abs(slope) * (np.abs(low) + np.abs(high))
        error = np.abs(slope) * accumulated + SLACK * size
        for part in np.linspace(0.0, 1.0, 33):
            at = low + part * (high - low)
            if np.any(np.abs(outputs.chain(at) - (slope * at + shift)) > error):
                raise SpecError(
                    "the network ends in a function that is neither affine nor compared class by class; "
                    "remove its last activation and state the property about the scores"
                )
        return slope, shift, error


def _integers(row: Floats) -> Integers:
    return np.rint(row).astype(np.int64)


def _check_softmax(spec: Spec) -> None:
    """Softmax keeps the order of scores but ties small ones in float32: a class is only safe against all others.

    Two scores far below the largest both become 0.  Then the largest beats the class as well, so a property that
    compares a class with all others has the same answer with and without Softmax.
    """
    for disjunct in spec.disjuncts:
        if len(disjunct.constraints) != 1:
            raise SpecError(
                "behind a Softmax only properties that compare one class with every other are decided; "
                "remove the Softmax from the model and state the property about the scores",
                spec.source or None,
            )
    pairs = {
        (int(np.argmax(d.constraints.outputs[0])), int(np.argmin(d.constraints.outputs[0]))) for d in spec.disjuncts
    }
    for less, _ in pairs:
        if {more for found, more in pairs if found == less} != set(range(spec.n_outputs)) - {less}:
            raise SpecError(
                "behind a Softmax only properties that compare one class with every other are decided; "
                "remove the Softmax from the model and state the property about the scores",
                spec.source or None,
            )
