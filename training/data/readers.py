"""View labels of two readers, merged, with their agreement; conflicts go to an adjudicator."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sklearn.metrics import cohen_kappa_score

from training.data.make_manifest import Exclusion, read_table, write_exclusions, write_table
from training.data.manifest import ManifestError

Label = Literal["frontal", "lateral", "not_chest", "exclude"]
NAMES = f"{', '.join(get_args(Label)[:-1])} or {get_args(Label)[-1]}"
Labels = Mapping[str, Label]


@dataclass(frozen=True)
class Agreement:
    """How far two readers agree, before any adjudication."""

    kappa: float | None  # Cohen's; None where both gave all images one and the same label
    n: int  # images that both read
    agreement: float  # share of n, 0 to 1
    conflicts: int


@dataclass(frozen=True)
class Merged:
    """One label for each image."""

    labels: dict[str, Label]
    agreement: Agreement
    conflicts: tuple[str, ...]  # files that the adjudicator decided


def read_labels(path: Path) -> dict[str, Label]:
    """Read a CSV with the columns file and view: frontal, lateral, not_chest or exclude.

    Raises:
        ManifestError: With all lines that say something else, or a file for a second time.
    """
    labels: dict[str, Label] = {}
    problems = []
    for record in read_table(path, ("file", "view")):
        file, view = record["file"], record["view"]
        if view not in get_args(Label):
            problems.append(f"view of {file} is {view!r}, not {NAMES}")
        if file in labels:
            problems.append(f"{file} is in it twice")
        labels[file] = view  # type: ignore[assignment]  # checked above
    if problems:
        raise ManifestError(*(f"{path.name}: {problem}" for problem in problems))
    return labels


def merge(first: Labels, second: Labels, adjudicated: Labels | None = None) -> Merged:
    """One label for each image that two readers read.

    Args:
        first: file -> label by one reader.
        second: file -> label by the other, of the same files.
        adjudicated: file -> label by a third, of at least the files on which the two differ.

    Returns:
        The labels, in the order of `first`; the agreement is of the two readers alone.

    Raises:
        ManifestError: No image was read, one was read by one reader only, or a conflict is not
            resolved; it has all of them.

    References:
        J. Cohen, A coefficient of agreement for nominal scales, Educ Psychol Meas 20(1), 1960.
    """
    problems = [f"{file} was read by one reader only" for file in sorted(set(first) ^ set(second))]
    conflicts = tuple(file for file in first if file in second and first[file] != second[file])
    decided = {file: label for file, label in (adjudicated or {}).items() if file in conflicts}
    problems += [
        f"{file} is {first[file]} to one reader, {second[file]} to the other"
        for file in conflicts
        if file not in decided
    ]
    if problems or not first:
        raise ManifestError(*problems or ["no image was read"])
    labels = {**first, **decided}
    return Merged(labels, _agreement(first, second), conflicts)


def _agreement(first: Labels, second: Labels) -> Agreement:
    one, other = [list(pair) for pair in zip(*((first[f], second[f]) for f in first), strict=True)]
    conflicts = sum(a != b for a, b in zip(one, other, strict=True))
    same_throughout = len({*one, *other}) == 1  # expected agreement is 1: kappa is 0 / 0
    kappa = None if same_throughout else float(cohen_kappa_score(one, other))
    return Agreement(kappa, len(one), 1 - conflicts / len(one), conflicts)


def merge_into(manifest: Path, merged: Merged, out: Path) -> dict[str, int]:
    """Write the manifest with the merged views, its exclusions, and <its stem>-agreement.json.

    Args:
        manifest: A manifest, whose own views do not matter; all its columns are kept.
        merged: A label for each of its files, and for no other.
        out: The manifest to write.

    Returns:
        reason -> images excluded.

    Raises:
        ManifestError: With all files that only the manifest has, or only the readers.
    """
    records = list(read_table(manifest, ("file", "view")))
    strays = {record["file"] for record in records} ^ set(merged.labels)
    if strays:
        reasons = {True: "is in no line of the manifest", False: "has no label of any reader"}
        raise ManifestError(*(f"{f} {reasons[f in merged.labels]}" for f in sorted(strays)))
    columns = list(records[0])
    kept = [
        [{**record, "view": merged.labels[record["file"]]}[name] for name in columns]
        for record in records
        if merged.labels[record["file"]] != "exclude"
    ]
    write_table(out, columns, kept)
    agreement = json.dumps(asdict(merged.agreement), indent=2)
    out.with_name(f"{out.stem}-agreement.json").write_text(agreement + "\n")
    return write_exclusions(_excluded(merged), out)


def _excluded(merged: Merged) -> Iterable[Exclusion]:
    for file, label in merged.labels.items():
        if label == "exclude":
            by = "by the adjudicator" if file in merged.conflicts else "by both readers"
            yield Exclusion(file, f"excluded {by}")


def add_command(commands: Any) -> None:
    """Add `merge-readers` to argparse's subparsers."""
    command = commands.add_parser("merge-readers", help="merge the view labels of two readers")
    command.add_argument("first", type=Path, help="CSV of file and view, which may be `exclude`")
    command.add_argument("second", type=Path, help="the same by another reader")
    command.add_argument("--adjudicated", type=Path, help="the same by a third, of the conflicts")
    command.add_argument("--manifest", type=Path, required=True, help="CSV of the same images")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    third = options.adjudicated and read_labels(options.adjudicated)
    merged = merge(read_labels(options.first), read_labels(options.second), third)
    reasons = merge_into(options.manifest, merged, options.out)
    print(json.dumps({**asdict(merged.agreement), "excluded": reasons}))  # noqa: T201  # a command
