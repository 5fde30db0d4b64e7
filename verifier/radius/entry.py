"""The functions for users: how robust a network is at an input, and how wrong it can be made near it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from verifier.bounds.ball import Norm
from verifier.deadline import Deadline
from verifier.errors import OptionError
from verifier.model.read import Model
from verifier.options import positive_seconds
from verifier.pipeline import Options, solve
from verifier.radius.certify import RadiusOptions, box_query, certify
from verifier.radius.loss import Loss, largest_loss
from verifier.radius.question import Bounds, Question, question
from verifier.radius.record import Radius, Watch
from verifier.verdict import DisjunctBounds, Evidence, EvidenceLevel, Result, Statistics, Verdict, Witness


def certified_radius(
    network: Model,
    x: ArrayLike,
    label: int | None = None,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    tolerance: float = RadiusOptions.tolerance,
    timeout: float = 60.0,
    *,
    target: int | None = None,
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    group: str | ArrayLike | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Radius:
    """How far from ``x`` the nearest counterexample is, from both sides: ``certified < distance <= adversarial``.

    network: from ``load``.
    x: one input, any shape with as many values as the model's input, in its units; rounded to float32 first where the
        model takes float32, and all distances are from there.
    label: the class that should win; by default the model's own answer at ``x``.
    norm: "linf" (largest change of an input), "l1" (sum of changes), "l2" (Euclidean) or "l0" (how many inputs change).
    bounds: lowest and highest valid input, numbers or arrays; None for none (l0 needs them).
    tolerance: the run ends when the two sides are this close, in the units of the norm; l0 counts, and ends when they
        are adjacent.
    timeout: seconds.
    target: only this class counts, and it has to score at least as much as every other one; by default any class that
        scores at least as much as ``label`` makes a counterexample.  A tie counts.
    weights: positive, one per input (l0: per group): distances are ``norm(weights * (x' - x))``, so a large
        weight makes an input dear to change.
    fixed: bool per input, those that must not change.
    group: for l0, "pixel" (all channels of a pixel together) or one group number per input.
    watch: called with every ``Moment`` in which one side moved; a KeyboardInterrupt from it ends the run, which then
        returns what is known, as after Ctrl-C.
    Methods: see ``verifier.radius.certify``.  Raises OptionError for a question that makes no sense.
    """
    deadline = Deadline.after(positive_seconds(timeout))
    if not tolerance > 0:
        raise OptionError(f"the tolerance is {tolerance:g}; give a positive number")
    asked = question(network, x, label, target, norm, bounds, weights, fixed, group)
    found = certify(asked, deadline, RadiusOptions(tolerance=tolerance, seed=seed), watch)
    return replace(found, witness=None if found.witness is None else _shaped(found.witness, x))


def robust(
    network: Model,
    x: ArrayLike,
    label: int | None = None,
    *,
    epsilon: float,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    timeout: float = 60.0,
    target: int | None = None,
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    group: str | ArrayLike | None = None,
    options: Options | None = None,
) -> Result:
    """Is there a counterexample within ``epsilon``?  ``unsat`` is the good news.

    Arguments as for ``certified_radius``; epsilon in the units of the norm.  For linf this is ``verify`` on the box;
    ``Result.bounds`` has one entry per class that may win, in order.  options: of the pipeline, for linf.
    """
    deadline = Deadline.after(positive_seconds(timeout))
    if not (np.isfinite(epsilon) and epsilon >= 0):
        raise OptionError(f"epsilon is {epsilon:g}; give a finite number that is not negative")
    asked = question(network, x, label, target, norm, bounds, weights, fixed, group)
    if asked.ball.norm is Norm.LINF:
        return solve(box_query(asked, epsilon), deadline, options)
    reach = float(np.floor(epsilon) if asked.counts else epsilon)
    settings = RadiusOptions(tolerance=1e-9, within=reach, seed=options.seed if options else 0)
    return _decision(asked, certify(asked, deadline, settings), reach)


def maximise_loss(
    network: Model,
    x: ArrayLike,
    label: int | None = None,
    *,
    epsilon: float,
    norm: str = "linf",
    bounds: Bounds = (0.0, 1.0),
    tolerance: float = 1e-3,
    timeout: float = 60.0,
    target: int | None = None,
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    group: str | ArrayLike | None = None,
    seed: int = 0,
) -> Loss:
    """How large the margin loss (best target's score less the label's, in the units of the scores) gets in a ball.

    Arguments as for ``certified_radius``; the ball has the radius ``epsilon``, tolerance is in the units of the scores.
    ``Loss.certified`` is an upper bound that holds everywhere in the ball, ``Loss.attained`` what a point reaches.
    A negative ``certified`` proves robustness, a positive ``attained`` refutes it.  Method: see
    ``verifier.radius.loss``.
    """
    deadline = Deadline.after(positive_seconds(timeout))
    if not (np.isfinite(epsilon) and epsilon >= 0):
        raise OptionError(f"epsilon is {epsilon:g}; give a finite number that is not negative")
    if not tolerance > 0:
        raise OptionError(f"the tolerance is {tolerance:g}; give a positive number")
    asked = question(network, x, label, target, norm, bounds, weights, fixed, group)
    found = largest_loss(asked, float(epsilon), tolerance, deadline, seed)
    return replace(found, witness=_shaped(found.witness, x))


def _shaped(witness: np.ndarray, x: ArrayLike) -> np.ndarray:
    return witness.reshape(np.shape(x))


def _decision(asked: Question, found: Radius, epsilon: float) -> Result:
    """The answer to the decision problem that a radius holds."""
    statistics = Statistics(found.seconds)
    count = len(asked.rows.bounds)
    if found.adversarial <= epsilon and found.witness is not None:
        y = asked.model.replay.run(found.witness)
        margins = (asked.rows.outputs.numpy() @ y).max(axis=1)
        disjunct = int(np.argmin(margins))
        witness = Witness(found.witness, y, disjunct, min(float(margins[disjunct]), 0.0))
        return Result(Verdict.SAT, witness, None, (DisjunctBounds(),) * count, statistics)
    if found.certified >= epsilon:
        method = f"branch and bound in {asked.ball.norm}"
        closed = DisjunctBounds(0.0, closed_by=method, level=EvidenceLevel.RIGOROUS)
        evidence = Evidence(EvidenceLevel.RIGOROUS, (method,))
        return Result(Verdict.UNSAT, None, evidence, (closed,) * count, statistics)
    verdict = Verdict.TIMEOUT if "time" in found.reason else Verdict.UNKNOWN
    message = f"no counterexample within {found.certified:.6g}; open up to {epsilon:g}"
    return Result(verdict, None, None, (DisjunctBounds(),) * count, statistics, message)
