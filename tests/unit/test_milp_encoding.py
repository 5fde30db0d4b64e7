"""The big-M encoding: what the network does is feasible, exactly, and nothing is looser than it has to be."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from support import networks
from verifier.bounds.crown import intermediate_bounds
from verifier.bounds.interval import interval_bounds
from verifier.bounds.level import Bounds, Level
from verifier.deadline import Deadline
from verifier.encodings.milp import builder
from verifier.encodings.milp.big_m import Encoding, encode
from verifier.encodings.milp.columns import Columns, Kind
from verifier.encodings.milp.expression import NEGLIGIBLE
from verifier.encodings.milp.start import column_values
from verifier.model.network import Network, build
from verifier.model.operators import Input, Linear, Relu
from verifier.solve.highs import minimise
from verifier.solve.lp import LinearPrograms

NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": lambda rng: networks.dense(rng, (3, 8, 7, 5, 2)),
    "residual": lambda rng: networks.residual(rng, 5, 3),
    "convolutional": lambda rng: networks.convolutional(rng, 3),
    "affine": lambda rng: networks.dense(rng, (3, 2)),
}


@pytest.fixture(params=[(kind, seed) for kind in NETWORKS for seed in range(4)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Network, np.ndarray, np.ndarray]:
    kind, seed = request.param
    rng = np.random.default_rng(seed)
    network = NETWORKS[kind](rng)
    return network, *networks.box(rng, network.n_inputs, 0.3 + 0.5 * seed)


def bounds_of(network: Network, lower: np.ndarray, upper: np.ndarray, crown: bool = True) -> tuple[Bounds, ...]:
    box = torch.from_numpy(lower)[None], torch.from_numpy(upper)[None]
    return intermediate_bounds(network, *box, Deadline.never()) if crown else interval_bounds(network, *box)


def exact_values(network: Network, x: np.ndarray) -> list[list[Fraction]]:
    """Every node's values in rational arithmetic."""
    values = [[Fraction(float(v)) for v in x]]
    for index, node in enumerate(network.nodes[1:], 1):
        operator, sources = node.operator, [values[source] for source in node.inputs]
        assert not isinstance(operator, Input)
        if isinstance(operator, Relu):
            values.append([max(v, Fraction(0)) for v in sources[0]])
            continue
        offset = operator.offset(node.shape)
        sums = [Fraction(v) for v in (np.zeros(node.size) if offset is None else offset.reshape(-1)).tolist()]
        for matrix, source in zip(operator.matrix(network.input_shapes(index)), sources, strict=True):
            entries = matrix.tocoo()
            for row, column, entry in zip(*entries.coords, entries.data, strict=True):
                sums[row] += Fraction(float(entry)) * source[column]
        values.append(sums)
    return values


def exact_columns(encoding: Encoding, values: list[list[Fraction]]) -> list[Fraction]:
    columns, found = encoding.columns, []
    for kind, node, neuron in zip(columns.kind, columns.node, columns.neuron, strict=True):
        if kind == Kind.INPUT:
            found.append(values[0][neuron])
            continue
        pre = values[encoding.network.nodes[node].inputs[0]][neuron]
        found.append({Kind.PRE: pre, Kind.POST: max(pre, Fraction(0))}.get(kind, Fraction(int(pre > 0))))
    return found


def test_what_the_network_does_is_feasible_exactly(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    """In rational arithmetic: every bound holds, every row up to its stated error, the value up to its own."""
    network, lower, upper = case
    rng = np.random.default_rng(7)
    encoding = encode(network, lower, upper, bounds_of(network, lower, upper))
    model = encoding.model
    assert encoding.level is Level.RIGOROUS
    assert model.row_error.max(initial=0.0) < 1e-11
    for x in rng.uniform(lower, upper, (4, len(lower))):
        values = exact_values(network, x)
        columns = exact_columns(encoding, values)
        for low, column, high in zip(model.lower, columns, model.upper, strict=True):
            assert Fraction(low) <= column <= Fraction(high)
        for i in range(model.n_rows):
            begin, end = model.rows.indptr[i : i + 2]
            total = sum(Fraction(model.rows.data[k]) * columns[model.rows.indices[k]] for k in range(begin, end))
            error = Fraction(model.row_error[i])
            assert model.row_lower[i] == -np.inf or Fraction(model.row_lower[i]) - error <= total
            assert model.row_upper[i] == np.inf or total <= Fraction(model.row_upper[i]) + error
        for i, value in enumerate(values[-1]):
            row = encoding.value.matrix[[i]].toarray()[0]
            total = sum(
                (Fraction(c) * v for c, v in zip(row, columns, strict=True)), Fraction(encoding.value.constant[i])
            )
            assert abs(total - value) <= Fraction(encoding.value.error[i])


def test_a_forward_pass_fills_the_columns(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, lower, upper = case
    rng = np.random.default_rng(1)
    bounds = bounds_of(network, lower, upper)
    for until in [*(network.nodes[i].inputs[0] for i in network.relus), None]:
        encoding = encode(network, lower, upper, bounds, until)
        for x in rng.uniform(lower, upper, (10, len(lower))):
            point = column_values(encoding, x)
            assert encoding.model.violation(point) <= 1e-10
            truth = network.values(torch.from_numpy(x)[None])[encoding.node].reshape(-1).numpy()
            assert encoding.value.at(point) == pytest.approx(truth, abs=1e-10)
            least, greatest = encoding.value.ranges(encoding.model.lower, encoding.model.upper)
            assert (least - 1e-9 <= truth).all()
            assert (truth <= greatest + 1e-9).all()


def test_a_start_outside_is_moved_into_the_box(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, lower, upper = case
    encoding = encode(network, lower, upper, bounds_of(network, lower, upper))
    point = column_values(encoding, upper + 1.0)
    assert (point[encoding.columns.of(Kind.INPUT)] == upper).all()
    assert encoding.model.violation(point) <= 1e-10


def test_one_binary_per_unstable_neuron(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, lower, upper = case
    bounds = bounds_of(network, lower, upper)
    encoding = encode(network, lower, upper, bounds)
    columns = encoding.columns
    wanted = {
        (index, neuron)
        for index in network.relus
        for neuron in torch.nonzero(bounds[network.nodes[index].inputs[0]].unstable.reshape(-1)).reshape(-1).tolist()
    }
    for kind in (Kind.ACTIVE, Kind.POST):
        places = columns.of(kind)
        assert set(zip(columns.node[places].tolist(), columns.neuron[places].tolist(), strict=True)) == wanted
    assert (encoding.model.integral == (columns.kind == Kind.ACTIVE)).all()


def test_names_are_unique_and_readable(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, lower, upper = case
    names = encode(network, lower, upper, bounds_of(network, lower, upper)).columns.names()
    assert len(set(names)) == len(names)
    assert names[0] == "x_0"
    assert Columns.block(Kind.ACTIVE, 3, np.array([17])).names() == ["a3_17"]


@pytest.mark.parametrize("patience", [0.0, 1e9])
def test_making_columns_or_not_changes_nothing(
    case: tuple[Network, np.ndarray, np.ndarray], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stably active neurons: all with columns of their own, or all substituted."""
    network, lower, upper = case
    bounds = bounds_of(network, lower, upper)
    usual = encode(network, lower, upper, bounds)
    monkeypatch.setattr(builder, "PATIENCE", patience)
    other = encode(network, lower, upper, bounds)
    if patience == 0.0:
        assert len(other.columns) >= len(usual.columns)
    for output in range(network.n_outputs):
        optima = []
        for encoding in (usual, other):
            row = encoding.value.matrix[[output]].toarray()[0]
            model = encoding.model.costing(row, float(encoding.value.constant[output]))
            optima.append(minimise(model, Deadline.after(20), options={"mip_rel_gap": 0.0}).objective)
        assert optima[0] == pytest.approx(optima[1], abs=1e-5)


def test_coefficients_that_highs_would_drop_are_errors_instead(
    case: tuple[Network, np.ndarray, np.ndarray],
) -> None:
    network, lower, upper = case
    tiny = build(
        [*((node.operator, node.inputs) for node in network.nodes), (shrunk(network), (len(network.nodes) - 1,))]
    )
    encoding = encode(tiny, lower, upper, bounds_of(tiny, lower, upper))
    assert (np.abs(encoding.model.rows.data) > NEGLIGIBLE).all()
    assert (np.abs(encoding.value.matrix.data) > NEGLIGIBLE).all()
    x = (lower + upper) / 2
    error = abs(encoding.value.at(column_values(encoding, x)) - tiny.forward(torch.from_numpy(x)[None])[0].numpy())
    assert (error <= encoding.value.error).all()
    assert encoding.value.error.max() < 1e-9


def shrunk(network: Network) -> Linear:
    """Most of its products fall below what HiGHS keeps."""
    n = network.n_outputs
    return Linear(torch.full((2, n), 3e-13, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))


def single_relu() -> Network:
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return build([(Input((1, 1)), ()), (Linear(one, zero), (0,)), (Relu(), (1,)), (Linear(one, zero), (2,))])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (-3.0, 0.5)])
def test_the_relaxation_is_the_triangle(low: float, high: float) -> None:
    network = single_relu()
    lower, upper = np.array([low]), np.array([high])
    encoding = encode(network, lower, upper, bounds_of(network, lower, upper))
    row = encoding.value.matrix.toarray()[0]
    for x in np.linspace(low, high, 9):
        fixed = encoding.model.relaxed()
        fixed.lower[0] = fixed.upper[0] = x
        programs = LinearPrograms(fixed)
        least = programs.minimum(row, 0.0, Deadline.never()).lower
        greatest = -programs.minimum(-row, 0.0, Deadline.never()).lower
        assert least == pytest.approx(max(x, 0.0), abs=1e-7)
        assert greatest == pytest.approx(high * (x - low) / (high - low), abs=1e-7)


def test_the_relaxation_is_never_looser_than_intervals(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, lower, upper = case
    bounds = bounds_of(network, lower, upper, crown=False)
    encoding = encode(network, lower, upper, bounds)
    programs = LinearPrograms(encoding.model)
    for i in range(network.n_outputs):
        row = encoding.value.matrix[[i]].toarray()[0]
        found = programs.minimum(row, float(encoding.value.constant[i]), Deadline.never()).lower
        assert found >= bounds[-1].lower.reshape(-1)[i] - 1e-7


def test_estimated_bounds_give_an_estimate(case: tuple[Network, np.ndarray, np.ndarray]) -> None:
    network, lower, upper = case
    bounds = [Bounds(b.lower, b.upper, Level.ESTIMATE) for b in bounds_of(network, lower, upper)]
    wanted = Level.ESTIMATE if network.relus else Level.RIGOROUS
    assert encode(network, lower, upper, bounds).level is wanted
