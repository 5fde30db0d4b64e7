"""Progressive tightening: which programs are solved, and what is made of them.

Whether the bounds hold is tested against enumeration, in tests/differential/test_milp_vs_enumeration.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from support import networks
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.errors import SolverError
from verifier.model.network import Network
from verifier.progress import Event
from verifier.search import tighten as module
from verifier.search.tighten import TightenOptions, tighten
from verifier.solve.lp import LinearBound, LinearPrograms
from verifier.solve.outcome import Outcome, Status


def case(*sizes: int, seed: int = 0, radius: float = 0.6) -> tuple[Network, np.ndarray, np.ndarray, tuple[Bounds, ...]]:
    rng = np.random.default_rng(seed)
    network = networks.dense(rng, sizes)
    lower, upper = networks.box(rng, sizes[0], radius)
    box = torch.from_numpy(lower)[None], torch.from_numpy(upper)[None]
    return network, lower, upper, interval_bounds(network, *box)


def unstable(network: Network, bounds: Sequence[Bounds]) -> int:
    return sum(int(bounds[network.nodes[i].inputs[0]].unstable.sum()) for i in network.relus)


def test_lp_and_milp_decide_more_and_more() -> None:
    network, lower, upper, given = case(4, 12, 12, 12, 2)
    found = {
        name: tighten(network, lower, upper, given, Deadline.after(60), options)[0]
        for name, options in {
            "lp": TightenOptions(milp_share=0.0),
            "both": TightenOptions(),
        }.items()
    }
    assert unstable(network, given) > unstable(network, found["lp"]) > unstable(network, found["both"])
    assert all(bound.level is Level.RIGOROUS for bound in found["lp"])
    assert any(bound.level is Level.TRUSTED for bound in found["both"])
    # What nothing changed keeps its level.
    assert found["both"][1].level is Level.RIGOROUS


def test_the_first_layer_needs_no_program() -> None:
    network, lower, upper, given = case(4, 12, 2)
    found, counts = tighten(network, lower, upper, given, Deadline.after(60))
    assert all(a is not None and (a.lower == b.lower).all() for a, b in zip(found, given, strict=True))
    assert not any(counts.values())


def test_signs_that_a_sample_shows_are_not_asked_for() -> None:
    network, lower, upper, given = case(3, 16, 16, 2, radius=2.0)
    few, many = (
        tighten(network, lower, upper, given, Deadline.after(60), TightenOptions(samples=samples, only_signs=True))[1]
        for samples in (0, 2000)
    )
    assert many["tighten_lps"] < few["tighten_lps"]
    assert many["tighten_milps"] < few["tighten_milps"]
    assert many["tighten_lp_fixed"] == few["tighten_lp_fixed"]


def test_only_signs_on_request() -> None:
    """By default also what decides nothing: both sides of every undecided neuron."""
    network, lower, upper, given = case(4, 12, 12, 2)
    found = {
        only: tighten(network, lower, upper, given, Deadline.after(60), TightenOptions(milp_share=0.0, only_signs=only))
        for only in (False, True)
    }
    assert found[True][1]["tighten_lps"] < found[False][1]["tighten_lps"]
    assert unstable(network, found[True][0]) == unstable(network, found[False][0])
    widths = {only: (bounds[3].upper - bounds[3].lower).sum() for only, (bounds, _) in found.items()}
    assert widths[False] < widths[True]


def test_shares_of_nothing() -> None:
    network, lower, upper, given = case(4, 12, 12, 2)
    found, counts = tighten(
        network, lower, upper, given, Deadline.after(60), TightenOptions(lp_share=0.0, milp_share=0.0)
    )
    assert not any(counts.values())
    assert unstable(network, found) == unstable(network, given)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_the_deadline(seconds: float) -> None:
    network, lower, upper, given = case(30, 100, 100, 100, 100, 2, radius=2.0)
    begun = time.monotonic()
    found, _ = tighten(
        network,
        lower,
        upper,
        given,
        Deadline.after(seconds),
        TightenOptions(lp_share=1.0, milp_share=1.0, samples=0),
    )
    assert time.monotonic() - begun < seconds + 1.5
    assert unstable(network, found) <= unstable(network, given)


def test_progress_counts_neurons() -> None:
    network, lower, upper, given = case(4, 12, 12, 12, 2)
    events: list[Event] = []
    found, _ = tighten(network, lower, upper, given, Deadline.after(60), progress=events.append)
    assert [event.unit for event in events] == ["neurons"] * len(events)
    assert events[-1].open == unstable(network, found) - int(found[1].unstable.sum())


def test_rebound_is_asked_after_every_change() -> None:
    network, lower, upper, given = case(4, 12, 12, 12, 2)
    asked: list[Sequence[Bounds]] = []

    def rebound(bounds: Sequence[Bounds]) -> Sequence[Bounds]:
        asked.append(bounds)
        loose = [Bounds(b.lower - 1.0, b.upper + 1.0, b.level) for b in bounds]
        loose[5] = Bounds(b := bounds[5].lower + 1e-3, torch.maximum(b, bounds[5].upper), Level.ESTIMATE)
        return loose

    found, _ = tighten(network, lower, upper, given, Deadline.after(60), rebound=rebound)
    assert len(asked) >= 1
    assert (found[3].lower >= given[3].lower).all()
    assert found[5].level is Level.ESTIMATE


def test_a_contradiction_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinearPrograms, "minimum", lambda *_: LinearBound(100.0, None))
    network, lower, upper, given = case(4, 12, 12, 2)
    with pytest.raises(SolverError, match="contradicts"):
        tighten(network, lower, upper, given, Deadline.after(60), TightenOptions(milp_share=0.0))


@pytest.mark.parametrize("dual", [-np.inf, -0.1, 1e-7])
def test_a_dual_bound_that_proves_no_sign_changes_nothing(monkeypatch: pytest.MonkeyPatch, dual: float) -> None:
    monkeypatch.setattr(module, "minimise", lambda *_, **__: Outcome(Status.LIMIT, np.inf, dual, None, 0, 0.0))
    network, lower, upper, given = case(4, 12, 12, 2)
    found, counts = tighten(network, lower, upper, given, Deadline.after(60), TightenOptions(lp_share=0.0))
    assert counts["tighten_milps"] > 0
    assert all((a.lower == b.lower).all() and a.level is b.level for a, b in zip(found, given, strict=True))
