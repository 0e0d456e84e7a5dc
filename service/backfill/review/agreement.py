"""How far two readers agree, as `python -m training merge-readers` measures it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.backfill.ledger.readings import MOST_READERS, Readings

Pair = tuple[str, str]


@dataclass(frozen=True)
class Agreement:
    """The agreement of two readers, before any adjudication."""

    readers: Pair
    n: int  # images that both read
    agreement: float  # share of n, 0..1
    kappa: float | None  # Cohen's; None where both gave all images one and the same label
    conflicts: int


def agreements(readings: Iterable[Readings]) -> list[Agreement]:
    """The agreement of each two readers who read the same images, by their names."""
    found: dict[Pair, list[Pair]] = {}
    for each in readings:
        if len(each.by_reader) == MOST_READERS:
            (one, first), (other, second) = sorted(each.by_reader.items())
            found.setdefault((one, other), []).append((first, second))
    return [agreement(readers, found[readers]) for readers in sorted(found)]


def agreement(readers: Pair, labels: Sequence[Pair]) -> Agreement:
    """The agreement of two readers.

    Args:
        readers: Their names.
        labels: The labels of each image, one or more, in the order of the readers.
    """
    conflicts = sum(first != second for first, second in labels)
    observed = 1 - conflicts / len(labels)
    return Agreement(readers, len(labels), observed, cohen_kappa(labels), conflicts)


def cohen_kappa(labels: Sequence[Pair]) -> float | None:
    """Cohen's kappa, -1..1; None where all labels are one and the same, so that it is 0 / 0.

    References:
        J. Cohen, A coefficient of agreement for nominal scales, Educ Psychol Meas 20(1), 1960.
    """
    n = len(labels)
    first, second = (Counter(side) for side in zip(*labels, strict=True))
    same = sum(one == other for one, other in labels)
    by_chance = sum(first[label] * second[label] for label in first)  # expected, times n * n
    return None if by_chance == n * n else (n * same - by_chance) / (n * n - by_chance)
