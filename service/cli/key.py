"""`cxrview key`: make an API key."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from service.api.auth.clients import PERMISSIONS
from service.api.auth.keys import KeyFileError, new_key, read_clients
from service.cli.console import complain


def add_command(commands: Any) -> None:
    """`key NAME PERMISSION... --file FILE`."""
    parser = commands.add_parser("key", help="create an API key and add its hash to a key file")
    parser.add_argument("name", metavar="NAME", help="name of the client")
    parser.add_argument(
        "permissions",
        nargs="+",
        choices=PERMISSIONS,
        metavar="PERMISSION",
        help=", ".join(PERMISSIONS),
    )
    parser.add_argument(
        "--file", type=Path, required=True, help="key file of the service (CXRVIEW_KEYS)"
    )
    parser.set_defaults(run_command=run)


def run(options: argparse.Namespace) -> int:
    """Create a key, add its hash to the file, and print the key, which is stored nowhere."""
    try:
        key, line = new_key(options.name, frozenset(options.permissions))
        if options.file.exists():
            read_clients(options.file)  # nothing is added to a file that is no key file
        # A new file is readable by its owner only; the operator may widen that
        opened = os.open(options.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(opened, "a") as file:
            file.write(f"{line}\n")
    except (KeyFileError, OSError) as error:
        complain(str(error))
        return 2
    sys.stdout.write(f"{key}\n")
    return 0
