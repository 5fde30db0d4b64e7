"""The two referees of the fuzzer against each other: the MILP must agree with enumeration where both can be asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuzz import exact
from fuzz.generate import random_rows
from fuzz.larger import larger_box, larger_case
from support import networks
from support.milp_oracle import least_margin, undecided_relus
from support.oracle import minimum_margin

KINDS = {
    "dense": lambda rng: networks.dense(rng, (3, 6, 5, 2)),
    "deep": lambda rng: networks.dense(rng, (2, 4, 4, 4, 2)),
    "residual": networks.residual,
    "convolutional": networks.small_convolutional,
    "leaky": lambda rng: networks.leaky(rng, 2, 3, 2),
    "twins": lambda rng: networks.twins(rng, 2, 4, 2),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(5))
def test_the_milp_agrees_with_enumeration(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, len(kind)])
    network = KINDS[kind](rng)
    disjunct = random_rows(rng, network, *larger_box(rng, network.n_inputs))
    truth, _ = minimum_margin(network, disjunct)
    found = least_margin(network, disjunct)
    assert found.floor <= truth + 1e-9
    assert truth - 1e-9 <= found.value <= truth + 1e-5
    assert found.value - found.floor <= 1e-3
    assert (disjunct.lower <= found.point).all()
    assert (found.point <= disjunct.upper).all()


def test_larger_cases_are_larger() -> None:
    """Five to sixty ReLUs, most of them undecided somewhere, and no two of a kind."""
    cases = [larger_case(seed) for seed in range(12)]
    sizes = [sum(case.network.nodes[k].size for k in case.network.relus) for case in cases]
    undecided = [undecided_relus(case.network, case.spec.disjuncts[0]) for case in cases]
    assert min(sizes) >= 5
    assert max(sizes) <= 60
    assert max(undecided) >= 25
    assert len({case.network.name for case in cases}) >= 3
    for case in cases[:3]:
        point = case.spec.disjuncts[0].lower
        expected = case.network.forward(torch.from_numpy(point)[None])[0].numpy()
        np.testing.assert_allclose([float(y) for y in exact.outputs(case.network, point)], expected, atol=1e-9)
