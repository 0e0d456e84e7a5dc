"""The options of `cxrview backfill` and `cxrview audit`; their packages load when they run."""

from __future__ import annotations

import argparse
import os
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from service.cli.console import complain
from service.cli.model_options import add_model_options

FORMATS = ("parquet", "ndjson", "csv")
ENGINES = ("local", "ray")
REFUSED = 2  # exit code: the command cannot be run


def add_command(commands: Any) -> None:
    """`backfill [SOURCE] --out FOLDER [options]`, `audit RESULTS --out FOLDER`, and `export`."""
    backfill = commands.add_parser(
        "backfill", help="classify all images of an archive, each exactly once"
    )
    add_backfill_options(backfill)
    backfill.set_defaults(run_command=partial(_run, "backfill_job", "run_backfill"))
    audit = commands.add_parser(
        "audit", help="write a backfill's certificate and header audit from its results"
    )
    _add_audit_options(audit)
    audit.set_defaults(run_command=partial(_run, "backfill_job", "run_audit"))
    export = commands.add_parser(
        "export", help="write the results of a backfill into one sorted file"
    )
    _add_export_options(export)
    export.set_defaults(run_command=partial(_run, "export", "run"))


def _run(module: str, function: str, options: argparse.Namespace) -> int:
    """Import the job module only here: it takes a while, and needs the extra `backfill`."""
    try:
        loaded = import_module(f"service.cli.{module}")
    except ImportError as error:
        complain(f"{error}; this needs the extra `backfill`: pip install '.[backfill]'")
        return REFUSED
    code: int = getattr(loaded, function)(options)
    return code


def add_backfill_options(parser: argparse.ArgumentParser) -> None:
    """The options of `cxrview backfill`."""
    add = parser.add_argument
    add(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="folder, list, zip, tar, s3://... or DICOMweb at https://...; not with --resume",
    )
    add("--out", type=Path, required=True, help="folder of results, ledger and certificate")
    add(
        "--option",
        action="append",
        dest="options",
        metavar="NAME=VALUE",
        help="an option of the source; may be repeated",
    )
    add("--format", choices=FORMATS, help="file format of the results; default: parquet")
    add(
        "--ledger",
        metavar="URL",
        default=os.environ.get("CXRVIEW_BACKFILL_LEDGER"),
        help="database that workers share; default: CXRVIEW_BACKFILL_LEDGER or a file in --out",
    )
    add(
        "--engine",
        choices=ENGINES,
        default="local",
        help="run in this process or on a Ray cluster; default: local",
    )
    add_model_options(parser, None)
    add("--resume", action="store_true", help="resume the job in --out")
    add("--allow-empty", action="store_true", help="accept an archive without images")
    add("--retry-failed", action="store_true", help="resume, and retry failed images")
    add("--limit", type=int, metavar="N", help="pause after N images")
    add(
        "--max-errors",
        type=_share,
        default=1.0,
        metavar="1%",
        help="stop if a larger share of images fails",
    )
    add(
        "--chunk",
        type=int,
        default=1000,
        metavar="N",
        help="images per lease and per file of results",
    )
    add(
        "--lease-seconds",
        type=float,
        default=60,
        help="seconds until the images of a dead worker are leased again",
    )
    add("--fetchers", type=int, default=4, metavar="N", help="files read at the same time")


def _share(text: str) -> float:
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share, as 1% or 0.01")
    return value


def _add_audit_options(parser: argparse.ArgumentParser) -> None:
    _add_results(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder for certificate and audit"
    )


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    _add_results(parser)
    endings = ", ".join(f".{form}" for form in FORMATS)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"output file; its suffix chooses the format: {endings}",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS",
        help="the --out of a backfill, or the folder of results in it",
    )
