"""The functions for users: what they return, what they refuse, and that the two sides only move towards each other."""

from __future__ import annotations

import gc
import math
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import verifier
from package_map import ROOT
from support.networks import dense
from support.replay import TorchReplay
from verifier.bounds.ball import Norm
from verifier.deadline import Deadline
from verifier.errors import OptionError, SoundnessError
from verifier.model.network import build
from verifier.model.operators import Input, Linear, Relu, Reshape
from verifier.model.read import Model
from verifier.model.write import write
from verifier.radius.certify import RadiusOptions, certify
from verifier.radius.incumbent import Incumbent
from verifier.radius.question import question
from verifier.radius.record import Record
from verifier.verdict import Verdict

DIGITS = ROOT / "benchmarks" / "digits"


@pytest.fixture(scope="module")
def digits():
    images = np.load(DIGITS / "images.npz")
    return verifier.load(DIGITS / "onnx" / "mlp.onnx"), images["images"], images["labels"]


def model_of(network) -> Model:
    return Model(network, TorchReplay(network), Path("model.onnx"), "")


def linear_model(weight, bias) -> Model:
    """Scores that are linear in the inputs, by way of a ReLU that is always active."""
    weight, bias = torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64)
    n = weight.shape[1]
    shift = Linear(torch.eye(n, dtype=torch.float64), torch.full((n,), 10.0, dtype=torch.float64))
    back = Linear(weight, bias - 10 * weight.sum(1))
    return model_of(build([(Input((1, n)), ()), (shift, (0,)), (Relu(), (1,)), (back, (2,))]))


SIMPLE = linear_model([[2.0, 1.0], [0.0, 0.0]], [-1.0, 0.0])
"""Class 0 where 2 x_0 + x_1 > 1."""


@pytest.mark.parametrize(
    ("norm", "distance"), [("linf", 1.25 / 3), ("l1", 1.25 / 2), ("l2", 1.25 / math.sqrt(5)), ("l0", 1.0)]
)
def test_distances_to_a_line(norm, distance):
    found = verifier.certified_radius(SIMPLE, [0.75, 0.75], norm=norm, tolerance=1e-6)
    assert found.certified <= distance <= found.adversarial * (1 + 1e-12)
    assert found.gap <= 1e-6
    assert (found.adversarial if norm == "l0" else (found.certified + found.adversarial) / 2) == pytest.approx(
        distance, abs=1e-6
    )
    assert found.label == 0
    assert found.predicted == 1
    assert found.level is verifier.EvidenceLevel.RIGOROUS
    x = found.witness
    assert 2 * x[0] + x[1] <= 1 + 1e-12
    assert found.closed
    assert not found.reason


def test_weights_and_fixed_inputs():
    # The first input is dear, so the second one moves: as far as its room of 0.75 goes, the rest is the first one's.
    found = verifier.certified_radius(SIMPLE, [0.75, 0.75], norm="l1", weights=[10.0, 1.0])
    assert found.certified == pytest.approx(0.75 + 10 * 0.25, abs=1e-3)
    held = verifier.certified_radius(SIMPLE, [0.75, 0.75], norm="linf", fixed=[False, True])
    assert held.certified == pytest.approx(1.25 / 2, abs=1e-3)
    assert held.witness[1] == 0.75
    nothing = verifier.certified_radius(SIMPLE, [0.75, 0.75], norm="linf", fixed=[True, True])
    assert nothing.certified == math.inf
    assert nothing.gap == 0
    unreachable = verifier.certified_radius(SIMPLE, [0.75, 0.75], norm="l2", fixed=[True, False])
    assert unreachable.certified == math.inf


def test_without_bounds_on_the_inputs():
    found = verifier.certified_radius(SIMPLE, [2.0, 3.0], norm="l2", bounds=None)
    assert found.certified == pytest.approx(6 / math.sqrt(5), abs=1e-3)
    constant = linear_model([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    everywhere = verifier.certified_radius(constant, [2.0, 3.0], bounds=None, timeout=20)
    assert everywhere.adversarial == math.inf
    # Without bounds no search reaches infinity.
    assert 1e5 < everywhere.certified < math.inf


def test_target_has_to_win_against_all():
    # Scores x_0, x_1 and a constant 0.4: to win, class 1 must beat both.
    model = linear_model([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 0.4])
    any_class = verifier.certified_radius(model, [0.5, 0.0], norm="linf")
    assert any_class.certified == pytest.approx(0.1, abs=1e-3)
    targeted = verifier.certified_radius(model, [0.5, 0.0], norm="linf", target=1)
    assert targeted.certified == pytest.approx(0.4, abs=1e-3)
    assert targeted.predicted == 1


def test_a_misclassified_input_has_distance_zero(digits):
    model, images, labels = digits
    found = verifier.certified_radius(model, images[0], (int(labels[0]) + 1) % 10, timeout=5)
    assert (found.certified, found.adversarial, found.gap) == (0, 0, 0)
    assert (found.witness == images[0]).all()


def test_a_tie_is_a_counterexample():
    model = linear_model([[1.0, 0.0], [1.0, 0.0]], [0.0, 0.0])
    assert verifier.certified_radius(model, [0.5, 0.5]).adversarial == 0


def test_pixels_change_together():
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(2, 8)).astype(np.float32)).double()
    row = (weight[0] - weight[1]).numpy()
    # The margin at the centre of the box is 2.
    bias = torch.tensor([2.0 - 0.5 * row.sum(), 0.0]).double()
    nodes = [
        (Input((1, 2, 2, 2)), ()),
        (Reshape((1, 8)), (0,)),
        (Linear(torch.eye(8).double(), torch.full((8,), 5.0).double()), (1,)),
        (Relu(), (2,)),
        (Linear(weight, bias - 5 * weight.sum(1)), (3,)),
    ]
    model = model_of(build(nodes))
    x = np.full((2, 2, 2), 0.5)
    single = verifier.certified_radius(model, x, 0, norm="l0")
    pixels = verifier.certified_radius(model, x, 0, norm="l0", group="pixel")
    assert pixels.adversarial <= single.adversarial
    assert pixels.gap == single.gap == 0
    # By hand: the gains of an input are half its coefficient; those of a pixel add up.
    gains = np.abs(row) * 0.5
    for found, sizes in ((single, gains), (pixels, gains.reshape(2, 4).sum(0))):
        assert found.adversarial == np.argmax(np.cumsum(np.sort(sizes)[::-1]) >= 2) + 1
    assert pixels.witness.shape == x.shape


def test_between_two_counts_lies_no_distance(digits):
    model, images, labels = digits
    found = verifier.certified_radius(model, images[0], int(labels[0]), norm="l0")
    assert found.adversarial == found.certified + 1 > 1
    for epsilon, verdict in ((found.certified + 0.5, Verdict.UNSAT), (found.adversarial + 0.5, Verdict.SAT)):
        answer = verifier.robust(model, images[0], int(labels[0]), epsilon=epsilon, norm="l0")
        assert answer.verdict is verdict


def test_counts_of_fractional_weights_are_not_whole(digits):
    model, images, labels = digits
    for weight, step in ((1.5, 0.0), (2.0, 1.0)):
        found = verifier.certified_radius(
            model, images[0], int(labels[0]), norm="l0", weights=np.full(64, weight), timeout=20
        )
        assert found.step == step
        assert found.closed
        assert found.gap == max(0.0, found.adversarial - found.certified - step)


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((1, 3, 2, 2), [0, 1, 2, 3] * 3),
        ((1, 2, 2, 3), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
        ((1, 2, 3, 1), [0, 1, 2, 3, 4, 5]),
        ((1, 2, 2, 2), [0, 1, 2, 3] * 2),
    ],
)
def test_channels_lie_first_or_last(shape, pixels):
    n = math.prod(shape)
    nodes = [(Input(shape), ()), (Reshape((1, n)), (0,)), (Linear(torch.ones(2, n).double(), torch.zeros(2)), (1,))]
    asked = question(model_of(build(nodes)), np.full(n, 0.5), norm="l0", group="pixel")
    assert asked.ball.groups.tolist() == pixels


def test_channels_that_may_lie_first_or_last_are_asked_for():
    nodes = [
        (Input((1, 3, 2, 3)), ()),
        (Reshape((1, 18)), (0,)),
        (Linear(torch.ones(2, 18).double(), torch.zeros(2)), (1,)),
    ]
    with pytest.raises(OptionError, match="first or last"):
        question(model_of(build(nodes)), np.full(18, 0.5), norm="l0", group="pixel")


@pytest.mark.parametrize(("norm", "number"), [("linf", 2), ("l1", 2), ("l2", 2), ("l0", 4)])
def test_history_only_closes_in_and_any_stop_is_valid(digits, norm, number):
    model, images, labels = digits
    whole = verifier.certified_radius(model, images[number], int(labels[number]), norm=norm, timeout=60)
    assert whole.closed
    check_history(whole)
    moments = len(whole.history)
    assert moments > 1
    for stop in sorted({1, 2, moments // 2, moments - 1}):
        seen = []

        def watch(moment, stop=stop, seen=seen):
            seen.append(moment)
            if len(seen) == stop:
                raise KeyboardInterrupt

        found = verifier.certified_radius(
            model, images[number], int(labels[number]), norm=norm, timeout=60, watch=watch
        )
        check_history(found)
        assert (found.certified, found.adversarial) == (seen[-1].certified, seen[-1].adversarial)
        assert found.certified <= whole.adversarial
        assert whole.certified <= found.adversarial
        if not found.closed:
            assert "interrupted" in found.reason
        if found.witness is not None:
            scores = model.replay.run(found.witness.ravel().astype(np.float64))
            assert np.delete(scores, found.label).max() >= scores[found.label]


def check_history(found) -> None:
    certified = [moment.certified for moment in found.history]
    adversarial = [moment.adversarial for moment in found.history]
    assert certified == sorted(certified)
    assert adversarial == sorted(adversarial, reverse=True)
    assert all(low <= high for low, high in zip(certified, adversarial, strict=True))
    assert all(a.seconds <= b.seconds for a, b in zip(found.history, found.history[1:], strict=False))
    if found.history:
        assert (found.history[-1].certified, found.history[-1].adversarial) == (found.certified, found.adversarial)


def test_a_short_time_gives_an_open_but_valid_pair(digits):
    model, images, labels = digits
    found = verifier.certified_radius(model, images[16], int(labels[16]), tolerance=1e-9, timeout=0.4)
    assert 0 <= found.certified <= found.adversarial
    assert "time ran out" in found.reason
    assert found.seconds < 10


@pytest.mark.parametrize(("norm", "inside", "outside"), [("l2", 0.5, 0.7), ("l1", 1.2, 1.4), ("l0", 1, 2)])
def test_robust_agrees_with_the_radius(digits, norm, inside, outside):
    model, images, labels = digits
    safe = verifier.robust(model, images[0], int(labels[0]), epsilon=inside, norm=norm)
    assert safe.verdict is verifier.Verdict.UNSAT
    assert safe.evidence.level is verifier.EvidenceLevel.RIGOROUS
    broken = verifier.robust(model, images[0], int(labels[0]), epsilon=outside, norm=norm)
    assert broken.verdict is verifier.Verdict.SAT
    assert question(model, images[0], norm=norm).distance(broken.witness.x) <= outside
    assert broken.witness.margin <= 0


def test_robust_in_linf_is_the_pipeline(digits):
    model, images, labels = digits
    assert verifier.robust(model, images[0], int(labels[0]), epsilon=0.1).verdict is verifier.Verdict.UNSAT
    assert verifier.robust(model, images[0], int(labels[0]), epsilon=0.2).verdict is verifier.Verdict.SAT


def test_contradictions_are_never_swallowed(digits):
    model, images, _ = digits
    incumbent = Incumbent(question(model, images[0]))
    record = Record(incumbent)
    record.raise_to(0.1, "test")
    incumbent.distance = 0.05
    with pytest.raises(SoundnessError, match=r"0\.05"):
        record.see("test")
    with pytest.raises(SoundnessError, match=r"within 0\.2"):
        record.raise_to(0.2, "test")


def test_a_witness_that_float32_alone_sees_is_no_witness():
    """The network says class 0 everywhere; a replay that claims otherwise is not believed alone."""

    class Liar(TorchReplay):
        def run(self, x):
            return super().run(x)[::-1].copy() if x[0] < 0.4 else super().run(x)

    network = linear_model([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0]).network
    model = Model(network, Liar(network), Path("model.onnx"), "")
    found = certify(question(model, [0.5, 0.5], 0), Deadline.after(5), RadiusOptions())
    assert found.adversarial == math.inf
    assert found.certified == math.inf


def test_numbers_speak_of_the_float32_input(digits):
    model, _, _ = digits
    x = np.full(64, 0.3)
    asked = question(model, x, 1)
    assert (asked.centre == x.astype(np.float32)).all()
    # Rounding up would leave these bounds: the next float32 below is inside.
    tight = question(model, x, 1, bounds=(0.0, 0.3))
    assert (tight.centre == np.nextafter(np.float32(0.3), np.float32(0))).all()
    assert (tight.centre <= 0.3).all()
    # No float32 is inside at all: the model gets the nearest one, and the box holds it.
    point = question(model, x, 1, bounds=(0.3, 0.3))
    assert (point.centre == x.astype(np.float32)).all()
    assert (point.lower <= point.centre).all()
    assert (point.centre <= point.upper).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x": [0.5]}, "1 values but the model takes 2"),
        ({"x": [0.5, math.nan]}, "finite"),
        ({"x": [0.5, 1.5]}, "outside the bounds"),
        ({"x": ["a", "b"]}, "must be numbers"),
        ({"label": 2}, "0 to 1"),
        ({"target": 5}, "0 to 1"),
        ({"target": 0, "label": 0}, "label itself"),
        ({"norm": "l3"}, "linf, l1, l2 or l0"),
        ({"bounds": (1, 0)}, "above its upper"),
        ({"bounds": 3}, "pair"),
        ({"bounds": ([0, 0, 0], 1)}, "as many values"),
        ({"norm": "l0", "bounds": None}, "needs bounds"),
        ({"weights": [1.0]}, "one for each of the 2"),
        ({"weights": [1.0, 0.0]}, "not positive"),
        ({"fixed": [1, 0]}, "true or false"),
        ({"group": "pixel"}, "only for the norm l0"),
        ({"group": "pixel", "norm": "l0"}, "no channels"),
        ({"group": "row", "norm": "l0"}, "unknown group"),
        ({"group": [0, 1, 2], "norm": "l0"}, "one whole number"),
        ({"tolerance": 0}, "positive"),
        ({"timeout": 0}, "positive"),
    ],
)
def test_senseless_questions_are_refused(arguments, words):
    arguments = {"x": [0.5, 0.5], **arguments}
    with pytest.raises(OptionError, match=words):
        verifier.certified_radius(SIMPLE, **arguments)


def test_one_output_has_no_classes():
    with pytest.raises(OptionError, match="output_range"):
        verifier.certified_radius(linear_model([[1.0, 1.0]], [0.0]), [0.5, 0.5])


@pytest.mark.parametrize("epsilon", [-1.0, math.inf])
def test_epsilon_is_checked(epsilon):
    for function in (verifier.robust, verifier.maximise_loss):
        with pytest.raises(OptionError, match="epsilon"):
            function(SIMPLE, [0.5, 0.5], epsilon=epsilon)


@pytest.mark.parametrize(
    ("box", "row", "words"),
    [
        ((0, math.inf), 0, "finite"),
        ((1, 0), 0, "above"),
        (([0, 0, 0], 1), 0, "3 values"),
        (0, 0, "pair"),
        ((0, 1), 2, "no output 2"),
        ((0, 1), [1.0], "2 finite coefficients"),
    ],
)
def test_senseless_ranges_are_refused(box, row, words):
    with pytest.raises(OptionError, match=words):
        verifier.output_range(SIMPLE, box, row)


def test_a_range_over_a_point_is_its_value():
    found = verifier.output_range(SIMPLE, ([0.5, 0.25], [0.5, 0.25]), [1.0, -1.0], tolerance=1e-6)
    assert found.lower <= 0.25 <= found.upper
    assert found.attained_lower == found.attained_upper == pytest.approx(0.25)


def test_calls_neither_leak_nor_load(tmp_path, monkeypatch):
    """A network of 784-256-256-10, asked again and again."""
    network = dense(np.random.default_rng(0), (784, 256, 256, 10))
    write(network, tmp_path / "large.onnx")
    model = verifier.load(tmp_path / "large.onnx")
    (tmp_path / "large.onnx").unlink()
    monkeypatch.setattr("verifier.model.parse.parse", None)
    rng = np.random.default_rng(1)

    def ask() -> None:
        found = verifier.certified_radius(model, rng.uniform(0, 1, 784), timeout=0.05)
        assert found.certified <= found.adversarial

    for _ in range(10):
        ask()
    gc.collect()
    before, objects = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(gc.get_objects())
    for _ in range(30):
        ask()
    gc.collect()
    assert len(gc.get_objects()) - objects < 2000
    # Kilobytes on Linux; a leak of one layer's matrix per call would be 47 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_norms_agree_in_one_dimension():
    model = linear_model([[1.0], [0.0]], [-0.5, 0.0])
    for norm in (Norm.LINF, Norm.L1, Norm.L2):
        found = verifier.certified_radius(model, [0.875], norm=norm, tolerance=1e-6)
        assert found.certified == pytest.approx(0.375, abs=2e-6)


def test_gap_of_infinite_and_whole_distances():
    found = verifier.certified_radius(SIMPLE, [0.75, 0.75], norm="l0")
    assert (found.certified, found.adversarial, found.gap) == (0.0, 1.0, 0.0)
    assert replace(found, adversarial=math.inf).gap == math.inf
    assert replace(found, certified=math.inf, adversarial=math.inf).gap == 0
    assert replace(found, adversarial=3.0).gap == 2


def test_a_point_on_the_boundary_is_no_contradiction(digits):
    model, images, labels = digits
    asked = question(model, images[0], int(labels[0]))
    found = certify(asked, Deadline.after(30), RadiusOptions())
    fresh = Incumbent(asked)
    record = Record(fresh)
    # As if the very distance of the witness, and a hair more, were certified.
    fresh.floor = found.adversarial * (1 + 1e-12)
    assert not fresh.confirm(found.witness)
    fresh.floor = found.adversarial * 1.01
    record.certified = fresh.floor
    assert fresh.confirm(found.witness)
    with pytest.raises(SoundnessError):
        record.see("test")


def test_a_real_interrupt_at_any_time_leaves_a_valid_pair(digits):
    """SIGINT from outside, wherever the run may be."""
    model, images, labels = digits
    for delay in (0.05, 0.2, 0.4, 0.8):
        timer = threading.Timer(delay, signal.raise_signal, [signal.SIGINT])
        timer.start()
        try:
            found = verifier.certified_radius(model, images[16], int(labels[16]), tolerance=1e-9, timeout=20)
        except KeyboardInterrupt:
            continue  # before the run had begun
        finally:
            timer.cancel()
        check_history(found)
        assert found.certified <= found.adversarial
        assert (found.witness is None) == (found.adversarial == math.inf)
        if not found.closed:
            assert "interrupted" in found.reason
