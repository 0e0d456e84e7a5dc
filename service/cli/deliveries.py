"""The options of `cxrview deliveries`; the database is loaded when it runs."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from service.cli.console import complain
from service.dicom.entries import LARGEST_ID, STATES

REFUSED = 2  # exit code: the command cannot be run


def add_command(commands: Any) -> None:
    """`deliveries list|retry|drop [ID ...] [--outbox URL] [options]`."""
    parser = commands.add_parser(
        "deliveries", help="list results that wait for their destinations, retry or drop them"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list deliveries, the newest first")
    listing.add_argument("--state", choices=STATES, help="only those; default: all")
    listing.add_argument("--destination", metavar="NAME", help="only those of this destination")
    listing.add_argument("--limit", type=number, default=100, metavar="N", help="default: 100")
    retrying = actions.add_parser("retry", help="send dead or pending deliveries at once")
    dropping = actions.add_parser("drop", help="never deliver them, and remove their payloads")
    for name, action in (("list", listing), ("retry", retrying), ("drop", dropping)):
        action.add_argument(
            "--outbox",
            metavar="URL",
            default=_url(),
            help="database; default: CXRVIEW_OUTBOX, or outbox.sqlite beside CXRVIEW_DESTINATIONS",
        )
        action.set_defaults(run_command=_run, action=name)
    for action in (retrying, dropping):
        chosen = action.add_mutually_exclusive_group(required=True)
        chosen.add_argument(
            "ids", nargs="*", type=number, default=[], metavar="ID", help="deliveries"
        )
        chosen.add_argument("--dead", metavar="NAME", help="all dead letters of this destination")


def number(text: str) -> int:
    """A number from 1 to LARGEST_ID.

    Raises:
        ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_ID:
        raise argparse.ArgumentTypeError(f"{text[:30]!r} is no number from 1 to {LARGEST_ID}")
    return int(text)


def _url() -> str | None:
    if url := os.environ.get("CXRVIEW_OUTBOX"):
        return url
    if destinations := os.environ.get("CXRVIEW_DESTINATIONS"):
        return f"sqlite:///{Path(destinations).absolute().with_name('outbox.sqlite')}"
    return None


def _run(options: argparse.Namespace) -> int:
    if options.outbox is None:
        complain("name the outbox: --outbox sqlite:///FILE, CXRVIEW_OUTBOX or CXRVIEW_DESTINATIONS")
        return REFUSED
    file = options.outbox.removeprefix("sqlite:///")
    if file != options.outbox and not Path(file.partition("?")[0]).is_file():
        complain(f"there is no outbox {options.outbox}")
        return REFUSED
    try:
        loaded = import_module("service.cli.delivery_actions")
    except ImportError as error:
        complain(f"{error}; this needs the extra `dicom`: pip install '.[dicom]'")
        return REFUSED
    code: int = loaded.run(options)
    return code
