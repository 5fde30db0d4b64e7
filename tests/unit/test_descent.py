"""Descents: which targets they look at, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from support.replay import TorchReplay
from verifier.deadline import Deadline
from verifier.model.network import build
from verifier.model.operators import Input, Linear, Relu
from verifier.model.read import Model
from verifier.radius import descent
from verifier.radius.descent import DescentOptions, descend
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import Question, question

DISTANCES = (0.5, 0.4, 0.3, 0.2)
"""From the origin to the classes 1 to 4, each in an input of its own."""


@pytest.fixture
def asked() -> Question:
    n = len(DISTANCES)
    shift = Linear(torch.eye(n, dtype=torch.float64), torch.full((n,), 10.0, dtype=torch.float64))
    weight = torch.vstack([torch.zeros(1, n), torch.eye(n)]).double()
    bias = torch.tensor([0.0, *(-10 - distance for distance in DISTANCES)], dtype=torch.float64)
    network = build([(Input((1, n)), ()), (shift, (0,)), (Relu(), (1,)), (Linear(weight, bias), (2,))])
    model = Model(network, TorchReplay(network), Path("model.onnx"), "")
    return question(model, np.zeros(n), label=0, bounds=(-1.0, 1.0))


def far(asked: Question) -> Incumbent:
    incumbent = Incumbent(asked)
    incumbent.offer(np.array([[0.9, 0.0, 0.0, 0.0]]))
    assert incumbent.distance == pytest.approx(0.5, abs=1e-3)
    return incumbent


def run(asked: Question, incumbent: Incumbent, **arguments) -> None:
    generator = torch.Generator().manual_seed(0)
    options = arguments.pop("options", DescentOptions(work=1e7))
    descend(asked, incumbent, Deadline.after(60), generator, options, lambda: None, **arguments)


def test_the_nearest_class_is_found(asked):
    incumbent = far(asked)
    run(asked, incumbent)
    assert incumbent.distance == pytest.approx(0.2, abs=1e-3)
    assert incumbent.x[3] >= 0.2


@pytest.mark.parametrize("target", [2, 3])
def test_other_targets_are_left_alone(asked, target):
    incumbent = far(asked)
    run(asked, incumbent, targets=[target])
    assert incumbent.distance == pytest.approx(DISTANCES[target - 1], abs=1e-3)


def test_no_targets_are_no_work(asked, monkeypatch):
    monkeypatch.setattr(descent, "_round", lambda *_: pytest.fail("a round without targets"))
    incumbent = far(asked)
    run(asked, incumbent, targets=[])
    assert incumbent.distance == pytest.approx(0.5, abs=1e-3)


def test_all_targets_are_looked_at_again_after_a_round_in_vain(asked, monkeypatch):
    """What every round is told, where the third one is the only one with success."""
    rounds, effort = [], []

    def fake(asked, network, incumbent, radius, targets, options, *_):
        rounds.append(set(targets))
        effort.append(options.work)
        points = torch.zeros(len(targets), 1, 4)
        if len(rounds) == 3:
            points[:, 0, 3] = 0.45
        return points, -torch.tensor(targets).double()[:, None]

    monkeypatch.setattr(descent, "_round", fake)
    run(asked, far(asked), options=DescentOptions(work=1e7, targets=2, patience=4, doublings=2))
    every, last = {1, 2, 3, 4}, {3, 4}
    # Scouted: the last two look best.  In vain; scouted again, with success; in vain twice more by turns.
    assert rounds == [every, last, every, last, every, last, every]
    assert [work / 1e7 for work in effort] == [1, 2, 4, 1, 2, 4, 4]
