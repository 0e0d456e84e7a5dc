"""Write the pages that follow from the code: settings.md, cli.md, models.md and conformance.md.

    python docs/reference.py

A test fails where they are stale.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import get_args

from conformance import conformance

from model_store import DEFAULT_MODEL, DataSource, HeadCutoff, ModelCard, Store, Task
from service.api.settings import PREFIX, Settings
from service.cli import main
from training.evaluate.heads import as_heads_table
from training.evaluate.metrics import as_table

HERE = Path(__file__).parent
WIDTH = 100  # of the help of a command
MIB = 2**20
MORE = {  # above the help of a command
    "serve": "[Settings](settings.md) has all variables.\n\n",
    "classify": "[The columns](python.md#many-images) of `--csv` and `--parquet`, and the "
    "[exit codes](quickstart.md#from-a-folder-to-a-csv).\n\n",
    "models": "[Models](models.md) has more of each version, [choosing a model](choosing.md) compares "
    "them.\n\n",
    "key": "[Access](access.md#authentication) says what each permission opens.\n\n",
    "backfill": "[Whole archives](backfill.md#the-command) explains the options and the exit codes, "
    "[sources](backfill-sources.md) the options of each source, "
    "[results](backfill-results.md#columns-of-a-row) the columns.\n\n",
    "audit": "[Results](backfill-results.md#the-certificate) describes the certificate and the audit.\n\n",
    "export": "[Results](backfill-results.md#columns-of-a-row) explains the columns.\n\n",
    "corrections": "[Corrections](corrections.md) describes decisions, proposals and the log.\n\n",
}


def settings() -> str:
    """Every setting with its default."""
    lines = [
        "# Settings",
        "",
        "The service reads these environment variables once, at its start. An unknown variable with the",
        "prefix `CXRVIEW_` is an error, so a misspelt one cannot pass unnoticed. Units are in the names.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{PREFIX}{name.upper()}` | {_default(name)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if name == "model_store":
        return "the package's own"
    if field.default_factory is not None:
        return "cores"
    value = field.default
    if value is None or value in ((), ""):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("_bytes") and value % 1024 == 0:
        return f"{value // MIB} MiB" if value % MIB == 0 else f"{value // 1024} KiB"
    return f"{value:,}" if isinstance(value, int) else str(value)


def cli() -> str:
    """The help of every command, and the pages that have more."""
    os.environ["COLUMNS"] = str(WIDTH)
    overview = _help()
    names = re.findall(r"^    (\w+) ", overview, re.MULTILINE)
    commands = [
        f"## cxrview {name}\n\n{MORE.get(name, '')}```text\n{_help(name)}\n```\n" for name in names
    ]
    return "\n".join([f"# The command\n\n```text\n{overview}\n```\n", *commands])


def _help(*command: str) -> str:
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        main([*command, "--help"])
    return text.getvalue().rstrip()


def models() -> str:
    """The card of every version."""
    store = Store()
    cards = [store.load(reference).card for reference in store.list()]
    lines = [
        "# Models",
        "",
        "What the cards of the shipped versions say; `GET /v1/model` returns the whole card of the one that",
        "serves. Which one to pick is in [choosing a model](choosing.md).",
        "",
        "Frontal is the positive class. Intervals are exact (Clopper-Pearson, 95 %). No patient is in training",
        "and test. `review` is the share of images that are marked for a person. The cutoff is the `threshold`",
        "of the card and of an answer. [Children](children.md) are augmented copies of an image. The sets are",
        "",
        "- *test*: test images, and those of each source",
        "- *Figure 6*: the test images, changed in the paper's four ways; *grid*: all four together",
        "- *fit on ..., test on ...*: another network of the same recipe, trained without the source that tests it",
        "- *corruptions*: the test images, each changed in one of 23 ways",
        "- *left out: ...*: another network of the same recipe, trained without these sources; after the colon, the",
        "  source whose images are counted",
    ]
    return "\n".join(lines) + "\n" + "".join(map(_card, reversed(cards)))


def _card(card: ModelCard) -> str:
    reference = f"{card.name}/{card.version}"
    default = " (default)" if reference == DEFAULT_MODEL else ""
    spec, plateau, band = card.preprocess, card.plateau, card.review_band
    derived = f" It is derived from `{card.derived_from}`." if card.derived_from else ""
    sources = "".join(
        f"- {each.name}: {each.use}; {_images(each)}; {each.licence}\n" for each in card.data
    )
    limitations = "".join(f"- {each}\n" for each in card.limitations)
    return f"""
## {reference}{default}

{card.architecture}; input {spec.size} x {spec.size}, preprocessing version {spec.version}.{derived}
A PFI of {card.threshold:.4f} or more is frontal: the {card.threshold_rule} of the Youden plateau from
{plateau.low:.4f} to {plateau.high:.4f}, found on {plateau.images:,} images ({plateau.measured_on}). A PFI from {band.low:.3f} to
{band.high:.3f} is marked for review.

{as_table(card.evaluations)}
{_heads(card)}
Limitations:

{limitations}
Data:

{sources}"""


def _images(source: DataSource) -> str:
    others = f", {source.not_chest} other" if source.not_chest else ""
    return f"{source.frontal} frontal, {source.lateral} lateral{others}"


def _heads(card: ModelCard) -> str:
    """The results of the heads beside that of the view; nothing for a model without them."""
    if not card.head_evaluations:
        return ""
    cutoffs = "".join(
        f"- {task}: {cutoff.threshold:.4f} or more ({cutoff.threshold_rule}); review from "
        f"{cutoff.review_band.low:.3f} to {cutoff.review_band.high:.3f}\n"
        for task in get_args(Task)
        if isinstance(cutoff := getattr(card.heads, task), HeadCutoff)
    )
    return f"\nOther heads:\n\n{cutoffs}\n{as_heads_table(card.head_evaluations)}\n"


PAGES = {
    "settings.md": settings,
    "cli.md": cli,
    "models.md": models,
    "conformance.md": conformance,
}


def write() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page())


if __name__ == "__main__":
    write()
