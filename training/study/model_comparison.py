"""Is the chosen candidate at least as good as the published version, on every row?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from model_store import DEFAULT_ROOT, Evaluation, Store
from service.inference import open_network
from training.evaluate.metrics import OperatingPoint, in_batches
from training.study.assess import test_images
from training.study.config import Study
from training.study.data import Radiographs, read_otherwise
from training.study.results import Verdict


def incumbent_rows(study: Study, radiographs: Radiographs) -> list[Evaluation]:
    """The published version's rows: on this study's test images, and its card's across sources.

    It is run here, with its own preprocessing and cutoff, on the images this study holds out. If
    it was trained on some of them, that is to its favour, never to ours.
    """
    assert study.publish.incumbent is not None
    own = Store(study.publish.store or DEFAULT_ROOT)
    holder = own if study.publish.incumbent in own.list() else Store()
    version = holder.load(study.publish.incumbent)
    card = version.card
    network = open_network(version)
    tested = test_images(
        study.model_copy(update={"preprocess": card.preprocess}),
        read_otherwise(study, radiographs, card.preprocess),
        partial(in_batches, network.pfi),
    )
    found = tested.evaluations(OperatingPoint(card.threshold, card.review_band))
    return found + [row for row in card.evaluations if row.name.startswith("fit on ")]


def verdicts(ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> tuple[Verdict, ...]:
    """Accuracy and AUROC of every row that both have, of as many images."""
    published = {(row.name, row.images): row for row in theirs}
    found = []
    for row in ours:
        other = published.get((row.name, row.images))
        if other is None:
            continue
        pairs = [("accuracy", row.accuracy.value, other.accuracy.value)]
        if row.auroc is not None and other.auroc is not None:
            pairs.append(("AUROC", row.auroc, other.auroc))
        found += [
            Verdict(
                row=row.name,
                ours=mine,
                published=their,
                images=row.images,
                measure=measure,  # type: ignore[arg-type]  # one of the two, which mypy loses
                as_good=mine >= their,
            )
            for measure, mine, their in pairs
        ]
    return tuple(found)
