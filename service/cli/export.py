"""`cxrview export`: the results of a backfill as one sorted file."""

from __future__ import annotations

import argparse

import pyarrow as pa
from rich.console import Console

from service.backfill.results.atomic_files import publish, write
from service.backfill.results.columns import SCHEMA
from service.backfill.results.sinks import SINKS, PartError, read_rows, results_in
from service.cli.console import complain

DONE, REFUSED = 0, 2  # exit codes


def run(options: argparse.Namespace) -> int:
    """Write all rows into one file, sorted by locator; they must fit into memory."""
    form = options.out.suffix.removeprefix(".")
    try:
        if form not in SINKS:
            raise ValueError(f"{options.out}: its name must end with one of {', '.join(SINKS)}")
        rows = read_rows(results_in(options.results))
        table = pa.Table.from_batches(rows, SCHEMA).sort_by("locator")
        publish(write(options.out, SINKS[form].encode(table)))
    except (OSError, PartError, ValueError) as error:
        complain(str(error))
        return REFUSED
    Console(stderr=True).print(f"{table.num_rows:,} rows in {options.out}", highlight=False)
    return DONE
