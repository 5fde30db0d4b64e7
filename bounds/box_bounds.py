"""Bounds of many boxes at once, each with intermediate bounds of its own: what splitting the input box needs.

Per box and ReLU layer, in order: affine forms (``affine_form``), met with what is known over the whole box; where no
more than some neurons are then undecided, CROWN passes for these (``crown``).  Last one CROWN pass for the rows of the
disjuncts that are still open.  So wide layers cost a few evaluations of the network where boxes are large, and the
bounds are those of CROWN where boxes are small.

What a box is told besides its bounds:

- scores: which input causes the loss.  Every undecided neuron with a negative coefficient c loses |c| t, t the
  intercept of its upper line; the loss is shared out by the part of the neuron's radius that comes from each input (in
  the spirit of DEEPSPLIT, Henriksen and Lomuscio, IJCAI 2021).  A share of |A_i| radius_i is added, A the linear bound.
- the box clipped: a row that is at least m <= 0 and has slope s > 0 along an input cannot be <= 0 further than -m / s
  from its lower end (Zhou et al., Clip-and-Verify, NeurIPS 2025).

Invariant: float64 on the CPU, all rounding covered: bounds and clips are rigorous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.bounds.affine_form import AffineForm, input_form, step_form
from verifier.bounds.beta_crown import Rows
from verifier.bounds.crown import Relaxed, backward
from verifier.bounds.interval import input_bounds, step
from verifier.bounds.level import Bounds
from verifier.bounds.relaxation import Relaxation, triangle
from verifier.bounds.rounding import TINY, UNIT, gamma, sensitivity
from verifier.model.network import Network
from verifier.model.operators import Relu

SLOPE_SHARE = 0.5
"""Weight of |A_i| radius_i in the score, as in the compiled search."""
NEGLIGIBLE = 1e-9
"""A neuron whose nearer bound is below this share of its layer's largest value is not worth a pass of its own.
Networks that select by differences have hundreds that are zero but for rounding."""
PASS_BYTES = 2**22
"""For one tensor of backward coefficients; rows are taken in pieces that fit."""


@dataclass(frozen=True, eq=False)
class BoxBounds:
    """For each pair of a box and a disjunct, P of them.

    lower: [P], rigorous bound on the margin; rows: [P, R], on each row.
    points: [P, n_inputs], where the best row's linear bound is least.
    scores: [P, n_inputs].  clipped: [P, 2, n_inputs], the part of the box where the disjunct may hold; empty (lower
    above upper) where it cannot.
    """

    lower: Tensor
    rows: Tensor
    points: Tensor
    scores: Tensor
    clipped: Tensor


@dataclass(frozen=True, eq=False)
class Boxes:
    """Over B boxes: bounds and sensitivities per node; lines and the inputs' shares in the radius of its input, [B, n,
    size], per ReLU.

    varying: [n], the inputs that are not points in all boxes, or any other.  output: its form, None where forms shall
    give no bounds.
    """

    varying: Tensor
    nodes: list[Bounds]
    sensitivities: dict[int, Tensor | None]
    lines: dict[int, Relaxation]
    shares: dict[int, Tensor]
    output: AffineForm | None


def bound_boxes(
    network: Network,
    whole: Sequence[Bounds] | None,
    box: Tensor,
    rows: Rows,
    region: Tensor,
    most_rows: int | None,
) -> BoxBounds:
    """Bounds of pairs of a box and a disjunct; other arguments as for ``bounds_over``.

    rows: of the disjunct of each pair, [P, R, ...].  region: [P], the box of each pair, ascending.
    """
    with torch.no_grad():
        return margins_over(network, bounds_over(network, whole, box, most_rows), box, rows, region)


def bounds_over(network: Network, whole: Sequence[Bounds] | None, box: Tensor, most_rows: int | None) -> Boxes:
    """What is known of every box before any row is looked at.

    whole: rigorous bounds on all nodes over a box that contains the others, [1, *shape], if there are any.
    box: [B, 2, n_inputs].  most_rows: layers with more undecided neurons in some box keep the bounds of their forms.
    None: plain CROWN on all of them, and no bound is taken from a form.
    """
    lower, upper = box.unbind(1)
    varying = torch.nonzero((upper > lower).any(0)).squeeze(1)
    if not len(varying):
        varying = torch.zeros(1, dtype=torch.long)
    found: list[Bounds] = [input_bounds(network, lower, upper)]
    forms: dict[int, AffineForm] = {0: input_form(network, lower, upper, varying)}
    last_use = {source: index for index, node in enumerate(network.nodes) for source in node.inputs}
    preactivations = {network.nodes[k].inputs[0] for k in network.relus}
    lines: dict[int, Relaxation] = {}
    shares: dict[int, Tensor] = {}
    sensitivities = {0: sensitivity(network, 0, found)}
    for index, node in enumerate(network.nodes[1:], 1):
        if isinstance(node.operator, Relu):
            source = node.inputs[0]
            lines[index] = triangle(found[source])
            found.append(step(network, index, found))
            shares[index] = _share(forms[source])
        forms[index] = step_form(network, index, forms, lines.get(index))
        if not isinstance(node.operator, Relu):
            bounds = step(network, index, found) if most_rows is None else forms[index].bounds(found[0].level)
            found.append(bounds if whole is None else bounds.intersect(whole[index]))
        if index in preactivations:
            relaxed = Relaxed(network, found, lines, sensitivities)
            found[index] = _tightened(relaxed, index, lower, upper, node.size if most_rows is None else most_rows)
        sensitivities[index] = sensitivity(network, index, found)
        for source in node.inputs:
            if last_use[source] == index:
                forms.pop(source, None)
    output = None if most_rows is None else forms[len(network.nodes) - 1]
    return Boxes(varying, found, sensitivities, lines, shares, output)


def _share(form: AffineForm) -> Tensor:
    """[B, n, size]"""
    radius = (form.reach + form.error).clamp(min=1e-300)
    return (form.slopes.abs() / radius.unsqueeze(1)).flatten(2)


def _tightened(relaxed: Relaxed, index: int, lower: Tensor, upper: Tensor, most_rows: int) -> Bounds:
    """CROWN bounds of the undecided neurons of each box: first the side that is more likely to decide, then the other
    where that did not."""
    node, known = relaxed.network.nodes[index], relaxed.bounds[index]
    low, high = known.lower.flatten(1), known.upper.flatten(1)
    likely_active = low + high > 0
    largest = max(one.size for one in relaxed.network.nodes[: index + 1])
    for side in (likely_active, ~likely_active):
        undecided = (low < 0) & (high > 0) & _matter(low, high)
        count = int(undecided.sum(1).max()) if undecided.numel() else 0
        if not 0 < count <= most_rows:
            break
        order = torch.argsort(undecided.to(torch.int8), dim=1, descending=True, stable=True)[:, :count]
        sign = torch.where(side.gather(1, order), 1.0, -1.0).double()
        values = []
        for columns in torch.arange(count).split(max(1, PASS_BYTES // (8 * len(low) * largest))):
            rows = torch.zeros(len(low), len(columns), node.size, dtype=torch.float64)
            rows.scatter_(2, order[:, columns].unsqueeze(2), sign[:, columns].unsqueeze(2))
            bound = backward(relaxed, index, rows.reshape(len(low), len(columns), *node.shape))
            values.append(bound.over_box(lower, upper))
        found = torch.cat(values, 1)
        below = undecided.gather(1, order) & (sign > 0)
        above = undecided.gather(1, order) & (sign < 0)
        low = low.scatter_reduce(1, order, found.where(below, -torch.inf), "amax")
        high = high.scatter_reduce(1, order, (-found).where(above, torch.inf), "amin")
    return Bounds(low.reshape(known.lower.shape), high.reshape(known.upper.shape), known.level)


def _matter(low: Tensor, high: Tensor) -> Tensor:
    """Where a ReLU over low, high, [B, size], loses more than next to nothing against its layer's values."""
    largest = torch.maximum(low.abs(), high.abs()).amax(1, keepdim=True)
    return torch.minimum(-low, high) > NEGLIGIBLE * largest


def margins_over(network: Network, boxes: Boxes, box: Tensor, rows: Rows, region: Tensor) -> BoxBounds:
    """Each row by a CROWN pass or by the output's form, whichever is better.  Arguments as for ``bound_boxes``."""
    lower, upper = box[region].unbind(1)
    varying = boxes.varying
    nodes = [Bounds(b.lower[region], b.upper[region], b.level) for b in boxes.nodes]
    lines = {k: _pick(line, region) for k, line in boxes.lines.items()}
    sensitivities = {k: None if rho is None else rho[region] for k, rho in boxes.sensitivities.items()}
    coefficients: dict[int, Tensor] = {}
    outputs = rows.outputs.reshape(*rows.outputs.shape[:2], *network.output_shape)
    relaxed = Relaxed(network, nodes, lines, sensitivities)
    bound = backward(relaxed, len(nodes) - 1, outputs, rows.inputs, coefficients.__setitem__)
    margins = bound.over_box(lower, upper) - rows.bounds
    margins = margins - 2.0**-52 * margins.abs()
    slopes = bound.coefficients.expand(*rows.bounds.shape, -1)
    if boxes.output is not None:
        other, other_slopes = _row_forms(boxes.output, rows, region, lower, upper, varying)
        slopes = torch.where((other > margins).unsqueeze(2), other_slopes, slopes)
        margins = torch.maximum(margins, other)
    best, row = margins.max(1)
    pick = torch.arange(len(row)), row
    scores = _scores(lines, coefficients, pick, boxes.shares, region, varying, slopes[pick], upper - lower)
    points = torch.where(slopes[pick] > 0, lower, upper)
    return BoxBounds(best, margins, points, scores, _clipped(margins, slopes, lower, upper))


def _row_forms(
    output: AffineForm, rows: Rows, region: Tensor, lower: Tensor, upper: Tensor, varying: Tensor
) -> tuple[Tensor, Tensor]:
    """Margins of the rows by the output's form, rigorous, [P, R], and slopes along the inputs that are not too steep,
    [P, R, n_inputs]."""
    middle = (lower + upper) / 2
    radius = torch.maximum(upper - middle, middle - lower) * (1 + 4 * UNIT)
    centre, error, reach = (
        part[region].flatten(1).unsqueeze(2) for part in (output.centre, output.error, output.reach)
    )
    slopes = output.slopes[region].flatten(2)
    moved = rows.outputs @ slopes.transpose(1, 2)
    size = rows.outputs.abs()
    values = (rows.outputs @ centre).squeeze(2) - rows.bounds
    total = (size @ (centre.abs() + reach + error)).squeeze(2) + rows.bounds.abs()
    if rows.inputs is not None:
        moved = moved + rows.inputs[:, :, varying] * radius[:, None, varying]
        values = values + (rows.inputs @ middle.unsqueeze(2)).squeeze(2)
        total = total + (rows.inputs.abs() @ (middle.abs() + radius).unsqueeze(2)).squeeze(2)
    terms = rows.outputs.shape[2] + 2 * lower.shape[1] + 16
    lost = moved.abs().sum(2) + (size @ error).squeeze(2)
    margins = values - lost - (4 * gamma(terms) * total + TINY)
    along = torch.zeros(*margins.shape, lower.shape[1], dtype=lower.dtype)
    # Inputs of no width have no slope.
    along[:, :, varying] = moved / radius[:, None, varying].clamp(min=1e-300) * (1 - 2.0**-48)
    return torch.nan_to_num(margins, nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf), along


def _pick(line: Relaxation, region: Tensor) -> Relaxation:
    return Relaxation(line.lower_slope[region], line.upper_slope[region], line.upper_intercept[region])


def _scores(
    lines: Mapping[int, Relaxation],
    coefficients: Mapping[int, Tensor],
    pick: tuple[Tensor, Tensor],
    shares: Mapping[int, Tensor],
    region: Tensor,
    varying: Tensor,
    slopes: Tensor,
    width: Tensor,
) -> Tensor:
    scores = SLOPE_SHARE * slopes.abs() * width / 2
    for k, rows in coefficients.items():
        chosen = rows.expand(len(region), -1, *rows.shape[2:])[pick].flatten(1)
        losses = -chosen.clamp(max=0) * lines[k].upper_intercept.flatten(1)
        scores[:, varying] += (shares[k][region] @ losses.unsqueeze(2)).squeeze(2)
    return scores


def _clipped(margins: Tensor, slopes: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The boxes cut to where no row's bound is positive, rounded outward: [P, 2, n_inputs]."""
    reach = (-margins).clamp(min=0).unsqueeze(2) / slopes.abs() * (1 + 2.0**-50)
    reach = torch.nan_to_num(reach, nan=torch.inf, posinf=torch.inf)
    infinite = torch.tensor(torch.inf, dtype=lower.dtype)
    above = torch.nextafter(lower.unsqueeze(1) + reach, infinite).where(slopes > 0, infinite).amin(1)
    below = torch.nextafter(upper.unsqueeze(1) - reach, -infinite).where(slopes < 0, -infinite).amax(1)
    return torch.stack([torch.maximum(lower, below), torch.minimum(upper, above)], 1)
