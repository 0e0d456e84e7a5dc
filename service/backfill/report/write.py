"""Certificate and header audit from the parts, at the end of a job and for `cxrview audit`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from service.backfill.report import pages
from service.backfill.report.certificate import Certificate, CertifiedPart
from service.backfill.report.counts import CertificateCounts, rate
from service.backfill.report.header_audit import HeaderAudit
from service.backfill.results import atomic_files
from service.backfill.results.sinks import PartError, PartFile, parts, results_in

CERTIFICATE = "certificate.json"
PAGE = "certificate.html"
HASHES = "results.sha256"
HEADERS = "audit"  # the folder of the header audit
HEADERS_PAGE = "header-audit.html"


@dataclass(frozen=True)
class Known:
    """Facts from the ledger that the parts do not hold."""

    found: int  # images in its sources
    parts: Sequence[PartFile]
    started: datetime | None = None
    ended: datetime | None = None
    left_out: Mapping[str, int] | None = None  # what the listing left out, by reason
    source: str = ""  # as the job names it
    may_be_empty: bool = False  # an archive without images is no error


def audit(folder: Path, out: Path, known: Known | None = None) -> Certificate:
    """Count all rows of a folder of results; write the certificate and the header audit.

    Args:
        folder: The folder with the parts of a job, or its parent, where it is named `results`.
        out: Gets certificate.json, certificate.html, results.sha256 and the folder audit.
        known: Facts from the ledger, at the end of a job. Without them, missing images and missing
            parts are not noticed.

    Raises:
        NotADirectoryError: There is no such folder.
        OSError: A file cannot be read or written.
        ValueError: `out` is within the folder, where its files would be taken for parts.
    """
    folder = results_in(folder)
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies within the results; choose another folder")
    (out / HEADERS).mkdir(parents=True, exist_ok=True)
    account = CertificateCounts()
    found: list[PartFile] = []
    errors: list[str] = []
    with closing(HeaderAudit(out / HEADERS)) as headers:
        for part in parts(folder):
            before = account.rows
            try:
                for batch in part.batches():
                    account.add(batch)
                    headers.add(batch)
                if account.rows == before:
                    raise PartError("it has no rows")
            except PartError as error:
                errors.append(f"{part.name}: {error}")
            rows = account.rows - before
            found.append(PartFile(part.name, rows, len(part.data), part.sha256))
        headers.write(out / HEADERS)
        _write(out / HEADERS / HEADERS_PAGE, pages.header_audit(headers))
    errors += account.errors(lambda: _readable(folder))
    errors += _missing(found, known)
    errors += _empty(known)
    hashes = "".join(f"{part.sha256}  {part.name}\n" for part in found)
    certificate = _certificate(account, found, hashes, errors, known)
    _write(out / HASHES, hashes)
    _write(out / CERTIFICATE, certificate.model_dump_json(indent=2) + "\n")
    _write(out / PAGE, pages.certificate(certificate))
    return certificate


def _certificate(
    account: CertificateCounts,
    found: Sequence[PartFile],
    hashes: str,
    errors: Sequence[str],
    known: Known | None,
) -> Certificate:
    started = known.started if known and known.started else account.started
    ended = known.ended if known and known.ended else account.ended
    images_per_second = rate(account.rows, started, ended)
    return Certificate(
        cxrview=version("cxrview"),
        created=datetime.now(UTC),
        valid=not errors,
        empty=not (known.found if known else found),
        errors=tuple(errors),
        found=known.found if known else account.rows,
        found_by="source" if known else "rows",
        left_out=dict(known.left_out) if known and known.left_out is not None else None,
        outcomes=account.counts("outcome"),
        codes=account.counts("code"),
        views=account.counts("view"),
        inputs=account.counts("input"),
        orientation=account.orientation(),
        review=account.review,
        header=account.header(),
        modalities=account.shares("modality"),
        stations=account.shares("station"),
        months=account.months(),
        models=account.models(),
        started=started,
        ended=ended,
        images_per_second=images_per_second,
        parts=tuple(CertifiedPart(**vars(part)) for part in found),
        parts_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
    )


def _empty(known: Known | None) -> list[str]:
    """An error if no image was found, because a wrong path is likelier than an empty archive."""
    if known is None or known.found or known.may_be_empty:
        return []
    passed = ", ".join(f"{count} {reason}" for reason, count in (known.left_out or {}).items())
    return [f"no image was found in {known.source}" + (f"; left out: {passed}" if passed else "")]


def _missing(found: Sequence[PartFile], known: Known | None) -> list[str]:
    """Errors if the parts or the number of rows differ from those in the ledger."""
    if known is None:
        return [] if found else ["there are no parts"]
    there, wanted = ({part.name: part for part in some} for some in (found, known.parts))
    errors = [f"{name}: the part is missing" for name in sorted(wanted.keys() - there.keys())]
    errors += [f"{name}: no part of this job" for name in sorted(there.keys() - wanted.keys())]
    errors += [
        f"{name}: not the file that was written; its SHA-256 is {there[name].sha256}"
        for name in sorted(there.keys() & wanted.keys())
        if there[name] != wanted[name]
    ]
    rows = sum(part.rows for part in found)
    if rows != known.found:
        errors.append(f"images found: {known.found}; with an outcome: {rows}")
    return errors


def _readable(folder: Path) -> Iterator[pa.RecordBatch]:
    """All rows again; a part that cannot be read is an error already."""
    for part in parts(folder):
        try:
            yield from part.batches()
        except PartError:
            continue


def _write(path: Path, text: str) -> None:
    atomic_files.publish(atomic_files.write(path, text.encode()))
