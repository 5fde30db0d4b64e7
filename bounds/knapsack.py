"""The fractional knapsack behind l1 and l0: items with a gain and a cost, any part of which can be taken.

For l1 an item is an input, its cost the weighted way to its side of the box; for l0 it is a group of inputs, and taking
a part of one is the relaxation.  Dantzig's rule: by gain per cost (Operations Research 5, 1957).  With a price p of one
unit of gain (of one unit of cost for ``most``), weak duality gives bounds that hold for whatever price was found:

    a gain of m costs     >=  p m  -  sum max(p gain_i - cost_i, 0)
    a cost of r gains     <=  p r  +  sum max(gain_i - p cost_i, 0)
"""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.rounding import TINY, gamma

SMALL = 1e-29


def most(gains: Tensor, costs: Tensor, budget: float) -> Tensor:
    """An upper bound on the gain for the budget; gains, costs: [..., items], the result [...]."""
    slack = 4 * gamma(gains.shape[-1] + 16)
    with torch.no_grad():
        rates = _rates(gains, costs)
        ordered, order = rates.sort(-1, descending=True)
        spent = costs.expand_as(gains).gather(-1, order).cumsum(-1)
        price = _at_first(ordered, spent >= budget, 0.0)
    above = (gains - price * costs).clamp(min=0)
    size = (gains + price * costs).sum(-1)
    return price.squeeze(-1) * budget * (1 + slack) + above.sum(-1) + slack * size + TINY


def cost(gains: Tensor, costs: Tensor, need: Tensor) -> Tensor:
    """The least cost of a gain, bounded from below; see ``ball.Ball.distance``."""
    slack = 4 * gamma(gains.shape[-1] + 16)
    price = _price(gains, costs, need)
    paid = (price * gains - costs).clamp(min=0)
    size = (price * gains + costs).sum(-1)
    bound = price.squeeze(-1) * need - paid.sum(-1) - slack * ((price.squeeze(-1) * need).abs() + size)
    best = (1 / _rates(gains, costs).amax(-1).clamp(min=SMALL)).clamp(max=1e20)
    bound = torch.where(need > 0, bound, need * best.detach())
    unreachable = need > gains.sum(-1) * (1 + slack) + TINY
    return torch.where(unreachable, torch.full_like(bound, torch.inf), bound)


def taken(gains: Tensor, costs: Tensor, need: Tensor) -> Tensor:
    """The part of each item that an optimal choice takes, in [0, 1]: [..., items]."""
    rates = _rates(gains, costs)
    _, order = rates.sort(-1, descending=True)
    sorted_gains = gains.gather(-1, order)
    before = sorted_gains.cumsum(-1) - sorted_gains
    parts = ((need.unsqueeze(-1) - before) / sorted_gains.clamp(min=SMALL)).clamp(0, 1)
    return torch.zeros_like(gains).scatter(-1, order, parts * (sorted_gains > 0))


def bought(gains: Tensor, costs: Tensor, budget: float) -> Tensor:
    """The part of each item that the budget buys, in [0, 1]: [..., items]."""
    costs = costs.expand_as(gains)
    _, order = _rates(gains, costs).sort(-1, descending=True)
    sorted_costs = costs.gather(-1, order)
    before = sorted_costs.cumsum(-1) - sorted_costs
    left = budget - before
    parts = torch.where(sorted_costs > 0, left / sorted_costs.clamp(min=SMALL), torch.ones_like(left)).clamp(0, 1)
    return torch.zeros_like(gains).scatter(-1, order, parts * (gains.gather(-1, order) > 0))


def _price(gains: Tensor, costs: Tensor, need: Tensor) -> Tensor:
    """Cost per gain of the last item that is needed: [..., 1]."""
    with torch.no_grad():
        rates = _rates(gains, costs)
        ordered, order = rates.sort(-1, descending=True)
        reached = gains.gather(-1, order).cumsum(-1) >= need.unsqueeze(-1)
        last = ordered[..., -1:].clamp(min=SMALL)
        rate = _at_first(ordered, reached, None)
        return 1 / torch.where(rate > 0, rate, last).clamp(min=SMALL)


def _rates(gains: Tensor, costs: Tensor) -> Tensor:
    return torch.where(gains > 0, gains / costs.clamp(min=SMALL), torch.zeros_like(gains))


def _at_first(values: Tensor, condition: Tensor, otherwise: float | None) -> Tensor:
    """The value where the condition first holds, [..., 1]; ``otherwise``, or the last value, where it never does."""
    index = condition.to(torch.uint8).argmax(-1, keepdim=True)
    never = ~condition.any(-1, keepdim=True)
    last = values[..., -1:] if otherwise is None else torch.full_like(values[..., -1:], otherwise)
    return torch.where(never, last, values.gather(-1, index))
