"""What is done once all is trained: select, assess, compare, publish, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_store import DEFAULT_ROOT, DataSource, Evaluation, ReviewBound, Store
from training.evaluate.calibration import scaled
from training.evaluate.cutoff import Rule
from training.evaluate.metrics import evaluate
from training.export.publish import LIMITATIONS, build_version, data_sources, pretrained_source
from training.networks.googlenet import ARCHITECTURE, PfiNetwork
from training.study import leakage
from training.study.assess import (
    RULES,
    Reading,
    Tested,
    assessed,
    calibration,
    crossing,
    read,
    serve,
    softened,
    test_images,
)
from training.study.baselines import baselines, colour_features, windows
from training.study.candidates import Trained, validation_pairs
from training.study.config import Study
from training.study.data import Radiographs
from training.study.figures.draw import draw
from training.study.model_comparison import incumbent_rows, verdicts
from training.study.records import agreement, environment, flow, hashes, speed
from training.study.report.write import write
from training.study.results import Curve, Results, Verdict
from training.study.statistics import choose, pooled_comparisons, youden_curve
from training.train.fit import load_best


@dataclass(frozen=True)
class Retrained:
    """The chosen candidate's way, trained on other splits."""

    by_image: tuple[Radiographs, Trained] | None
    on_source: dict[str, tuple[Radiographs, Trained]]


def conclude(
    study: Study,
    radiographs: Radiographs,
    *,
    trained: Sequence[Trained],
    retrained: Retrained,
    run: Path,
    command: str,
) -> Results:
    """From trained candidates to results.json, figures and report.

    Raises:
        PublishError, StoreError: The chosen candidate cannot be published.
    """
    best = choose([each.found for each in trained])
    chosen = next(each for each in trained if each.found == best)
    reading = read(study, radiographs, chosen, bounded=True)
    served = serve(chosen, reading, study.preprocess.size)
    tested = test_images(study, radiographs, served)
    crossed = _crossed(study, radiographs, retrained)
    rows = assessed(tested, reading, crossed)
    own = next(each.evaluations for each in rows if each.rule == study.assess.rule)
    found = _verdicts(study, radiographs, own)
    colour = colour_features(study, radiographs, run)
    by_image = _by_image(study, retrained)
    leaks = leakage.in_order(
        leakage.chosen_rows(study, tested, reading, by_image, crossed[study.assess.rule])
        + leakage.frozen_rows(study, radiographs, colour)
    )
    assert reading.review is not None
    results = Results(
        **_provenance(study, radiographs, command),
        children=study.finetune.children,
        candidates=tuple(each.found for each in trained),
        comparisons=pooled_comparisons([each.found for each in trained]),
        chosen=best.name,
        plateau=reading.plateau,
        curves=_curves(study, radiographs, chosen, reading, tested),
        calibration=calibration(tested, reading),
        review=reading.review,
        assessed=rows,
        baselines=tuple(baselines(study, radiographs, colour)),
        window=tuple(windows(study, radiographs, run)),
        leakage=tuple(leaks),
        leakage_text=leakage.in_words(leaks),
        incumbent=study.publish.incumbent,
        verdicts=found,
        published=None,
        test_images=tested.images(),
        speed=speed(trained, tested),
    )
    if _may_publish(study, found):
        version = _publish(study, radiographs, chosen, reading, evaluations=own, command=command)
        results = results.model_copy(update={"published": version})
    results.save(run)
    draw(study, radiographs, results, softened(chosen), run / "figures")
    write(results, run)
    return results


def _provenance(study: Study, radiographs: Radiographs, command: str) -> dict[str, Any]:
    """Of what, by what and from what these results are."""
    return {
        "title": study.title,
        "created": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "command": command,
        "config": study.model_dump(mode="json"),
        "environment": environment(),
        "data": hashes(study, radiographs),
        "kappa": agreement(study),
        "flow": tuple(flow(study, radiographs)),
    }


def _crossed(
    study: Study, radiographs: Radiographs, retrained: Retrained
) -> dict[Rule, list[Evaluation]]:
    """Each retrained network on the images of every other source."""
    found: dict[Rule, list[Evaluation]] = {rule: [] for rule in RULES}
    for source, (own, trained) in retrained.on_source.items():
        reading = read(study, own, trained, bounded=False)
        predict = serve(trained, reading, study.preprocess.size)
        for other in retrained.on_source:
            if other != source:
                name = f"fit on {source}, test on {other}"
                for rule, row in crossing(name, radiographs, other, predict, reading).items():
                    found[rule].append(row)
    return found


def _by_image(study: Study, retrained: Retrained) -> Evaluation | None:
    """The network trained on a split by image, on that split's test images."""
    if retrained.by_image is None:
        return None
    own, trained = retrained.by_image
    reading = read(study, own, trained, bounded=False)
    at = own.of("test")
    pfi = serve(trained, reading, study.preprocess.size)(own.images.tensors[at])
    return evaluate("by image", pfi, own.rows_at(at), reading.point(study.assess.rule))


def _verdicts(
    study: Study, radiographs: Radiographs, own: Sequence[Evaluation]
) -> tuple[Verdict, ...]:
    if study.publish.incumbent is None:
        return ()
    return verdicts(own, incumbent_rows(study, radiographs))


def _curves(
    study: Study, radiographs: Radiographs, chosen: Trained, reading: Reading, tested: Tested
) -> tuple[Curve, ...]:
    pairs = validation_pairs(study, radiographs)
    labels = radiographs.labels[pairs.images.numpy()]
    pfi = scaled(chosen.validation, reading.temperature).astype(np.float32)
    return (
        youden_curve(pfi, labels, reading.plateau.measured_on),
        youden_curve(tested.pfi, tested.labels, "test images, for comparison only"),
    )


def _may_publish(study: Study, found: Sequence[Verdict]) -> bool:
    """Whether the study's terms are met; "as good" needs every row of the incumbent's."""
    when = study.publish.when
    return when == "always" or (when == "as good" and all(each.as_good for each in found))


def _publish(
    study: Study,
    radiographs: Radiographs,
    chosen: Trained,
    reading: Reading,
    *,
    evaluations: Sequence[Evaluation],
    command: str,
) -> str:
    options, point = study.publish, reading.point(study.assess.rule)
    assert options.probe is not None
    assert reading.review is not None
    review = reading.review
    at = np.concatenate([radiographs.of("train"), radiographs.of("validation")])
    version = build_version(
        architecture=ARCHITECTURE,
        network=PfiNetwork(load_best(chosen.folder, torch.device("cpu")), reading.temperature),
        images=radiographs.images.tensors[radiographs.of("test")],
        probe=options.probe.read_bytes(),
        name=options.name,
        version=options.version,
        limitations=LIMITATIONS + options.limitations,
        preprocess=study.preprocess,
        threshold=point.threshold,
        threshold_rule=study.assess.rule,
        plateau=reading.plateau,
        temperature=reading.temperature,
        review_margin_logits=0.0,
        review_band=point.band,
        review_error_bound=ReviewBound(
            error_bound=review.error_bound,
            confidence=review.confidence,
            attained=review.attained,
            coverage=review.coverage,
            measured_on=review.measured_on,
        ),
        evaluations=tuple(evaluations),
        data=data_sources(radiographs.rows_at(at), _weights(study, chosen)),
        training_command=command,
        publish_command=command,
    )
    Store(options.store or DEFAULT_ROOT).add(version)
    return version.reference


def _weights(study: Study, chosen: Trained) -> tuple[DataSource, ...]:
    colour = pretrained_source(study.data.weights)
    if chosen.found.pretraining == "colour":
        return colour
    grey = DataSource(
        name=f"{chosen.found.pretraining} photographs",
        use="pre-training",
        licence="not stated here; ImageNet's terms are non-commercial research",
        origin=str(study.data.photographs and study.data.photographs.name),
    )
    return (*colour, grey)
