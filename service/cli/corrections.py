"""The options of `cxrview corrections`; its packages load when it runs."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from service.cli.console import complain

REFUSED = 2  # exit code: the command cannot be run


def add_command(commands: Any) -> None:
    """`corrections RUN {--accepted FILE | --reviewed} [--apply URL [--yes]]`; `--undo LOG`."""
    parser = commands.add_parser(
        "corrections", help="propose corrected headers for images of a backfill's worklist"
    )
    add = parser.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="the --out of a finished backfill")
    add(
        "--accepted",
        type=Path,
        metavar="FILE",
        help="CSV of decisions: sop_instance_uid, decision (frontal or lateral)",
    )
    add(
        "--reviewed",
        action="store_true",
        help="instead: the decisions on the page Review, of a job of the service in RUN",
    )
    add(
        "--ledger",
        metavar="URL",
        help="ledger of --reviewed (CXRVIEW_BACKFILL_LEDGER); default: the file beside RUN",
    )
    add("--out", type=Path, metavar="FOLDER", help="folder of proposals; default: RUN/corrections")
    add(
        "--apply",
        metavar="URL",
        help="Orthanc that gets corrected copies; without --yes, only say what would be done",
    )
    add("--undo", type=Path, metavar="LOG", help="delete the copies that this log names")
    add(
        "--log",
        type=Path,
        metavar="FILE",
        help="log of --apply, for --undo; default: orthanc-log.ndjson in --out",
    )
    add("--yes", action="store_true", help="change Orthanc; without it, nothing is changed")
    parser.set_defaults(run_command=run)


def run(options: argparse.Namespace) -> int:
    """Import the working module only here: it needs the extra `backfill`."""
    if problem := _misuse(options):
        complain(problem)
        return REFUSED
    try:
        loaded = import_module("service.cli.corrections_run")
    except ImportError as error:
        complain(f"{error}; this needs the extra `backfill`: pip install '.[backfill]'")
        return REFUSED
    code: int = loaded.run(options)
    return code


def _misuse(options: argparse.Namespace) -> str | None:
    if options.undo:
        others = [options.run, options.accepted, options.out, options.apply, options.log]
        others += [options.reviewed, options.ledger]
        return "--undo LOG takes no other option than --yes" if any(others) else None
    if not options.run or bool(options.accepted) == options.reviewed:
        return "name a RUN and its decisions, --accepted FILE or --reviewed, or a log to --undo"
    if options.ledger and not options.reviewed:
        return "--ledger is for --reviewed"
    if options.yes and not options.apply:
        return "--yes is for --apply and --undo"
    return None
