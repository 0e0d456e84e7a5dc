"""Manifests out of what public sets of chest radiographs publish, or out of a folder per view."""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from model_store import AnsweredView
from training.data.adapters import LAYOUTS, Layout, Said, image_key, view_of
from training.data.manifest import ManifestError, Row

FOLDER = "folder"
WRITTEN = (
    "file", "view", "patient_id", "source", "pool", "split", "licence", "source_repo",
    "header_view_position", "projection", "upright",
)  # fmt: skip


class Exclusion(NamedTuple):
    """An image that a manifest leaves out, and why."""

    file: str
    reason: str


def adapt(
    kind: str, metadata: Path, labels: Path | None = None, source: str | None = None
) -> Iterator[Row | Exclusion]:
    """The images of a public set, each as a row of a manifest or as an exclusion.

    Args:
        kind: One of LAYOUTS.
        metadata: The table that the set publishes, gzipped or not.
        labels: A table of file_name and image_view, whose views count instead of the set's.
        source: What the rows name as their source, instead of the set's own name.

    Raises:
        ManifestError: A column is missing, or a set without views has no labels.
    """
    layout = LAYOUTS[kind]
    layout = replace(layout, source=source or layout.source)
    if labels is None:
        if not layout.has_views:
            raise ManifestError(f"{kind} publishes no views: give a table of labels")
        for record in read_table(metadata, layout.columns):
            yield _judge(layout.said(record), layout)
    else:
        for said in _relabelled(layout, metadata, labels):
            yield _judge(said, layout)


def _relabelled(layout: Layout, metadata: Path, labels: Path) -> Iterator[Said]:
    views = {
        image_key(record["file_name"]): record["image_view"]
        for record in read_table(labels, ("file_name", "image_view"))
    }
    for record in read_table(metadata, layout.columns):
        said = layout.said(record)
        yield said._replace(view=views.pop(image_key(PurePosixPath(said.file).name), ""))
    for key, view in views.items():
        yield Said(key, "", view, unfit=f"labelled, but not in {metadata.name}")


def _judge(said: Said, layout: Layout) -> Row | Exclusion:
    view = view_of(said.view)
    if said.unfit:
        return Exclusion(said.file, said.unfit)
    if view is None:
        words = said.view.strip()
        return Exclusion(said.file, f"view is {words!r}" if words else "no view is stated")
    if not said.patient:
        return Exclusion(said.file, "no patient is stated")
    return Row(
        file=said.file,
        view=view,
        patient_id=f"{layout.source}-{said.patient}",  # numbers recur in other sets
        source=layout.source,
        licence=said.licence or layout.licence,
        origin=layout.origin,
        header=said.header,
    )


def adapt_folder(root: Path, source: str, pattern: str | None = None) -> Iterator[Row | Exclusion]:
    """The files in ROOT/frontal, ROOT/lateral and ROOT/not_chest, at any depth.

    Args:
        root: The folder; the rows' files are relative to it.
        source: What the rows name as their source.
        pattern: Regular expression that finds the patient in a file's relative path: its first
            group, or all of it. None: a file's name without its suffix is its patient.

    Raises:
        ManifestError: There is no such folder.
    """
    if not root.is_dir():
        raise ManifestError(f"{root} is no folder")
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        file = path.relative_to(root).as_posix()
        folder = file.split("/")[0]
        view: AnsweredView | None = "not_chest" if folder == "not_chest" else view_of(folder)
        patient = _patient(file, pattern)
        if view is None:
            yield Exclusion(file, "lies in none of frontal, lateral and not_chest")
        elif not patient:
            yield Exclusion(file, "no patient in its name")
        else:
            yield Row(file, view, f"{source}-{patient}", source)


def _patient(file: str, pattern: str | None) -> str:
    if pattern is None:
        return PurePosixPath(file).stem
    found = re.search(pattern, file)
    return (found.group(min(1, found.re.groups)) or "") if found else ""


def read_table(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """The records of a CSV file, gzipped or not, whatever further columns it has.

    Raises:
        ManifestError: A column is missing.
    """
    with (
        gzip.open(path) if path.suffix == ".gz" else path.open("rb") as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
    ):
        table = csv.DictReader(file, restval="")
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise ManifestError(f"{path.name} has no column {', '.join(missing)}")
        yield from table


def write_manifest(
    rows: Iterable[Row], exclusions: Iterable[Exclusion], out: Path, *, append: bool = False
) -> dict[str, int]:
    """Write the manifest, and <its stem>-exclusions.csv beside it; or add to both.

    Returns:
        reason -> images excluded now.
    """
    records = [
        (
            row.file, row.view, row.patient_id, row.source, "train" if row.train_only else "any",
            row.part or "", row.licence, row.origin, row.header, row.projection,
            row.upright,
        )
        for row in rows
    ]  # fmt: skip
    write_table(out, WRITTEN, records, append=append)
    return write_exclusions(exclusions, out, append=append)


def write_exclusions(
    exclusions: Iterable[Exclusion], out: Path, *, append: bool = False
) -> dict[str, int]:
    """Write <stem of the manifest `out`>-exclusions.csv; returns reason -> images."""
    excluded = list(exclusions)
    path = out.with_name(f"{out.stem}-exclusions.csv")
    write_table(path, Exclusion._fields, excluded, append=append)
    return dict(Counter(exclusion.reason for exclusion in excluded).most_common())


def write_table(
    path: Path, columns: Sequence[str], records: Iterable[Sequence[str]], *, append: bool = False
) -> None:
    """Write a CSV file, or add to the one that has these columns.

    Raises:
        ManifestError: What is there to add to has other columns.
    """
    further = append and path.exists()
    if further and path.read_text(encoding="utf-8").split("\n", 1)[0] != ",".join(columns):
        raise ManifestError(f"{path.name} has other columns; nothing can be added to it")
    with path.open("a" if further else "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not further:
            writer.writerow(columns)
        writer.writerows(records)


def add_command(commands: Any) -> None:
    """Add `manifest` to argparse's subparsers."""
    command = commands.add_parser("manifest", help="make a manifest of a public set or a folder")
    command.add_argument("kind", choices=(FOLDER, *LAYOUTS))
    command.add_argument("metadata", type=Path, help="the set's own table; or the folder")
    command.add_argument("--out", type=Path, default=Path("manifest.csv"))
    command.add_argument("--labels", type=Path, help="CSV of file_name and image_view (F or L)")
    command.add_argument("--source", help="name of the source, instead of the set's")
    command.add_argument("--patient", help="folder: regular expression for the patient in a path")
    command.add_argument("--prefix", default="", help="folder that the set's own folders lie in")
    command.add_argument("--append", action="store_true", help="add to the manifest that is there")
    command.set_defaults(run_command=_run)


def _run(options: argparse.Namespace) -> None:
    if options.kind == FOLDER:
        source = options.source or options.metadata.resolve().name
        found = adapt_folder(options.metadata, source, options.patient)
    else:
        found = adapt(options.kind, options.metadata, options.labels, options.source)
    rows, exclusions = [], []
    for item in found:
        file = str(PurePosixPath(options.prefix, item.file))
        if isinstance(item, Row):
            rows.append(replace(item, file=file))
        else:
            exclusions.append(item._replace(file=file))
    reasons = write_manifest(rows, exclusions, options.out, append=options.append)
    print(f"{len(rows)} images in {options.out}")  # noqa: T201  # a command prints
    for reason, count in reasons.items():
        print(f"{count} excluded: {reason}")  # noqa: T201
