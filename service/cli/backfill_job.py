"""`cxrview backfill` and `cxrview audit`."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from rich.console import Console

from model_store import DEFAULT_MODEL, ModelVersion, Store, StoreError
from service.backfill.engines.local import TooManyFailuresError
from service.backfill.engines.ray_placement import ClusterError
from service.backfill.engines.task import Engine, Task
from service.backfill.job_folder import BusyError, alone, conclude, ledger_in
from service.backfill.ledger.jobs import Job, LedgerError, model_of
from service.backfill.ledger.ledger import Ledger
from service.backfill.report.certificate import Certificate
from service.backfill.report.write import PAGE, audit
from service.backfill.results.rows import RemoteSource, Source, SourceError
from service.backfill.sources.opening import open_source
from service.backfill.sources.options import OptionsError
from service.cli.backfill_progress import progress_line
from service.cli.console import complain
from service.inference import NetworkError, open_pipeline

REFRESH_SECONDS = 0.25
# Exit codes: every image has an outcome; some have none; wrong options; no image; stopped by Ctrl-C
DONE, INCOMPLETE, REFUSED, EMPTY, PAUSED = 0, 1, 2, 3, 130


class RefusedError(Exception):
    """The command cannot be run as given."""


def run_audit(options: argparse.Namespace) -> int:
    """Write certificate and header audit again, from the results alone."""
    try:
        certificate = audit(options.results, options.out)
    except (OSError, ValueError) as error:
        return _refuse(error)
    return _conclude(Console(stderr=True), certificate, options.out)


def run_backfill(options: argparse.Namespace) -> int:
    """Work until every image has an outcome, the user interrupts, or an error stops the job."""
    console = Console(stderr=True)
    try:
        with _opened_ledger(options) as ledger:
            before = _job_before(ledger, options)
            _fill_in(options, before.description if before else {})
            version = Store(options.model_store).load(options.model)
            source = open_source(options.source, _source_options(options))
            if isinstance(source, RemoteSource):
                _check(source, options.source)
            job = _opened_job(ledger, options, version, before)
            if options.retry_failed:
                again = ledger.retry_failed(job.id)
                console.print(f"{again} images are tried again")
            task = _task(options, job)
            with ENGINES[options.engine](task, ledger, source, version) as work:
                job, interrupted = _worked(work, ledger, job, console)
            if job.state != "done":
                console.print(f"{job.open} of {job.counts['found']} images are left: --resume")
                return PAUSED if interrupted else INCOMPLETE
            if not work.ended:
                console.print("done; another worker writes the certificate")
                return DONE
            certificate = conclude(ledger, job, options.out, may_be_empty=options.allow_empty)
    except (OptionsError, SourceError, TooManyFailuresError, RefusedError, LedgerError) as error:
        return _refuse(error)
    except (StoreError, NetworkError, ClusterError, OSError) as error:
        return _refuse(error)
    return _conclude(console, certificate, options.out)


def _check(source: RemoteSource, name: str) -> None:
    """A wrong address is told at once, and not after the patience of a job.

    Raises:
        RefusedError: The archive does not answer.
    """
    try:
        source.check()
    except SourceError as error:
        raise RefusedError(f"{name}: {error}") from None


def _source_options(options: argparse.Namespace) -> dict[str, str]:
    return dict(_pair(each) for each in options.options)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RefusedError(f"--option {text}: NAME=VALUE is expected")
    return name, value


@contextmanager
def _opened_ledger(options: argparse.Namespace) -> Iterator[Ledger]:
    """The ledger of --ledger, or else the one in the folder of results, which is locked."""
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if options.ledger is None:
            try:
                stack.enter_context(alone(options.out))
            except BusyError as error:
                raise RefusedError(f"{error}; several can share a job with --ledger") from None
        ledger = Ledger(options.ledger or ledger_in(options.out))
        stack.callback(ledger.close)
        yield ledger


def _job_before(ledger: Ledger, options: argparse.Namespace) -> Job | None:
    """The job of this folder, if there is one.

    Raises:
        RefusedError: There is a job, but no --resume; or there is none, and no source is named.
    """
    key = str(options.out.resolve())
    found = next((job for job in ledger.jobs() if job.key == key), None)
    if found is not None and not (options.resume or options.retry_failed):
        raise RefusedError(f"{options.out} has a job already: --resume goes on with it")
    if found is None and options.source is None:
        raise RefusedError(f"name a SOURCE: there is no job in {options.out}")
    return found


def _fill_in(options: argparse.Namespace, before: Mapping[str, Any]) -> None:
    """Take missing options from the existing job; given ones must be equal to the job's.

    Raises:
        RefusedError: An option differs; the message names it.
    """
    if options.source is not None:
        options.source = _spelt(options.source)
    if options.options is not None:
        options.options = sorted(options.options)
    defaults: dict[str, Any] = {
        "source": None,
        "options": [],
        "format": "parquet",
        "model": DEFAULT_MODEL,
    }
    for name, default in defaults.items():
        given, was = getattr(options, name), before.get(name)
        if given is None:
            setattr(options, name, default if was is None else was)
        elif was is not None and given != (_spelt(was) if name == "source" else was):
            raise RefusedError(f"the job began with the {name} {_shown(was)}, not {_shown(given)}")
    if before:
        options.source = before["source"]


def _spelt(source: str) -> str:
    """The canonical spelling of a source: an absolute path, or a URL without a slash at its end."""
    return source.rstrip("/") if "://" in source else str(Path(source).resolve())


def _shown(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value) or "(none)"


def _opened_job(
    ledger: Ledger, options: argparse.Namespace, version: ModelVersion, before: Job | None
) -> Job:
    """The job of this folder: a new one, or the existing one with --resume.

    Raises:
        RefusedError: The model of this name has other weights than when the job began.
    """
    card = version.card
    description = {
        "source": options.source,
        "options": sorted(options.options),
        "format": options.format,
        "model": f"{card.name}/{card.version}",
        "model_sha256": card.model_sha256,
    }
    if before is not None and before.description["model_sha256"] != card.model_sha256:
        was, now = model_of(before.description), model_of(description)
        raise RefusedError(f"the job began with the model {was}, not {now}")
    job = ledger.open_job(str(options.out.resolve()), description)
    if options.ledger is None:  # no other process has the folder, so no worker is alive
        ledger.take_back(job.id)
    return job


def _task(options: argparse.Namespace, job: Job) -> Task:
    return Task(
        job.id,
        options.ledger or ledger_in(options.out),
        options.source,
        _source_options(options),
        options.out.absolute(),
        options.format,
        options.model,
        options.model_store.absolute(),
        options.provider,
        options.fetchers,
        options.max_errors,
        options.limit,
        options.chunk,
        options.lease_seconds,
    )


@contextmanager
def _local(task: Task, ledger: Ledger, source: Source, version: ModelVersion) -> Iterator[Engine]:
    """An engine in this process, on all its cores."""
    with open_pipeline(version, task.provider) as pipeline:
        yield task.work(ledger, source, pipeline, version)


@contextmanager
def _ray(task: Task, ledger: Ledger, source: Source, version: ModelVersion) -> Iterator[Engine]:
    """An engine with workers on all machines of a Ray cluster; they open source and model."""
    del version
    source.close()
    if task.limit is not None:
        raise RefusedError("--limit is for one worker: --engine local")
    try:
        from service.backfill.engines.ray import on_ray  # takes a second to load
    except ImportError:
        raise RefusedError(
            "--engine ray needs the extra `ray`: pip install 'cxrview[ray]'"
        ) from None
    with on_ray(task, ledger) as cluster:
        yield cluster


ENGINES = {"local": _local, "ray": _ray}


def _worked(work: Engine, ledger: Ledger, job: Job, console: Console) -> tuple[Job, bool]:
    """Run the engine and show progress; Ctrl-C or SIGTERM pauses, a second one raises.

    Returns the job in its new state, and whether it was interrupted.
    """
    ended: Future[Job] = Future()

    def run() -> None:
        try:
            ended.set_result(work.run())
        except Exception as error:  # noqa: BLE001  # raised again by `ended.result`
            ended.set_exception(error)

    Thread(target=run, name="backfill", daemon=True).start()
    interrupted = False
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Kubernetes stops pods with it
    with progress_line(console) as show:
        while not ended.done():
            try:
                with suppress(TimeoutError):
                    ended.exception(REFRESH_SECONDS)
                show(work, ledger.job(job.id))
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                console.print("pausing: what has been fetched is answered and written down")
                work.pause()
    return ended.result(), interrupted


def _conclude(console: Console, certificate: Certificate, out: Path) -> int:
    """Print the summary of a certificate; returns the exit code."""
    for reason in certificate.errors:
        complain(reason)
    if rendered := certificate.inputs["rendered"]:
        stored = certificate.inputs["stored"]
        text = f"the model saw {rendered:,} images as rendered by the archive, {stored:,} as stored"
        console.print(text, highlight=False)
    if others := certificate.views.get("not_chest"):
        text = f"{others:,} of the images that are done are no chest radiographs: not_chest"
        console.print(text, highlight=False)
    counts = ", ".join(f"{count:,} {name}" for name, count in certificate.outcomes.items())
    console.print(f"{counts} of {certificate.found:,} images: {out / PAGE}", highlight=False)
    if certificate.valid:
        return DONE
    return EMPTY if certificate.empty else INCOMPLETE


def _refuse(error: Exception) -> int:
    complain(str(error))
    return REFUSED
