"""The options that choose a model and where it runs, which several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_store import DEFAULT_MODEL, DEFAULT_ROOT


def add_model_options(parser: argparse.ArgumentParser, default_model: str | None) -> None:
    """`--model`, `--model-store` and `--provider`.

    Args:
        parser: Of the command.
        default_model: None: the command itself chooses `DEFAULT_MODEL`, if nothing else does.
    """
    about = f"model as name/version; default: {DEFAULT_MODEL}"
    parser.add_argument("--model", default=default_model, help=about)
    add_model_store(parser)
    parser.add_argument(
        "--provider",
        choices=("cpu", "cuda", "tensorrt"),
        default="cpu",
        help="ONNX Runtime execution provider; default: cpu",
    )


def add_model_store(parser: argparse.ArgumentParser) -> None:
    """`--model-store`."""
    parser.add_argument(
        "--model-store", type=Path, default=DEFAULT_ROOT, help="folder of model versions"
    )
