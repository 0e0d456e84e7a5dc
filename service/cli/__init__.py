"""The `cxrview` command: `main` reads the command line, each command has a module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from service.cli import backfill, classify, corrections, deliveries, key, models, receive, serve

COMMANDS = (serve, receive, classify, models, key, deliveries, backfill, corrections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    commands = parser()
    options = commands.parse_args(arguments)
    if "run_command" not in options:
        commands.print_help()
        return 2
    code: int = options.run_command(options)
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; docs/cli.md is made from its help."""
    commands = argparse.ArgumentParser(
        prog="cxrview", description="Frontal or lateral, from the pixels of a chest radiograph."
    )
    commands.add_argument("--version", action="version", version=f"cxrview {version('cxrview')}")
    subparsers = commands.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(subparsers)
    return commands


if __name__ == "__main__":
    sys.exit(main())
