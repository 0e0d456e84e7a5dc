"""`cxrview models`: list the model versions with their figures."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from model_store import DEFAULT_MODEL, ModelCard, Proportion, Store, StoreError
from service.cli.console import complain
from service.cli.model_options import add_model_store


def add_command(commands: Any) -> None:
    """`models [--model-store FOLDER]`."""
    parser = commands.add_parser("models", help="list model versions and their accuracy")
    add_model_store(parser)
    parser.set_defaults(run_command=run)


def run(options: argparse.Namespace) -> int:
    """Print all versions, and their heads; returns 1 if one cannot be read, 2 if there is none."""
    store = Store(options.model_store)
    references = store.list()
    if not references:
        complain(f"no model versions in {options.model_store}")
        return 2
    table = Table("model", "", "input", "test accuracy (95 % CI)", "Figure 6", "derived from")
    heads = Table("model", "head", "images", "accuracy (95 % CI)", "AUROC")
    failed = 0
    for reference in references:
        try:
            card = store.load(reference).card
        except StoreError as error:
            complain(str(error))
            failed = 1
            continue
        mark = "default" if reference == DEFAULT_MODEL else ""
        size = f"{card.preprocess.size} px, v{card.preprocess.version}"
        table.add_row(reference, mark, size, *_figures(card), card.derived_from or "")
        for row in card.head_evaluations:
            auroc = "" if row.auroc is None else f"{row.auroc:.4f}"
            heads.add_row(reference, row.task, row.name, _proportion(row.accuracy), auroc)
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(table)
    if heads.row_count:
        console.print(heads)
    return failed


def _figures(card: ModelCard) -> tuple[str, str]:
    """Accuracy on the held-out images, and on their transformations of the paper's Figure 6."""
    found = {each.name: each.accuracy for each in card.evaluations}
    held_out = grid = ""
    if test := found.get("test"):
        held_out = _proportion(test)
    if transformed := found.get("test, Figure 6 grid"):
        grid = f"{transformed.count} of {transformed.n}"
    return held_out, grid


def _proportion(found: Proportion) -> str:
    low, high = found.ci95
    return f"{found.value:.2%} ({low:.2%} to {high:.2%}), n = {found.n}"
