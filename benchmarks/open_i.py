"""The header audit of Open-I's chest radiographs: what headers say, what the pixels show.

    python benchmarks/open_i.py FOLDER  # with manifest.csv and images.zip
    python benchmarks/open_i.py  # writes the page again from benchmarks/results/open_i.csv

The manifest has file, kind (lateral, frontal), source, view_detail ("DICOM ViewPosition=PA; ...").
"""

from __future__ import annotations

import csv
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from machine import moment
from tables import table

from cxrview import Classifier
from model_store import ModelCard, Prediction, Store, View
from service.imaging import ViewHeader
from training.evaluate.metrics import proportion

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "open_i.csv", HERE.parent / "docs" / "open-i.md"
MODELS = ("googlenet/1.1.0", "swift/1.1.0")
TAG = "DICOM ViewPosition="
VIEWS: tuple[View, ...] = ("lateral", "frontal")
Row = dict[str, str]
HEAD = """# Headers and pixels of Open-I

The paper took its public test set from Indiana University's Open-I. For {n:,} of its chest
radiographs, {laterals:,} laterals and {frontals} frontals, this page compares three things: what
View Position (0018,5101) says, what two published models see in the pixels, and the true view. The
true view is a checked label: it began as DICOM tags, an independent list and a classifier, and then
every lateral was looked at. None of the images has trained the models. They are copies of
256 x 256 pixels, and are not part of this project (CC BY-NC-ND 4.0). `python benchmarks/open_i.py`
makes the page from [benchmarks/results/open_i.csv](../benchmarks/results/open_i.csv), measured on
{date}.
"""


def measure(folder: Path) -> list[Row]:
    """The answers of all models to each image of Open-I."""
    with (folder / "manifest.csv").open(newline="") as file:
        listed = [
            row
            for row in csv.DictReader(file)
            if row["source"] == "open-i" and row["kind"] in VIEWS
        ]
    with zipfile.ZipFile(folder / "images.zip") as archive:
        images = [archive.read(row["file"]) for row in listed]
    rows: list[Row] = []
    now = moment()
    for row in listed:
        parts = row["view_detail"].split("; ")
        tags = [part.removeprefix(TAG) for part in parts if part.startswith(TAG)]
        note = "; ".join(part for part in parts if part and not part.startswith(TAG))
        name = Path(row["file"]).stem
        rows.append(
            {"image": name, "view": row["kind"], "header": "".join(tags), "note": note} | now
        )
    for model in MODELS:
        classifier = Classifier(model)
        for row, image in zip(rows, images, strict=True):
            row[model] = f"{classifier.classify(image).pfi:.6f}"
    return rows


def claimed(row: Row) -> View | None:
    """The view that the header names."""
    return ViewHeader(row["header"] or None).view


@cache
def card_of(model: str) -> ModelCard:
    """The card of a published model."""
    return Store().load(model).card


def view_of(pfi: str, model: str) -> str:
    """The view by the model's cutoff."""
    return card_of(model).decide(Prediction(float(pfi))).view


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    counts = Counter(row["view"] for row in rows)
    return "\n".join([
        HEAD.format(
            n=len(rows),
            laterals=counts["lateral"],
            frontals=counts["frontal"],
            date=rows[0]["date"],
        ),
        *_headers(rows),
        *_pixels(rows),
        *_again(rows),
    ])  # fmt: skip


def _headers(rows: Sequence[Row]) -> Iterator[str]:
    yield "## What the headers say\n"
    lines = []
    for view in VIEWS:
        own = [row for row in rows if row["view"] == view]
        said = Counter(row["header"] or "nothing" for row in own)
        right = sum(claimed(row) == view for row in own)
        wrong = sum(claimed(row) not in {None, view} for row in own)
        terms = ", ".join(f"{term} {count}" for term, count in said.most_common())
        lines.append((view, f"{len(own):,}", f"{right:,}", share(wrong, len(own)), terms))
    heads = ("true view", "images", "header names it", "header names the other", "View Position")
    yield table(heads, lines)
    named = [row for row in rows if claimed(row)]
    right = sum(claimed(row) == row["view"] for row in named)
    yield f"Where the header names a view, it is right in {share(right, len(named))}.\n"


def _pixels(rows: Sequence[Row]) -> Iterator[str]:
    yield "## What the pixels show\n"
    lines = []
    for model in MODELS:
        card = card_of(model)
        right = {
            view: sum(view_of(row[model], model) == view for row in rows if row["view"] == view)
            for view in VIEWS
        }
        counts = Counter(row["view"] for row in rows)
        review = sum(card.decide(Prediction(float(row[model]))).review for row in rows)
        shares = (share(right[view], counts[view]) for view in VIEWS)
        lines.append((
            f"`{model}`", share(sum(right.values()), len(rows)), *shares, share(review, len(rows))
        ))  # fmt: skip
    yield table(("model", "right (95 % CI)", "laterals", "frontals", "for review"), lines)


def _again(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Images to look at again\n"
    cutoffs = " and ".join(f"{card_of(model).threshold:.4f} (`{model}`)" for model in MODELS)
    yield (
        "At least one model disagrees with the label of these images. The columns of the models\n"
        f"are PFIs; an image is frontal from {cutoffs} on.\n"
    )
    lines = [
        (row["image"], row["view"], row["header"], *(row[model] for model in MODELS), row["note"])
        for row in rows
        if any(view_of(row[model], model) != row["view"] for model in MODELS)
    ]
    yield table(("image", "label", "View Position", *MODELS, "note"), lines)
    wrong = [row for row in rows if claimed(row) not in {None, row["view"]}]
    agreed = sum(all(view_of(row[m], m) == row["view"] for m in MODELS) for row in wrong)
    yield (
        f"The headers of {len(wrong)} images contradict their label. In {agreed} of them both\n"
        "models agree with the label: a header audit lists these headers for correction. The file\n"
        "of results names them.\n"
    )


def share(count: int, n: int) -> str:
    """`count` of n in percent, with the exact confidence interval."""
    found = proportion(count, n)
    low, high = found.ci95
    return f"{count:,} of {n:,}, {found.value:.2%} ({low:.2%} to {high:.2%})"


def main() -> None:
    """Measure, if a folder is given; write the page."""
    if len(sys.argv) > 1:
        rows = measure(Path(sys.argv[1]))
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    PAGE.write_text(page(read()))


def read() -> list[Row]:
    """The results."""
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
