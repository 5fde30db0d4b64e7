"""What is wrong with an engine's answer to a case, judged by enumeration or a MILP, and by rational arithmetic.

Enumeration gives the point of the smallest margin of every disjunct up to the tolerance of an LP solver, a MILP one
that is as good within its tolerances; the margin at that point is then evaluated exactly.  So an ``unsat`` is refuted
without any tolerance, and a ``sat`` needs a witness that onnxruntime confirms, also without tolerance.  Only where the
smallest margin is a tie, closer to zero than float32 can tell, or within the band that an engine's documentation
names, may it leave the question open.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from fuzz import exact
from fuzz.case import Array, Case
from fuzz.oracle import smallest_margin
from verifier.model.network import Network
from verifier.query import Replay
from verifier.verdict import DisjunctBounds, EvidenceLevel, Verdict, Witness
from verifier.vnnlib.spec import Disjunct

TIE = 2e-6
"""Relative to the sizes that are summed; above float32's 6e-8 times the few terms of a tiny network."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What an engine says of a case.

    bounds: per disjunct, () when it gives none.
    decides: whether it promises an answer where there is no tie.
    band: smallest margins up to this size it may leave open all the same, as its documentation says.
    """

    verdict: Verdict
    witness: Witness | None = None
    bounds: tuple[DisjunctBounds, ...] = ()
    level: EvidenceLevel | None = None
    decides: bool = False
    band: float = 0.0


@dataclass(frozen=True)
class Complaint:
    """kind: the same for failures of the same sort, which shrinking keeps; text: for a person."""

    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class Truth:
    """One disjunct: its smallest margin lies in [floor, value]; the margin and whether it holds at a point, exactly."""

    floor: float
    value: float
    tie: float
    point: Array | None
    margin: Fraction | float
    holds: bool

    @property
    def verdict(self) -> Verdict:
        """UNKNOWN for a tie."""
        return self.beyond(self.tie)

    def beyond(self, band: float) -> Verdict:
        """UNKNOWN where the smallest margin may lie within ``band`` of zero."""
        if self.value < -band:
            return Verdict.SAT
        return Verdict.UNSAT if self.floor > band else Verdict.UNKNOWN


def truth(network: Network, disjunct: Disjunct) -> Truth:
    """Find out about one disjunct.  Without any point that its input rows allow the value is inf."""
    found = smallest_margin(network, disjunct)
    if not np.isfinite(found.value):
        return Truth(found.value, found.value, 0.0, None, np.inf, found.value < 0)
    margin, holds = exact.margin(network, disjunct, found.point)
    return Truth(found.floor, found.value, TIE * magnitude(network, disjunct), found.point, margin, holds)


def magnitude(network: Network, disjunct: Disjunct) -> float:
    """How large the sums behind a margin can be over the box, at least 1."""
    size = torch.from_numpy(np.maximum(np.abs(disjunct.lower), np.abs(disjunct.upper))).unsqueeze(0)
    values = [size.reshape(1, *network.input_shape)]
    for node in network.nodes[1:]:
        sources = [values[source] for source in node.inputs]
        absolute = getattr(node.operator, "absolute", None)
        if absolute is None:
            values.append(sources[0])
            continue
        offset = node.operator.offset(node.shape)  # type: ignore[union-attr]
        values.append(absolute(*sources) + (0 if offset is None else offset.abs()))
    rows = disjunct.constraints
    total = np.abs(rows.outputs) @ values[-1].reshape(-1).numpy() + np.abs(rows.bounds)
    total = total + np.abs(rows.inputs) @ size.squeeze(0).numpy()
    return max(1.0, float(total.max(initial=0.0)))


def judge(case: Case, truths: list[Truth], answer: Answer, replay: Replay) -> Complaint | None:
    """The first thing that is wrong with an answer, or None."""
    if answer.bounds and len(answer.bounds) != len(truths):
        return Complaint("shape", f"{len(answer.bounds)} bounds for {len(truths)} disjuncts")
    found = _witness(case, truths, answer, replay) or _unsat(truths, answer)
    for index, bounds in enumerate(answer.bounds):
        found = found or _bounds(index, truths[index], bounds, case.spec.disjuncts[index])
    return found or _undecided(case, truths, answer)


def _witness(case: Case, truths: list[Truth], answer: Answer, replay: Replay) -> Complaint | None:
    witness = answer.witness
    if (witness is not None) != (answer.verdict is Verdict.SAT):
        return Complaint("witness missing", f"{answer.verdict} {'without' if witness is None else 'with'} a witness")
    if witness is None:
        return None
    if not np.array_equal(witness.x, witness.x.astype(case.network.input_dtype)):
        return Complaint("witness type", f"{witness.x.tolist()} is not {case.network.input_dtype}")
    y = replay.run(witness.x)
    if not np.array_equal(y, witness.y):
        return Complaint("witness output", f"onnxruntime computes {y.tolist()}, the witness says {witness.y.tolist()}")
    if not 0 <= witness.disjunct < len(truths):
        return Complaint("witness disjunct", f"there is no disjunct {witness.disjunct}")
    if not case.spec.disjuncts[witness.disjunct].holds_exactly(witness.x, y):
        return Complaint("witness false", f"disjunct {witness.disjunct} does not hold at {witness.x.tolist()}")
    known = truths[witness.disjunct]
    if known.verdict is Verdict.UNSAT:
        # Confirmed by onnxruntime and impossible: then the network is not the model, or the oracle is wrong.
        return Complaint("referees differ", f"confirmed, but the smallest margin is at least {known.floor:.3g}")
    return None


def _unsat(truths: list[Truth], answer: Answer) -> Complaint | None:
    if answer.verdict is not Verdict.UNSAT:
        return None
    if answer.level is None:
        return Complaint("evidence missing", "unsat without evidence")
    for index, known in enumerate(truths):
        if _refuted(known, answer.level):
            return Complaint("unsat", f"disjunct {index} {_described(known)}")
    return None


def _bounds(index: int, known: Truth, bounds: DisjunctBounds, disjunct: Disjunct) -> Complaint | None:
    if bounds.closed_by:
        if bounds.level is None:
            return Complaint("evidence missing", f"disjunct {index} closed by {bounds.closed_by} at no level")
        if _refuted(known, bounds.level):
            return Complaint("closed", f"disjunct {index}, closed by {bounds.closed_by}, {_described(known)}")
    # A solver's bound holds within its tolerances, and for the points that the input rows allow.
    only_inputs = bool(np.any(~disjunct.constraints.outputs.any(axis=1)))
    comparable = known.point is not None and not (only_inputs and known.margin > 0)
    if comparable and bounds.lower > float(known.margin) + known.tie:
        return Complaint("lower bound", f"disjunct {index}: {bounds.lower:.9g}, but it {_described(known)}")
    if bounds.upper < known.floor - known.tie and not only_inputs:
        return Complaint("upper bound", f"disjunct {index}: {bounds.upper:.9g} was seen, {known.floor:.9g} is least")
    return None


def _refuted(known: Truth, level: EvidenceLevel) -> bool:
    """A solver's word may be wrong within its tolerances, anything else must hold exactly."""
    return known.verdict is Verdict.SAT if level is EvidenceLevel.SOLVER else known.holds


def _described(known: Truth) -> str:
    where = "" if known.point is None else f" at {known.point.tolist()}"
    return f"has the exact margin {float(known.margin):.9g}{where}"


def _undecided(case: Case, truths: list[Truth], answer: Answer) -> Complaint | None:
    """Complain of an engine that promises an answer and gives none where float32 can tell."""
    if not answer.decides or answer.verdict in (Verdict.SAT, Verdict.UNSAT):
        return None
    verdicts = {known.beyond(max(known.tie, answer.band)) for known in truths}
    representable = all(_has_points(d, case.network.input_dtype) for d in case.spec.disjuncts)
    if verdicts == {Verdict.UNSAT} or not verdicts or (Verdict.SAT in verdicts and representable):
        values = [f"{known.value:.3g}" for known in truths]
        return Complaint("undecided", f"{answer.verdict} although the smallest margins are {', '.join(values)}")
    return None


def _has_points(disjunct: Disjunct, dtype: str) -> bool:
    """Whether every side of the box holds a number of the model's input type."""
    low = disjunct.lower.astype(dtype)
    low = np.where(low < disjunct.lower, np.nextafter(low, np.inf, dtype=low.dtype), low)
    return bool(np.all(low <= disjunct.upper))
