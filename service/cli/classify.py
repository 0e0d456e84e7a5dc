"""`cxrview classify`: files and folders, without a service."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Self, get_args

from rich.console import Console

from cxrview import Classifier, Result, Source
from cxrview.results import COLUMNS, as_table
from model_store import DEFAULT_MODEL, AnsweredView, Orientation, StoreError, View
from service.api.environment import SettingsError, read_settings
from service.api.ndjson import line_of
from service.api.problems import problem_of
from service.backfill.results.formulas import marked
from service.cli.console import complain
from service.cli.model_options import add_model_options
from service.inference import Classification, NetworkError

STANDARD_INPUT = "-"
# The code of files that are skipped in folders; a file that was named itself must be an image
NO_IMAGE = "unrecognised_format"
# Exit codes: every image was classified; some failed; nothing was done; stopped by Ctrl-C
DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def add_command(commands: Any) -> None:
    """`classify PATH... [options]`."""
    parser = commands.add_parser("classify", help="classify files and folders in this process")
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="file or folder; - reads one file from standard input",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const=Lines, help="write NDJSON")
    form.add_argument("--csv", action="store_const", dest="form", const=Csv, help="write CSV")
    form.add_argument(
        "--parquet",
        action="store_const",
        dest="form",
        const=Parquet,
        help="write Parquet; requires --out",
    )
    add("--out", type=Path, metavar="FILE", help="output file; default: standard output")
    add_model_options(parser, DEFAULT_MODEL)
    add("--jobs", type=int, default=0, metavar="N", help="decode workers; default: number of cores")
    parser.set_defaults(run_command=run, form=Text)


def run(options: argparse.Namespace) -> int:
    """Classify, and write each result at once, so that results before Ctrl-C are kept."""
    if options.form is Parquet and options.out is None:
        complain("--parquet needs --out FILE")
        return REFUSED
    try:
        limit = read_settings().max_upload_bytes
        classifier = Classifier(
            options.model,
            model_store=options.model_store,
            provider=options.provider,
            jobs=options.jobs,
            max_bytes=limit,
        )
    except (SettingsError, StoreError, NetworkError) as error:
        complain(str(error))
        return REFUSED
    summary = Summary(frozenset(options.paths))
    code = DONE
    try:
        with classifier, _written(options) as file, options.form(file) as output:
            for result in classifier.classify_many(_sources(options.paths)):
                named = _named(result, options.paths)
                if summary.add(named):
                    output.add(named)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # for example after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (OSError, ImportError) as error:
        complain(str(error))
        return REFUSED
    return summary.tell(options.paths) or code


def _sources(paths: list[str]) -> Iterator[Source]:
    for path in paths:
        yield sys.stdin.buffer.read() if path == STANDARD_INPUT else path


def _named(result: Result, paths: list[str]) -> Result:
    """Name the result of standard input `-`, instead of its number."""
    piped = [str(number) for number, path in enumerate(paths) if path == STANDARD_INPUT]
    return replace(result, name=STANDARD_INPUT) if result.name in piped else result


@contextmanager
def _written(options: argparse.Namespace) -> Iterator[IO[Any]]:
    if options.out is None:
        yield sys.stdout
    elif options.form is Parquet:
        with options.out.open("wb") as file:
            yield file
    else:
        with options.out.open("w", newline="", encoding="utf-8") as text:
            yield text


class Summary:
    """Counts results, for the last line.

    Args:
        named: The paths of the command line.
    """

    def __init__(self, named: frozenset[str]) -> None:
        self._named = named
        self._views: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._skipped = 0

    def add(self, result: Result) -> bool:
        """Count a result; False if it is skipped: not an image, in a folder."""
        if (found := result.classification) is not None:
            self._views[found.view] += 1
            self._views["review"] += found.review
            return True
        if result.error_code == NO_IMAGE and result.name not in self._named:
            self._skipped += 1
            return False
        self._failed[result.error_code or ""] += 1
        return True

    def tell(self, paths: list[str]) -> int:
        """Print the last line; returns the exit code."""
        answered = sum(self._views[view] for view in get_args(AnsweredView))
        if not answered and not self._failed:
            what = f"{self._skipped} files, but no image" if self._skipped else "no files"
            complain(f"{what} in {', '.join(paths)}")
            return REFUSED
        words = [f"{self._views[view]} {view}" for view in get_args(View)]
        if others := self._views["not_chest"]:
            words.append(f"{others} not_chest")
        words.append(f"{self._views['review']} of them for review")
        if failed := self._failed.total():
            codes = ", ".join(f"{code} {count}" for code, count in self._failed.most_common())
            words.append(f"{failed} failed ({codes})")
        if self._skipped:
            words.append(f"{self._skipped} skipped (no images)")
        Console(stderr=True).print(", ".join(words), highlight=False, soft_wrap=True)
        return FAILED if failed else DONE


class Output(ABC):
    """Writes results in one format."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()

    @abstractmethod
    def add(self, result: Result) -> None:
        """Write one result."""


class Text(Output):
    """Text for people: view, PFI, path, and remarks."""

    def add(self, result: Result) -> None:  # noqa: D102
        name = _printable(result.name)
        if (found := result.classification) is None:
            assert result.error is not None
            problem = problem_of(result.error)
            words = ("failed", "", name, _printable(f"{problem.code}: {problem.detail}"))
        else:
            words = (found.view, f"{found.pfi:.4f}", name, ", ".join(_remarks(found)))
        self._file.write("{:9} {:6}  {}  {}".format(*words).rstrip() + "\n")
        self._file.flush()


def _remarks(found: Classification) -> Iterator[str]:
    """What a person should know besides the view."""
    if found.review:
        yield "review"
    yield from found.warnings
    if found.orientation is not None:
        yield from _lies(found.orientation)
    if (header := found.header) is None:
        return
    if header.view_position is not None and found.view != "not_chest":
        agrees = {True: "agrees", False: "DISAGREES", None: "names neither view"}
        yield f"header {_printable(header.view_position)} {agrees[header.agrees]}"
    if header.body_part_examined is not None and header.body_part_agrees is False:
        yield f"body part {_printable(header.body_part_examined)} DISAGREES"


def _lies(orientation: Orientation) -> Iterator[str]:
    if orientation.rotation_degrees:
        yield f"turn by {orientation.rotation_degrees}"
    if orientation.inverted:
        yield "inverted"
    if orientation.mirrored:
        yield "mirrored"


class Lines(Output):
    """NDJSON, as from `POST /v1/classify/batch`."""

    def add(self, result: Result) -> None:  # noqa: D102
        outcome = result.classification or result.error
        assert outcome is not None
        self._file.write(line_of(result.name, outcome))
        self._file.flush()


class Csv(Output):
    """CSV with a header; texts that a spreadsheet would run as a formula get an apostrophe."""

    def __enter__(self) -> Self:
        self._writer = csv.DictWriter(self._file, list(COLUMNS), lineterminator="\n")
        self._writer.writeheader()
        return self

    def add(self, result: Result) -> None:  # noqa: D102
        row = result.row()
        self._writer.writerow(
            {
                name: marked(value) if isinstance(value, str) else value
                for name, value in row.items()
            }
        )
        self._file.flush()


class Parquet(Output):
    """A Parquet file, written in groups of rows; after Ctrl-C the file can be read."""

    def __enter__(self) -> Self:
        self._rows: list[Result] = []
        self._writer: Any = None
        return self

    def add(self, result: Result) -> None:  # noqa: D102
        self._rows.append(result)
        if len(self._rows) >= 1000:
            self._flush()

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        table = as_table(self._rows)
        if self._writer is None:
            from pyarrow import parquet

            self._writer = parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)
        self._rows.clear()


def _printable(name: str) -> str:
    """A name without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
