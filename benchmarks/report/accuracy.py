"""Robust accuracy from a batch: which share of the pictures is verified, attacked, or neither.

The intervals are those of Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial" (1934): exact, hence never too short.  They speak of the population that the pictures
were drawn from at random.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy.special import betaincinv

from verifier.benchmarks.instances import short_name
from verifier.benchmarks.record import Record, Status

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """count of total, with the interval [low, high] for the share."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class Accuracy:
    """One network within one radius.

    wrong: of the adversarial ones, those misread already without any change.
    """

    category: str
    network: str
    epsilon: float
    verified: Share
    adversarial: Share
    undecided: Share
    wrong: int


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> Share:
    """The exact interval for a binomial share.  total >= 1."""
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return Share(count, total, low, high)


def robust_accuracy(records: Iterable[Record]) -> list[Accuracy]:
    """One entry per category, network and radius among the robustness properties."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        asked = record.asked or {}
        if asked.get("kind") == "robustness" and asked.get("epsilon"):
            key = (record.category, short_name(record.onnx), f"{asked['epsilon']:.3g}")
            groups.setdefault(key, []).append(record)
    found = []
    for (category, network, epsilon), members in groups.items():
        total = len(members)
        verified = sum(record.status is Status.UNSAT for record in members)
        attacked = [record for record in members if record.status is Status.SAT]
        found.append(
            Accuracy(
                category,
                network,
                float(epsilon),
                clopper_pearson(verified, total),
                clopper_pearson(len(attacked), total),
                clopper_pearson(total - verified - len(attacked), total),
                sum(map(_wrong_at_the_start, attacked)),
            )
        )
    return sorted(found, key=lambda accuracy: (accuracy.category, accuracy.network, accuracy.epsilon))


def _wrong_at_the_start(record: Record) -> bool:
    """Whether the network misreads the original itself."""
    scores = (record.witness or {}).get("original_y")
    label = (record.asked or {}).get("label")
    if not scores or label is None or None in scores:
        return False
    return scores.index(max(scores)) != label
