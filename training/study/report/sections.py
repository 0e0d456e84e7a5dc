"""A report from beginning to end: summary, methods, results, limits, and how to repeat it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

import tomli_w

from model_store import Evaluation
from training.augmentation.augmented_views import CHILDREN
from training.evaluate.metrics import proportion
from training.study.report.document import (
    NOTHING,
    Cell,
    Code,
    Point,
    Points,
    Section,
    Table,
    Text,
    bounded,
    listed,
    percent,
    share,
    share_cell,
)
from training.study.report.findings import findings
from training.study.report.held_out import main_row
from training.study.results import Assessed, Results, TestImage, Verdict


def sections(results: Results) -> list[Section]:
    """The whole report."""
    return [
        summary(results),
        methods(results),
        Section("Results", (Text(INTERVALS),)),
        *findings(results),
        limits(results),
        sources(results),
        *reproducibility(results),
    ]


HEADINGS = {
    "Preprocess": "Preprocessing",
    "Pretrain": "Pre-training",
    "Finetune": "Fine-tuning",
    "Assess": "Cutoff and review",
}
INTERVALS = (
    "Proportions are given as count/n with exact (Clopper-Pearson) 95 % confidence intervals,"
    " unless a table names another interval. PFI is the probability of a frontal image; an image is"
    " called frontal when its PFI is at least the cutoff."
)


def summary(results: Results) -> Section:
    """What was found, and what came of it."""
    points = [
        Point(f"{results.chosen}, of {len(results.candidates)} candidates.", "Chosen"),
        *(_accuracy_point(one) for one in results.assessed),
        *(_lowest(one) for one in results.assessed),
        *(Point(f"{row.name}: right on {share(row.accuracy)}.", "Baseline")
          for row in results.baselines),
        Point(_verdict(results), "Verdict"),
    ]  # fmt: skip
    verdicts = (_verdict_table(results),) if results.verdicts else ()
    return Section("Summary", (Points(tuple(points)), *verdicts))


def _accuracy_point(one: Assessed) -> Point:
    row = main_row(one)
    lead = f"Cutoff {one.rule}, {bounded(one.threshold, 4)}"
    auroc = "" if row.auroc is None else f" AUROC: {bounded(row.auroc, 5)}."
    words = (
        f"Right on {share(row.accuracy)} of the test images, which are of {row.patients:,}"
        f" patients.{auroc}"
    )
    if row.accuracy.count == row.accuracy.n:
        words += (
            f" No error was seen, but {row.accuracy.n:,} images support no more than an accuracy"
            f" above {percent(row.accuracy.ci95[0])} %, the interval's lower limit."
        )
    return Point(words, lead)


def _lowest(one: Assessed) -> Point:
    row = min(one.evaluations, key=lambda r: (r.accuracy.value, r.accuracy.ci95[0]))
    return Point(f"{row.name}: right on {share(row.accuracy)}.", f"Lowest row at cutoff {one.rule}")


def _verdict(results: Results) -> str:
    outcome = f"Published as {results.published}" if results.published else "Not published"
    when = settings_of(results, "publish").get("when")
    if not results.published and when == "never":
        outcome += ", as the configuration asks for"
    if not results.verdicts:
        return f"{outcome}. It was compared with no published version."
    than, n = results.incumbent or "the published version", len(results.verdicts)
    worse = [f"{one.row} ({one.measure})" for one in results.verdicts if not one.as_good]
    if not worse:
        return f"{outcome}. It is at least as good as {than} in all {n} rows compared."
    because = ", because it" if when == "as good" and not results.published else ". It"
    return f"{outcome}{because} is worse than {than} in {len(worse)} of {n} rows: {listed(worse)}."


def _verdict_table(results: Results) -> Table:
    rows = tuple(
        (one.row, one.measure, f"{one.images:,}", _value(one, one.ours),
         _value(one, one.published), "yes" if one.as_good else "no")
        for one in results.verdicts
    )  # fmt: skip
    than = results.incumbent or "the published version"
    header = ("Row", "Measure", "Images", "This study", "Published", "At least as good")
    caption = f"The chosen candidate against {than}; accuracy in % with 95 % CI."
    return Table(caption, header, rows)


def _value(verdict: Verdict, value: float) -> str:
    count = round(value * verdict.images)
    if verdict.measure == "AUROC":
        return bounded(value, 5)
    if abs(count - value * verdict.images) > 1e-6:
        return percent(value)
    return share_cell(proportion(count, verdict.images))


def methods(results: Results) -> Section:
    """The protocol in short, each point with the study's own settings."""
    pretrained = {c.pretraining: c.pretraining_images for c in results.candidates}
    kinds = listed([f"{kind} ({images:,} images)" for kind, images in pretrained.items()])
    fine_tuned = listed(list(dict.fromkeys(c.method for c in results.candidates)))
    agreement = results.kappa or "not measured"
    topics = {
        "Data": f"Radiographs labelled frontal or lateral. Agreement of two readers: {agreement}.",
        "Preprocess": "As in the service: one grey channel, windowed, scaled to a square.",
        "Split": "Training, validation and test images; counts are in the flow of images.",
        "Augmentation": (
            f"{results.children:,} children an image, the image itself being the first, for"
            f" validation and frozen layers; training of all layers draws from {len(CHILDREN)}."
        ),
        "Pretrain": f"GoogLeNet, pre-trained in {len(pretrained)} ways: {kinds}.",
        "Finetune": f"On the training images: {fine_tuned}.",
        "Selection": (
            "By accuracy on validation images and their children at PFI ≥ 0.5; between equals, by"
            " more images of pre-training, then by lower loss."
        ),
        "Assess": (
            f"The cutoff maximises Youden's J on {results.plateau.measured_on}. Two points of its"
            " plateau are assessed: the middle in logits, and the upper end, which is the paper's"
            " choice."
        ),
    }
    points = (
        Point(f"{words}{_settings(results, topic)}", HEADINGS.get(topic, topic))
        for topic, words in topics.items()
    )
    return Section("Methods", (Points(tuple(points)),))


def settings_of(results: Results, topic: str) -> dict[str, object]:
    """One section of the configuration; empty where it has no such section."""
    found = results.config.get(topic.lower(), {})
    return found if isinstance(found, dict) else {}


def _settings(results: Results, topic: str) -> str:
    values = _without_none(settings_of(results, topic))
    words = "; ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    return f" Settings: {words}." if words else ""


def limits(results: Results) -> Section:
    """What these images cannot show."""
    points = [*_of_size(results), *_of_sources(results.test_images)]
    originals, all_n = (
        {getattr(c, name).n for c in results.candidates}
        for name in ("accuracy_originals", "accuracy")
    )
    if originals and all_n:
        points.append(
            f"The candidates' intervals take children for independent images: n = {max(all_n):,}"
            f" stands for {max(originals):,} originals, so these intervals are too narrow."
        )
    if results.kappa is None:
        points.append("No agreement of two readers was measured; labels may hold errors.")
    points += [
        f"The review band was chosen on {results.review.measured_on}; other images may differ.",
        "Obliques and images other than chest radiographs are answered as one of the two views.",
        "Not a medical device.",
    ]
    return Section("Limits", (Points(tuple(map(Point, points))),))


def _of_size(results: Results) -> Iterator[str]:
    row: Evaluation = main_row(results.assessed[0])
    highest = 1 - row.accuracy.ci95[0]
    yield (
        f"{row.images:,} test images are compatible with up to {percent(highest)} % of errors at"
        f" cutoff {results.assessed[0].rule}."
    )
    views = {"frontal": row.sensitivity, "lateral": row.specificity}
    found = {view: part for view, part in views.items() if part and part.n}
    if found:
        view = min(found, key=lambda name: found[name].n)
        yield f"The rarer view is {view}: of these images, right on {share(found[view])}."
    if row.patients < row.images:
        yield (
            f"The test images are of {row.patients:,} patients; the intervals take images for"
            " independent, which images of one patient are not."
        )


def _of_sources(images: tuple[TestImage, ...]) -> Iterator[str]:
    views = defaultdict(set)
    for image in images:
        views[image.source].add(image.view)
    single = [f"{source} ({min(own)})" for source, own in sorted(views.items()) if len(own) == 1]
    if single:
        yield (
            f"Test sources of one view only: {listed(single)}. There, recognising the source is"
            " enough to be right."
        )


def sources(results: Results) -> Section:
    """Sources of the test images, on which terms; figures repeat it below each radiograph."""
    groups: dict[tuple[str, str, str], list[TestImage]] = defaultdict(list)
    for image in results.test_images:
        groups[image.source, image.origin, image.licence].append(image)
    rows: list[tuple[Cell, ...]] = [
        (source, origin or NOTHING, licence or NOTHING, f"{len({i.patient_id for i in own}):,}",
         *(f"{sum(i.view == view for i in own):,}" for view in ("frontal", "lateral")))
        for (source, origin, licence), own in sorted(groups.items())
    ]  # fmt: skip
    header = ("Source", "Origin", "Licence", "Patients", "Frontal", "Lateral")
    caption = "Sources of the test images. Each radiograph that is shown names its own."
    return Section("Sources and licences", (Table(caption, header, tuple(rows)),))


def reproducibility(results: Results) -> list[Section]:
    """The command, what it ran on, and every setting."""
    environment = Table("Environment.", ("What", "Which"), tuple(results.environment.items()))
    data = Table("Data.", ("File", "SHA-256"), tuple(results.data.items()))
    made = Text(f"Made {results.created}. Every number of this report is in results.json.")
    return [
        Section("Reproducibility", (made, Code(results.command), environment, data)),
        Section(
            "Configuration", (Code(tomli_w.dumps(_without_none(results.config)).rstrip()),), level=3
        ),
    ]


def _without_none(values: dict[str, object]) -> dict[str, object]:
    """TOML has no null: what is not set stays out."""
    kept = {key: value for key, value in values.items() if value is not None}
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in kept.items()}
