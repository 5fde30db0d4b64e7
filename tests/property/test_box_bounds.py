"""Bounds of many boxes at once against sampled points: affine forms, rows, and what clipping leaves of a box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import networks
from verifier.bounds.affine_form import input_form, step_form
from verifier.bounds.beta_crown import Rows
from verifier.bounds.box_bounds import bound_boxes, bounds_over
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Level
from verifier.bounds.margins import AFFINE_FORMS, CROWN, margin_bounds
from verifier.bounds.relaxation import triangle
from verifier.deadline import Deadline
from verifier.vnnlib.spec import Disjunct, LinearConstraints

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 7, 6, 2)),
    "residual": networks.residual,
    "twins": lambda rng: networks.twins(rng, 3, 5, 2),
    "leaky": lambda rng: networks.leaky(rng, 3, 5, 2),
    "convolutional": networks.convolutional,
}
cases = given(
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**32 - 1),
    radius=st.sampled_from([0, 1e-13, 0.05, 1]),
    most_rows=st.sampled_from([0, 2, 256]),
)


def boxes(rng, network, radius, count=3):
    """Lower and upper end of a box [1, n_inputs]; boxes in it [count, 2, n_inputs]; points [count, 200, n_inputs]."""
    lower, upper = networks.box(rng, network.n_inputs, radius)
    ends = np.sort(lower + rng.random((count, 2, len(lower))) * (upper - lower), axis=1)
    ends = np.clip(ends, lower, upper)
    fixed = rng.random(len(lower)) < 0.3
    ends[:, 1, fixed] = ends[:, 0, fixed]
    share = rng.random((count, 200, len(lower)))
    share[:, :80] = share[:, :80].round()
    low, high = ends[:, 0, None], ends[:, 1, None]
    points = np.clip(low + share * (high - low), low, high)
    return (
        *(torch.from_numpy(side)[None] for side in (lower, upper)),
        torch.from_numpy(ends),
        torch.from_numpy(points),
    )


@cases
@settings(max_examples=60, deadline=None)
def test_every_node_value_lies_inside_its_bounds(kind, seed, radius, most_rows):
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper, box, points = boxes(rng, network, radius)
    for whole in (None, interval_bounds(network, lower, upper), intermediate_bounds(network, lower, upper)):
        found = bounds_over(network, whole, box, most_rows)
        for b in range(len(box)):
            for value, bounds in zip(network.values(points[b]), found.nodes, strict=True):
                assert bounds.level is Level.RIGOROUS
                assert (value >= bounds.lower[b]).all()
                assert (value <= bounds.upper[b]).all()


@cases
@settings(max_examples=60, deadline=None)
def test_margins_and_clips_spare_every_point(kind, seed, radius, most_rows):
    rng = np.random.default_rng(seed)
    network = KINDS[kind](rng)
    lower, upper, box, points = boxes(rng, network, radius)
    region = torch.tensor([0, 0, 1, 2, 2])
    inputs = torch.from_numpy(rng.normal(size=(5, 3, network.n_inputs))) if rng.random() < 0.5 else None
    outputs = torch.from_numpy(rng.normal(size=(5, 3, network.n_outputs)))
    values = torch.stack([network.forward(points[b]) for b in region]) @ outputs.transpose(1, 2)
    if inputs is not None:
        values = values + points[region] @ inputs.transpose(1, 2)
    # Bounds near a sampled value: some points satisfy all rows, many do not.
    sides = values.flatten(0, 1)[::200].quantile(0.3, dim=0).expand(5, 3).clone()
    found = bound_boxes(
        network, interval_bounds(network, lower, upper), box, Rows(outputs, inputs, sides), region, most_rows
    )
    margins = values - sides[:, None]
    slack = 1e-9 * (1 + values.abs().amax())
    assert (margins.amin(1) >= found.rows - slack).all()
    assert (margins.amax(2).amin(1) >= found.lower - slack).all()
    for pair in range(5):
        holds = (margins[pair] <= -slack).all(1)
        kept = points[region[pair]][holds]
        low, high = found.clipped[pair]
        assert ((kept >= low) & (kept <= high)).all(), "clipping cut off a point that satisfies the disjunct"
        assert (low >= box[region[pair], 0]).all()
        assert (high <= box[region[pair], 1]).all()
        assert ((found.points[pair] == box[region[pair], 0]) | (found.points[pair] == box[region[pair], 1])).all()
    assert (found.scores >= 0).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_form_is_a_function_of_the_inputs(kind):
    """Not only its range but the form itself holds at every point."""
    rng = np.random.default_rng(7)
    network = KINDS[kind](rng)
    _, _, box, points = boxes(rng, network, 1)
    lower, upper = box.unbind(1)
    varying = torch.nonzero((upper > lower).any(0)).squeeze(1)
    nodes = intermediate_bounds(network, lower, upper)
    forms = {0: input_form(network, lower, upper, varying)}
    for index in range(1, len(network.nodes)):
        line = triangle(nodes[network.nodes[index].inputs[0]]) if index in network.relus else None
        forms[index] = step_form(network, index, forms, line)
    radius = ((upper - lower) / 2)[:, varying]
    for b in range(len(box)):
        t = torch.nan_to_num((points[b][:, varying] - ((lower + upper) / 2)[b, varying]) / radius[b])
        for value, form in zip(network.values(points[b]), forms.values(), strict=True):
            flat = form.slopes[b].flatten(1)
            line = form.centre[b].flatten() + t @ flat
            assert ((value.flatten(1) - line).abs() <= form.error[b].flatten() + 1e-12).all()


def test_where_nothing_is_undecided_a_form_is_exact_but_for_rounding():
    rng = np.random.default_rng(0)
    network = networks.residual(rng)
    centre = torch.from_numpy(rng.normal(size=(1, 3)))
    box = torch.stack([centre - 1e-7, centre + 1e-7], 1)
    found = bounds_over(network, None, box, 0)
    form = found.output
    assert float(form.error.max()) < 1e-12
    assert float((form.reach + form.error).max()) < 1e-4


@pytest.mark.parametrize("width", [20, 300])
def test_wide_networks_of_few_inputs_take_affine_forms_first(width):
    rng = np.random.default_rng(width)
    network = networks.dense(rng, (2, width, width, 1))
    lower, upper = -np.ones(2), np.ones(2)
    rows = LinearConstraints(np.zeros((2, 2)), rng.normal(size=(2, 1)), rng.normal(size=2), np.zeros(2, bool))
    disjunct = Disjunct(lower, upper, rows)
    (group,) = margin_bounds(network, [disjunct], Deadline.never())
    (plain,) = margin_bounds(network, [disjunct], Deadline.never(), forms=False)
    assert group.method == (AFFINE_FORMS if width == 300 else CROWN)
    assert plain.method == CROWN
    points = torch.from_numpy(lower + 2 * rng.random((3000, 2)))
    outputs = network.forward(points).numpy()
    margins = (outputs @ rows.outputs.T - rows.bounds).max(1)
    assert margins.min() >= max(group.margins[0], plain.margins[0])
    for value, bounds in zip(network.values(points), group.nodes, strict=True):
        assert ((value >= bounds.lower) & (value <= bounds.upper)).all()
