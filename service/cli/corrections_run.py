"""`cxrview corrections`: write proposals, apply them to Orthanc, or undo them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from service.backfill.ledger.jobs import LedgerError
from service.backfill.results.atomic_files import publish, write
from service.cli.console import complain
from service.dicom.correction_log import CorrectionLog
from service.dicom.corrections import (
    Correction,
    CorrectionsError,
    coercion,
    dicom_json,
    read_corrections,
    reviewed_corrections,
)
from service.dicom.orthanc import Orthanc, OrthancAwayError
from service.dicom.orthanc_corrections import Step, apply, plan, undo

# Exit codes: all done; some instances were refused; the command cannot run; stopped by Ctrl-C
DONE, INCOMPLETE, REFUSED, STOPPED = 0, 1, 2, 130
FOLDER = "corrections"
DICOM_JSON, COERCION, CALLS, LOG = (
    "dicom.json", "coercion.xsl", "orthanc.ndjson", "orthanc-log.ndjson",
)  # fmt: skip
DONE_WORDS = {"correct": "corrected", "undone": "undone"}
DRY_WORDS = {"correct": "to be corrected", "undone": "to be undone"}


def run(options: argparse.Namespace) -> int:
    """Propose, apply or undo; returns the exit code."""
    try:
        if options.undo:
            return _undo(options)
        corrections = _decided(options)
        out = options.out or options.run / FOLDER
        _propose(corrections, out)
        return _apply(corrections, out, options) if options.apply else DONE
    except (CorrectionsError, LedgerError, OrthancAwayError, OSError, ValueError) as error:
        complain(str(error))
        return REFUSED
    except KeyboardInterrupt:
        complain("stopped; the same command goes on")
        return STOPPED


def _decided(options: argparse.Namespace) -> list[Correction]:
    if options.reviewed:
        return reviewed_corrections(options.run, options.ledger)
    return read_corrections(options.run, options.accepted)


def _propose(corrections: Sequence[Correction], out: Path) -> None:
    """Write the proposals that need no archive."""
    needed = [each for each in corrections if each.change.any]
    proposed = [dicom_json(each) for each in needed]
    _write(out / DICOM_JSON, json.dumps(proposed, indent=1) + "\n")
    _write(out / COERCION, coercion(needed))
    right = len(corrections) - len(needed)
    _say(f"{len(needed)} corrections in {out}; {right} headers say the view already")


def _apply(corrections: Sequence[Correction], out: Path, options: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    log = CorrectionLog(options.log or out / LOG)
    with _opened() as orthanc:
        server = orthanc(options.apply)
        if options.yes:
            code = _report((apply(server, each, log, now) for each in corrections), DONE_WORDS)
            _say(f"to take this back: cxrview corrections --undo {log.path}")
            return code
        steps = [plan(server, each, now) for each in corrections]
    requests = [step.request for step in steps if step.request]
    _write(out / CALLS, "".join(f"{json.dumps(each)}\n" for each in requests))
    code = _report(iter(steps), DRY_WORDS)
    _say(f"nothing was changed: --yes does it; the calls are in {out / CALLS}")
    return code


def _undo(options: argparse.Namespace) -> int:
    if not options.undo.is_file():
        raise CorrectionsError(f"{options.undo} does not exist")
    log = CorrectionLog(options.undo)
    with _opened() as orthanc:
        steps = undo(orthanc, log, datetime.now(UTC), dry=not options.yes)
        code = _report(steps, DONE_WORDS if options.yes else DRY_WORDS)
    if not options.yes:
        _say("nothing was changed: --yes does it")
    return code


@contextmanager
def _opened() -> Iterator[Callable[[str], Orthanc]]:
    """Opens and checks the Orthanc of a URL, each once."""
    found: dict[str, Orthanc] = {}
    with ExitStack() as stack:

        def orthanc(url: str) -> Orthanc:
            if url not in found:
                server = Orthanc(url)
                stack.callback(server.close)
                server.check()
                found[url] = server
            return found[url]

        yield orthanc


def _report(steps: Iterator[Step], words: dict[str, str]) -> int:
    """Print what is refused, and the counts; also if it ends early."""
    counts: Counter[str] = Counter()
    try:
        for step in steps:
            counts[step.outcome] += 1
            if step.outcome == "refused":
                complain(f"{step.sop_instance_uid}: {step.reason}")
    finally:
        found = (f"{count} {words.get(name, name)}" for name, count in sorted(counts.items()))
        _say(", ".join(found) or "no instances")
    return INCOMPLETE if counts["refused"] else DONE


def _write(path: Path, text: str) -> None:
    publish(write(path, text.encode()))


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
