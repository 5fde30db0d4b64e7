"""The frontier against a plain list: order, claims, disjuncts dropped, regions on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from verifier.search.frontier import Frontier, Regions


def regions_of(claims, names, most=3):
    """Regions with the claims {owner: bound}, each carrying its name in ``box`` and in the slopes of its claims."""
    counts = torch.tensor([len(one) for one in claims])
    owner = torch.tensor([owner for one in claims for owner in one])
    lower = torch.tensor([bound for one in claims for bound in one.values()], dtype=torch.float64)
    name = torch.tensor(names, dtype=torch.float64)
    return Regions(
        counts,
        torch.full((len(claims),), -1),
        owner,
        lower,
        box=name[:, None, None].expand(-1, 2, most).clone(),
        slopes=name.repeat_interleave(counts)[:, None].clone(),
    )


def unpacked(regions):
    """[(name, {owner: bound})]; checks that every claim stands with its region."""
    found, at = [], 0
    for i, count in enumerate(regions.counts.tolist()):
        own = slice(at, at + count)
        at += count
        name = float(regions.box[i, 0, 0])
        assert (regions.slopes[own] == name).all()
        found.append((name, dict(zip(regions.owner[own].tolist(), regions.lower[own].tolist(), strict=True))))
    assert at == len(regions.owner)
    return found


def random_claims(rng, count, owners=4):
    chosen = [np.sort(rng.choice(owners, rng.integers(1, owners + 1), replace=False)) for _ in range(count)]
    return [{int(o): float(np.round(-rng.random(), 1)) for o in one} for one in chosen]


@pytest.mark.parametrize("most_bytes", [None, 1, 2000])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_frontier_gives_out_what_a_list_would(seed, single, most_bytes):
    rng = np.random.default_rng(seed)
    frontier, known, forgotten, name = Frontier(most_bytes), [], set(), 0
    for _ in range(60):
        if rng.random() < 0.6:
            claims = random_claims(rng, int(rng.integers(1, 6)), 1 if single else 4)
            names = [name + i for i in range(len(claims))]
            name += len(claims)
            frontier.add(regions_of(claims, names))
            known += zip(names, claims, strict=True)
        elif rng.random() < 0.1 and not single:
            owner = int(rng.integers(4))
            forgotten.add(owner)
            frontier.forget([owner])
        else:
            taken = frontier.take(int(rng.integers(1, 8)))
            for found, claims in [] if taken is None else unpacked(taken):
                (expected,) = [one for one in known if one[0] == found]
                assert claims == {o: b for o, b in expected[1].items() if o not in forgotten}
                known.remove(expected)
                # Those on disk are further from the worst, or arrived later.
                if most_bytes is None:
                    assert min(claims.values()) <= min(min(c.values()) for c in remaining(known, forgotten) or [claims])
        left = remaining(known, forgotten)
        bounds = {o: min(c[o] for c in left if o in c) for o in range(4) if any(o in c for c in left)}
        assert frontier.lowest == bounds
        assert frontier.worst <= min(bounds.values(), default=np.inf)
        if most_bytes is None:
            assert len(frontier) == len(left)
    if most_bytes == 1:
        assert frontier.spilled > 0
    while frontier.take(5) is not None:
        pass
    assert len(frontier) == 0
    assert frontier.worst == np.inf


def remaining(known, forgotten):
    """The claims of the regions that are still of interest; those without one are none."""
    left = [{o: b for o, b in claims.items() if o not in forgotten} for _, claims in known]
    return [claims for claims in left if claims]


def test_equal_bounds_come_in_order_of_arrival():
    frontier = Frontier()
    frontier.add(regions_of([{0: -1.0}, {0: -2.0}, {0: -1.0}], [0, 1, 2]))
    frontier.add(regions_of([{0: -2.0}, {0: -1.0}], [3, 4]))
    assert [name for name, _ in unpacked(frontier.take(5))] == [1, 3, 0, 2, 4]


def test_a_crowded_frontier_gives_out_the_nearest_first():
    frontier = Frontier(crowded=3)
    frontier.add(regions_of([{0: -4.0}, {0: -1.0}, {0: -2.0}, {0: -3.0}], [4, 1, 2, 3]))
    assert [name for name, _ in unpacked(frontier.take(1))] == [1]
    assert [name for name, _ in unpacked(frontier.take(1))] == [4]


def test_a_region_counts_by_its_worst_claim_and_goes_with_its_last():
    frontier = Frontier()
    frontier.add(regions_of([{0: -1.0, 1: -5.0}, {0: -2.0}, {1: -3.0}], [0, 1, 2]))
    assert frontier.lowest == {0: -2.0, 1: -5.0}
    frontier.forget([1])
    assert len(frontier) == 2
    assert [name for name, _ in unpacked(frontier.take(9))] == [1, 0]
    frontier.add(regions_of([{1: -9.0}], [7]))
    assert frontier.take(1) is None


def test_bounds_on_disk_count():
    frontier = Frontier(most_bytes=1)
    frontier.add(regions_of([{0: -float(i)} for i in range(9)], list(range(9))))
    assert [name for name, _ in unpacked(frontier.take(1))] == [8]
    assert frontier.spilled > 0
    assert len(frontier) == 8
    assert frontier.worst == -7.0
    assert frontier.lowest == {0: -7.0}
    assert frontier.on_disk == {0: -7.0}
