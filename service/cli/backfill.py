"""The options of `cxrview backfill` and `cxrview audit`; their packages load when they run."""

from __future__ import annotations

import argparse
import os
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from model_store import DEFAULT_MODEL, DEFAULT_ROOT
from service.cli.console import complain

FORMATS = ("parquet", "ndjson", "csv")
ENGINES = ("local", "ray")
REFUSED = 2  # exit code: the command cannot be run


def add_command(commands: Any) -> None:
    """`backfill [SOURCE] --out FOLDER [options]`, `audit RESULTS --out FOLDER`, and `export`."""
    backfill = commands.add_parser("backfill", help="classify an archive, every image once")
    add_backfill_options(backfill)
    backfill.set_defaults(run_command=partial(_run, "backfill_job", "run_backfill"))
    audit = commands.add_parser(
        "audit", help="certificate and header audit of a backfill's results"
    )
    _add_audit_options(audit)
    audit.set_defaults(run_command=partial(_run, "backfill_job", "run_audit"))
    export = commands.add_parser("export", help="the results of a backfill as one sorted file")
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
        help="folder, list, zip, tar, s3://... or DICOMweb: https://...; --resume needs none",
    )
    add("--out", type=Path, required=True, help="folder of results, ledger and certificate")
    add("--option", action="append", metavar="NAME=VALUE", help="of the source")
    add("--format", choices=FORMATS, help="of the results; default: parquet")
    add(
        "--ledger",
        metavar="URL",
        default=os.environ.get("CXRVIEW_BACKFILL_LEDGER"),
        help="a database for several workers; default: CXRVIEW_BACKFILL_LEDGER, or a file in --out",
    )
    add("--engine", choices=ENGINES, default="local", help="this process, or a Ray cluster")
    add("--model", help=f"name/version; default: {DEFAULT_MODEL}")
    add("--model-store", type=Path, default=DEFAULT_ROOT)
    add("--provider", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    add("--resume", action="store_true", help="go on with the job that is in --out")
    add("--allow-empty", action="store_true", help="an archive without images is no error")
    add("--retry-failed", action="store_true", help="as --resume, and try again what failed")
    add("--limit", type=int, metavar="N", help="stop after so many images; --resume goes on")
    add("--max-errors", type=_share, default=1.0, metavar="1%", help="stop where more fail")
    add("--chunk", type=int, default=1000, metavar="N", help="images of one lease and one file")
    add("--lease-seconds", type=float, default=60, help="until others take what a dead worker had")
    add("--fetchers", type=int, default=4, metavar="N", help="files that are read at a time")


def _share(text: str) -> float:
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share, as 1% or 0.01")
    return value


def _add_audit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", type=Path, metavar="RESULTS", help="of a backfill: its --out, or results in it"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where to write the pages"
    )


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", type=Path, metavar="RESULTS", help="of a backfill: its --out, or results in it"
    )
    endings = ", ".join(f".{form}" for form in FORMATS)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"its ending says which: {endings}"
    )
