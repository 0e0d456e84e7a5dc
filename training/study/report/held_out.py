"""The test rows of a report at both cutoffs, and the images that were called wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model_store import Evaluation
from training.evaluate.cutoff import logit
from training.study.report.document import (
    Cell,
    Figure,
    Section,
    Table,
    Text,
    bounded,
    listed,
    optional,
    share_cell,
)
from training.study.results import Assessed, Results, TestImage

UNCERTAIN = 5  # of the images called rightly, so many are listed
LISTED = 40  # images at most


def tests(results: Results) -> Section:
    """Every row at both cutoffs, the baselines below, and the first row as two by two."""
    caption = (
        "Test rows at each cutoff. Frontal is the positive class; percent with exact 95 % CI."
        " AUROC depends on no cutoff. A row with the cutoff “own” is a baseline at its own."
        " A dash: the row lacks one of the views."
    )
    table = at_cutoffs(results.assessed, lambda n: "Figure 6" not in n, results.baselines, caption)
    return Section("Test results at both cutoffs", (_two_by_two(results), table), level=3)


def _two_by_two(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in results.assessed:
        first = main_row(one)
        for view, part in (("frontal", first.sensitivity), ("lateral", first.specificity)):
            right, n = (part.count, part.n) if part else (0, 0)
            called = (right, n - right) if view == "frontal" else (n - right, right)
            cutoff_cell = f"{one.rule}\n{bounded(one.threshold, 4)}" if view == "frontal" else None
            rows.append((cutoff_cell, view, *(f"{count:,}" for count in (*called, n))))
    header = ("Cutoff", "True view", "Called frontal", "Called lateral", "All")
    name = main_row(results.assessed[0]).name
    return Table(f"True view against the answer, row “{name}”.", header, tuple(rows))


def main_row(one: Assessed) -> Evaluation:
    """The row of all test images: the one named "test", or the first."""
    return next((row for row in one.evaluations if row.name == "test"), one.evaluations[0])


def at_cutoffs(
    assessed: Sequence[Assessed],
    wanted: Callable[[str], bool],
    others: Sequence[Evaluation],
    caption: str,
) -> Table:
    """Evaluations paired by name, one line a cutoff; `others` follow with their own cutoff."""
    names = dict.fromkeys(row.name for one in assessed for row in one.evaluations)
    notes: dict[str, None] = {}
    lines: list[tuple[Cell, ...]] = []
    for name in filter(wanted, names):
        pairs = [(one, row) for one in assessed for row in one.evaluations if row.name == name]
        for at, (one, row) in enumerate(pairs):
            head = (None, None, None) if at else _head(row, notes)
            lines.append((*head, f"{one.rule}\n{bounded(one.threshold, 4)}", *_measures(row)))
    lines += [(*_head(row, notes), "own", *_measures(row)) for row in others]
    header = (
        "Row", "n", "AUROC", "Cutoff", "Accuracy, %", "Sensitivity, %", "Specificity, %",
        "For review, %",
    )  # fmt: skip
    return Table(caption, header, tuple(lines), tuple(f"({i}) {n}" for i, n in enumerate(notes, 1)))


def _head(row: Evaluation, notes: dict[str, None]) -> tuple[Cell, Cell, Cell]:
    mark = ""
    if row.note:
        notes.setdefault(row.note)
        mark = f" ({list(notes).index(row.note) + 1})"
    patients = f"{row.images:,} images\n{row.patients:,} patients"
    return row.name + mark, patients, optional(row.auroc, 5)


def _measures(row: Evaluation) -> tuple[Cell, ...]:
    parts = (row.accuracy, row.sensitivity, row.specificity, row.review)
    return tuple(share_cell(part) for part in parts)


def robustness(results: Results) -> Section:
    """The transformations of the paper's Figure 6."""
    caption = "Test images transformed as in the paper's Figure 6, at each cutoff."
    table = at_cutoffs(results.assessed, lambda name: "Figure 6" in name, (), caption)
    figure = Figure(
        "fig6-transformed", "Test images as they are and transformed; called wrongly: framed.",
        "Rows of radiographs, untransformed and transformed, each with its PFI.", radiographs=True,
    )  # fmt: skip
    return Section("Robustness: the Figure 6 transformations", (table, figure), level=3)


def window(results: Results) -> Section:
    """The intensity window of the paper against percentiles."""
    caption = "Intensity windows compared; each row at its own cutoff."
    table = at_cutoffs((), lambda _: True, results.window, caption)
    return Section("Intensity window", (table,), level=3)


def gallery(results: Results) -> Section:
    """The images called wrongly at some cutoff, and the least certain of the others."""
    wrong = [image for image in results.test_images if _wrong_at(image, results.assessed)]
    rest = [image for image in results.test_images if not _wrong_at(image, results.assessed)]
    thresholds = [logit(one.threshold) for one in results.assessed]

    def certainty(image: TestImage) -> float:
        return min(abs(logit(image.pfi) - at) for at in thresholds)

    shown = [*sorted(wrong, key=certainty, reverse=True), *sorted(rest, key=certainty)[:UNCERTAIN]]
    rows = tuple(
        (image.file, image.source, image.view, bounded(image.pfi, 4),
         listed(_wrong_at(image, results.assessed)) or "none")
        for image in shown[:LISTED]
    )  # fmt: skip
    text = (
        f"{len(wrong):,} of {len(results.test_images):,} test images are called wrongly at one"
        " cutoff or more."
    )
    caption = (
        f"Images called wrongly, the most certain first, then the {UNCERTAIN} least certain of the"
        " others."
    )
    if len(shown) > LISTED:
        caption += f" The {len(shown) - LISTED:,} less certain are in results.json alone."
    header = ("File", "Source", "True view", "PFI", "Wrong at the cutoff")
    figure = Figure(
        "fig8-gallery", "Wrong and least certain images. Contours: what mattered to the answer.",
        "Radiographs in a grid with contours where hiding a part changed PFI most.",
        radiographs=True,
    )  # fmt: skip
    return Section("Error gallery", (Text(text), figure, Table(caption, header, rows)), level=3)


def _wrong_at(image: TestImage, assessed: Sequence[Assessed]) -> list[str]:
    frontal = image.view == "frontal"
    return [str(one.rule) for one in assessed if (image.pfi >= one.threshold) != frontal]
