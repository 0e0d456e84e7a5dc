"""Which images train, validate and test."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from model_store import AnsweredView
from training.data.manifest import Part, Row

By = Literal["patient", "image"]
SHARES = {"validation": 0.2, "test": 0.2}  # of the images, as in the paper; the rest trains


def split(
    rows: Sequence[Row],
    seed: int,
    by: By = "patient",
    validation: float = SHARES["validation"],
    test: float = SHARES["test"],
) -> tuple[Part, ...]:
    """Assign every row to a part, stratified by source and view; a manifest's own split wins.

    By patient, all images of one patient are in one part, and a patient with any train-only image
    trains. A stratum is the patients whose first source and whose views are the same; shuffled,
    they fill test and validation up to their share of its images. By image, patients and
    train-only are ignored, as in the paper: its 1,882 images, 1,129 to train, 376 to validate and
    377 to test, become 1,130, 376 and 376 here, because each share is rounded by itself.

    Args:
        rows: In any order, which does not matter to the split.
        seed: The same seed gives the same split.
        by: What is kept whole: a patient or an image.
        validation: Share of the images, 0 to 1.
        test: Share of the images, 0 to 1.

    Returns:
        A part for each row, in their order.
    """
    given = tuple(row.part for row in rows if row.part)
    if len(given) == len(rows):
        return given
    units = [row.patient_id if by == "patient" else row.file for row in rows]
    of_unit: dict[str, list[Row]] = defaultdict(list)
    for unit, row in zip(units, rows, strict=True):
        of_unit[unit].append(row)
    pinned = {row.patient_id for row in rows if row.train_only} if by == "patient" else set()
    parts: dict[str, Part] = dict.fromkeys(pinned, "train")
    free = {unit: own for unit, own in sorted(of_unit.items()) if unit not in pinned}
    for stratum, names in sorted(_strata(free).items()):
        random.Random(f"{seed}:{stratum}").shuffle(names)
        images = {name: len(free[name]) for name in names}
        parts.update(_fill(images, (("test", test), ("validation", validation))))
    return tuple(parts[unit] for unit in units)


def _strata(
    of_unit: dict[str, list[Row]],
) -> dict[tuple[str, tuple[AnsweredView, ...]], list[str]]:
    strata: dict[tuple[str, tuple[AnsweredView, ...]], list[str]] = defaultdict(list)
    for unit, own in of_unit.items():
        views = tuple(sorted({row.view for row in own}))
        strata[min(row.source for row in own), views].append(unit)
    return strata


def _fill(images: dict[str, int], shares: Iterable[tuple[Part, float]]) -> dict[str, Part]:
    total = sum(images.values())
    parts: dict[str, Part] = dict.fromkeys(images, "train")
    waiting = iter(images)
    for part, share in shares:
        filled = 0
        while filled < round(share * total):
            unit = next(waiting, None)
            if unit is None:
                return parts  # a stratum of few patients with many images each
            parts[unit] = part
            filled += images[unit]
    return parts
