"""What a person's decision about an image of the worklist changes in its header.

View Code Sequence (0054,0220) says frontal or lateral; a View Position (0018,5101) that names the
other view is emptied. PA, AP, LL and RL are never written: neither the model nor the decision
knows them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args
from xml.sax.saxutils import quoteattr

from pydantic import JsonValue

from model_store import View
from service.backfill.job_folder import LEDGER, ledger_in
from service.backfill.ledger.jobs import UnknownJobError
from service.backfill.ledger.ledger import Ledger
from service.backfill.report.header_audit import WORKLIST
from service.backfill.report.write import CERTIFICATE, HEADERS
from service.backfill.results.formulas import unmarked
from service.backfill.review.review import accepted_in
from service.dicom.findings import VIEWS as CODES
from service.imaging.header import ViewHeader
from service.imaging.origin import valid_uid

VIEWS: tuple[View, ...] = get_args(View)
DECISION_COLUMNS = ("sop_instance_uid", "decision")
UID_COLUMNS = ("sop_instance_uid", "study_instance_uid", "series_instance_uid")
NEEDED_COLUMNS = (*UID_COLUMNS, "view_position", "view_code")
UIDS = dict(zip(UID_COLUMNS, ("00080018", "0020000D", "0020000E"), strict=True))
VIEW_CODE, VIEW_POSITION, VIEW_MODIFIER = "00540220", "00185101", "00540222"


class CorrectionsError(Exception):
    """A file of decisions, a worklist or a log cannot be used; the message says which, and why."""


class Change(NamedTuple):
    """What has to change in a header so that it says a view, and nothing else."""

    code: bool  # View Code Sequence becomes the view
    empty_position: bool  # View Position names the other view

    @property
    def any(self) -> bool:
        """Whether anything has to change."""
        return self.code or self.empty_position


@dataclass(frozen=True)
class Correction:
    """A decision about one instance, and the header that the backfill saw."""

    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    view: View  # as decided
    header: ViewHeader

    @property
    def change(self) -> Change:
        """The change of the header that the backfill saw."""
        return change_of(self.header, self.view)


def change_of(header: ViewHeader, view: View) -> Change:
    """What has to change in a header so that it says a view.

    A finer code of the same view, as that of PA, stays. If View Position alone says the view, no
    code is added: the header is right as it is.
    """
    named = header.view_by_code
    code = named != view and (named is not None or header.view != view)
    return Change(code=code, empty_position=header.view not in {None, view})


def read_corrections(run: Path, accepted: Path) -> list[Correction]:
    """The decisions of a file about images of a worklist, in the order of the worklist.

    Args:
        run: The folder of a finished backfill, or of `cxrview audit`.
        accepted: A CSV file with the columns `sop_instance_uid` and `decision`, which is frontal
            or lateral, or empty for no decision. Other columns are ignored.

    Raises:
        CorrectionsError: A file is missing or damaged, or a decision is invalid, contradicts
            another one, or is about no image of the worklist.
    """
    return _corrections(run, _decisions(accepted), str(accepted))


def reviewed_corrections(run: Path, ledger: str | None = None) -> list[Correction]:
    """The decisions of the review of a job about images of its worklist, in its order.

    Args:
        run: The folder of the job, named by its id, in the service's folder.
        ledger: The URL of its ledger; None: the file in the service's folder.

    Raises:
        CorrectionsError: There is no such job that is done, or a file is missing or damaged.
        LedgerError: The ledger cannot be opened.
    """
    job, url = run.resolve().name, ledger or ledger_in(run.resolve().parent)
    if not ledger and not (run.resolve().parent / LEDGER).is_file():
        raise CorrectionsError(f"{run} is no job of a service: its folder has no {LEDGER}")
    if not (run / CERTIFICATE).is_file():
        raise CorrectionsError(f"{run} has no {CERTIFICATE}: the job is not done")
    opened = Ledger(url)
    try:
        opened.job(job)
        decisions = accepted_in(run, opened, job)
    except UnknownJobError as error:
        raise CorrectionsError(f"the ledger has no job {job}") from error
    finally:
        opened.close()
    return _corrections(run, decisions, f"the review of {job}")


def _corrections(run: Path, decisions: dict[str, View], named: str) -> list[Correction]:
    worklist = run / HEADERS / WORKLIST
    if not worklist.is_file():
        raise CorrectionsError(
            f"{worklist} does not exist: finish the backfill, or run `cxrview audit`"
        )
    found = [
        _correction(row, decisions.pop(row["sop_instance_uid"]))
        for _, row in _rows(worklist, NEEDED_COLUMNS)
        if row["sop_instance_uid"] in decisions
    ]
    if decisions:
        examples = ", ".join(sorted(decisions)[:3])
        raise CorrectionsError(
            f"{named}: {len(decisions)} instances are not on the worklist, as {examples}"
        )
    return found


def _decisions(path: Path) -> dict[str, View]:
    found: dict[str, View] = {}
    for line, row in _rows(path, DECISION_COLUMNS):
        uid, decision = row["sop_instance_uid"].strip(), row["decision"].strip().lower()
        if not decision:
            continue
        if valid_uid(uid) is None:
            raise CorrectionsError(f"{path}, line {line}: no valid SOP Instance UID")
        if decision not in VIEWS:
            raise CorrectionsError(f"{path}, line {line}: a decision is frontal or lateral")
        if found.setdefault(uid, decision) != decision:
            raise CorrectionsError(f"{path}, line {line}: {uid} is decided in two ways")
    return found


def _correction(row: Mapping[str, str], view: View) -> Correction:
    sop, study, series = (row[name] for name in UID_COLUMNS)
    header = ViewHeader(row["view_position"] or None, view_code=row["view_code"] or None)
    return Correction(sop, study, series, view, header)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of its last line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            named = Counter(reader.fieldnames or ())
            if doubled := [name for name in columns if named[name] > 1]:
                raise CorrectionsError(f"{path} has two columns {doubled[0]}")
            if lacking := set(columns) - set(reader.fieldnames or ()):
                raise CorrectionsError(f"{path} has no column {', '.join(sorted(lacking))}")
            for row in reader:
                yield reader.line_num, {name: unmarked(row[name] or "") for name in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorrectionsError(f"{path} cannot be read: {error}") from error


def dicom_json(correction: Correction) -> dict[str, JsonValue]:
    """The changed attributes and the instance's UIDs, in the DICOM JSON model (PS3.18 F)."""
    found: dict[str, JsonValue] = {
        tag: {"vr": "UI", "Value": [uid]}
        for name, tag in UIDS.items()
        if (uid := getattr(correction, name))
    }
    if correction.change.code:
        item: dict[str, JsonValue] = {
            tag: {"vr": vr, "Value": [value]} for tag, vr, value in _code(correction.view)
        }
        found[VIEW_CODE] = {"vr": "SQ", "Value": [item]}
    if correction.change.empty_position:
        found[VIEW_POSITION] = {"vr": "CS"}
    return found


def _code(view: View) -> list[tuple[str, str, str]]:
    """Tag, VR and value of what makes a code."""
    value, scheme, meaning = CODES[view]
    return [("00080100", "SH", value), ("00080102", "SH", scheme), ("00080104", "LO", meaning)]


def coercion(corrections: Iterable[Correction]) -> str:
    """An attribute coercion of dcm4chee: an XSLT stylesheet for the Native DICOM Model (PS3.19 A).

    It returns the changed attributes of an instance that it has a correction of, and no attribute
    of any other. A View Modifier Code Sequence is copied. The coercion's Attribute Update Policy
    must be OVERWRITE, because with others an empty attribute changes nothing.
    """
    cases = "".join(map(_case, corrections))
    # XSLT allows no xsl:choose without a case
    choose = f"      <xsl:choose>\n{cases}      </xsl:choose>\n" if cases else ""
    views = "".join(map(_code_template, VIEWS))
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
  <xsl:output method="xml"/>
  <xsl:template match="/NativeDicomModel">
    <xsl:variable name="uid" select="DicomAttribute[@tag='00080018']/Value"/>
    <NativeDicomModel>
{choose}    </NativeDicomModel>
  </xsl:template>
{views}</xsl:stylesheet>
"""


def _case(correction: Correction) -> str:
    change, uid = correction.change, correction.sop_instance_uid
    test = quoteattr(f"$uid='{uid}'")
    lines = [f"        <xsl:when test={test}>"]
    if change.empty_position:
        lines += [f'          <DicomAttribute tag="{VIEW_POSITION}" vr="CS"/>']
    if change.code:
        lines += [f'          <xsl:call-template name="{correction.view}"/>']
    return "\n".join([*lines, "        </xsl:when>\n"])


def _code_template(view: View) -> str:
    modifier = f"DicomAttribute[@tag='{VIEW_CODE}']/Item[1]/DicomAttribute[@tag='{VIEW_MODIFIER}']"
    code = "\n".join(
        f'        <DicomAttribute tag="{tag}" vr="{vr}"><Value number="1">{value}</Value>'
        "</DicomAttribute>"
        for tag, vr, value in _code(view)
    )
    return f"""\
  <xsl:template name="{view}">
    <DicomAttribute tag="{VIEW_CODE}" vr="SQ">
      <Item number="1">
{code}
        <xsl:copy-of select="{modifier}"/>
      </Item>
    </DicomAttribute>
  </xsl:template>
"""
