"""The commands of training: the study whole, or a model's life step by step."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from model_store import StoreError
from service.imaging import ImageError
from service.inference import NetworkError
from training.data import make_manifest, readers
from training.data.manifest import ManifestError
from training.export import recalibrate, reread
from training.export.publication import PublishError

# Faults of what was given, whose message is enough
EXPECTED = (
    *(ManifestError, ImageError, NetworkError, PublishError, StoreError),
    *(FloatingPointError, ValueError, OSError),
)
# The extra `calibration` is enough for these
WITHOUT_TORCH = {
    "manifest": make_manifest,
    "merge-readers": readers,
    "calibrate": recalibrate,
    "reread": reread,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 1 with a message when it did not."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser(words[0] if words else None).parse_args(words)
    options.command_line = shlex.join(["python", "-m", "training", *words])
    try:
        options.run_command(options)
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on (a study: with --resume)", file=sys.stderr)
        return 130
    return 0


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """All commands and options; where `command` needs no torch, those without it only."""
    top = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    if command not in WITHOUT_TORCH:
        try:
            from training.commands import add_commands
        except ModuleNotFoundError as error:
            top.error(
                f"no module {error.name}: install the extra `training`; without it, there are "
                f"{', '.join(WITHOUT_TORCH)}"
            )
        add_commands(commands)
    for module in WITHOUT_TORCH.values():
        module.add_command(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
