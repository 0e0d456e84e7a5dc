"""The progress line of `cxrview backfill`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from service.backfill.engines.local import Progress
from service.backfill.engines.task import Engine
from service.backfill.ledger.jobs import Job


@contextmanager
def progress_line(console: Console) -> Iterator[Callable[[Engine, Job], None]]:
    """A progress line, if the console is a terminal; call what it yields to bring it up to date."""
    columns = (
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.fields[found]}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[codes]}"),
    )
    with Bar(*columns, console=console) as progress:
        task = progress.add_task("", total=None, found="?", speed="", codes="")

        def show(work: Engine, job: Job) -> None:
            done, found = work.progress, job.counts["found"]
            settled = found - job.open
            rate = done.images_per_second
            megabytes = rate * done.bytes / max(done.images, 1) / 1e6
            progress.update(
                task,
                completed=max(settled, done.images),
                total=found if job.complete else None,
                found=f"{found:,}" if job.complete else f"{found:,} found so far",
                speed=f"{rate:.1f} images/s, {megabytes:.1f} MB/s",
                codes=", ".join(_apart(done)),
            )

        yield show


def _apart(done: Progress) -> list[str]:
    """What the progress line counts apart: no chest radiographs, and the most frequent codes."""
    counts = [("not_chest", done.not_chest)] if done.not_chest else []
    return [f"{name} {count:,}" for name, count in (*counts, *done.codes.most_common(3))]
