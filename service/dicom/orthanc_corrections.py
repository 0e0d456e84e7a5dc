"""Corrections as copies in Orthanc: planned, made, and taken back by a log.

The source instance is never changed or replaced. Its copy gets a SOP Instance UID of its own, says
DERIVED, and refers to its source (PS3.3 C.7.6.1.1.2, C.7.6.1.1.4). Study and series stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydicom.datadict import tag_for_keyword

from model_store import View
from service.dicom.correction_log import CorrectionLog, Made
from service.dicom.corrections import VIEWS, Correction, change_of
from service.dicom.findings import VIEWS as CODES
from service.dicom.findings import derived_uid
from service.dicom.orthanc import Orthanc, OrthancRefusedError
from service.imaging.header import ViewHeader

MODIFYING_SYSTEM = "cxrview"
DERIVATION = "View corrected in the header; the pixels are those of the source"
ORIGINAL = ("ViewPosition", "ViewCodeSequence")

# correct: a copy is to be made, or was made. unchanged: nothing is to be done. refused: the
# reason says why not. undone: the copy was deleted
Outcome = Literal["correct", "unchanged", "refused", "undone"]


@dataclass(frozen=True)
class Step:
    """What happens to one instance."""

    sop_instance_uid: str
    outcome: Outcome
    reason: str = ""
    instance: str = ""  # Orthanc's ID of the source
    request: dict[str, Any] | None = None  # the body of POST /tools/bulk-modify


class _RefusedError(Exception):
    """No copy of this instance can be made, or deleted."""


class _UnchangedError(Exception):
    """There is nothing to do."""


def copy_uid(sop_instance_uid: str, view: View) -> str:
    """The SOP Instance UID of a corrected copy, which is always the same."""
    return derived_uid("corrected", sop_instance_uid, view)


def plan(orthanc: Orthanc, correction: Correction, now: datetime) -> Step:
    """Find out what has to be done, by the header that the instance has now.

    Raises:
        OrthancAwayError: See `Orthanc`.
    """
    uid = correction.sop_instance_uid
    try:
        for view in VIEWS:
            _check_copies(orthanc, correction, view)
        instance, tags = _source(orthanc, uid, correction.study_instance_uid)
        request = _request(instance, tags, correction, now)
    except _UnchangedError as found:
        return Step(uid, "unchanged", str(found))
    except (_RefusedError, OrthancRefusedError) as error:
        return Step(uid, "refused", str(error))
    return Step(uid, "correct", "", instance, request)


def apply(orthanc: Orthanc, correction: Correction, log: CorrectionLog, now: datetime) -> Step:
    """Make the copy that is planned; the log says so before and after.

    Raises:
        OrthancAwayError: See `Orthanc`; whether there is a copy is not known. The log names it.
        OSError: The log cannot be written.
    """
    step = plan(orthanc, correction, now)
    if step.outcome != "correct" or step.request is None:
        return step
    uid, view = correction.sop_instance_uid, correction.view
    copy = copy_uid(uid, view)
    made = Made(orthanc.url, uid, copy)
    with log.around("correct", made, now, instance=step.instance, request=step.request) as end:
        try:
            orthanc.modify(step.request)
            _, tags = _source(orthanc, copy, correction.study_instance_uid)
            if change_of(_header(tags), view).any:
                raise _RefusedError("Orthanc stored a copy without the correction; undo it")
        except (_RefusedError, OrthancRefusedError) as error:
            end(str(error))
            return Step(uid, "refused", str(error), step.instance)
    return step


def undo(
    orthanc: Callable[[str], Orthanc], log: CorrectionLog, now: datetime, *, dry: bool
) -> Iterator[Step]:
    """Delete the copies that a log names, the last first.

    Args:
        orthanc: Opens the Orthanc of a URL of the log.
        log: Every copy that may have been made is in it, and every deletion is added to it.
        now: The time of the entries.
        dry: Only say what would be deleted.

    Raises:
        OrthancAwayError: See `Orthanc`.
        OSError: The log cannot be written.
    """
    for made in reversed(log.made()):
        server = orthanc(made.orthanc)
        try:
            copy = _copy(server, made)
            if not dry:
                with log.around("undo", made, now, instance=copy):
                    server.delete(copy)
        except _UnchangedError as found:
            yield Step(made.sop_instance_uid, "unchanged", str(found))
        except (_RefusedError, OrthancRefusedError) as error:
            yield Step(made.sop_instance_uid, "refused", str(error))
        else:
            yield Step(made.sop_instance_uid, "undone", instance=copy)


def _check_copies(orthanc: Orthanc, correction: Correction, view: View) -> None:
    """Whether a copy that says this view is there already."""
    if not orthanc.instances(copy_uid(correction.sop_instance_uid, view)):
        return
    if view == correction.view:
        raise _UnchangedError("its copy is there already")
    raise _RefusedError(f"a copy says {view}: undo that correction first")


def _source(orthanc: Orthanc, uid: str, study: str) -> tuple[str, dict[str, Any]]:
    """Orthanc's ID and the attributes of an instance."""
    found = [(each, orthanc.tags(each)) for each in orthanc.instances(uid)]
    if study:
        found = [(each, tags) for each, tags in found if tags.get("StudyInstanceUID") == study]
    if not found:
        raise _RefusedError("Orthanc does not have this instance")
    if len(found) > 1:
        raise _RefusedError("Orthanc has several instances with this UID")
    return found[0]


def _copy(orthanc: Orthanc, made: Made) -> str:
    """Orthanc's ID of a copy that may be deleted."""
    if not orthanc.instances(made.copy_uid):
        raise _UnchangedError("its copy is not there any more")
    instance, tags = _source(orthanc, made.copy_uid, "")
    sources = [each.get("ReferencedSOPInstanceUID") for each in _items(tags, "SourceImageSequence")]
    if sources != [made.sop_instance_uid]:
        raise _RefusedError("the instance with the copy's UID is no copy of it")
    if not orthanc.instances(made.sop_instance_uid):
        raise _RefusedError("the source is gone: its copy is the last one, and is kept")
    return instance


def _request(
    instance: str, tags: dict[str, Any], correction: Correction, now: datetime
) -> dict[str, Any]:
    change = change_of(_header(tags), correction.view)
    if not change.any:
        raise _UnchangedError("its header says the view already")
    replaced: dict[str, Any] = _derived(tags) | _original(tags, now)
    uid, view = correction.sop_instance_uid, correction.view
    replaced["SOPInstanceUID"] = copy_uid(uid, view)
    if change.empty_position:
        replaced["ViewPosition"] = ""
    if change.code:
        value, scheme, meaning = CODES[view]
        code = {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}
        replaced["ViewCodeSequence"] = [code | _modifiers(tags)]
    return {
        "Resources": [instance],
        "Level": "Instance",
        "Replace": replaced,
        "Keep": ["StudyInstanceUID", "SeriesInstanceUID"],
        "KeepSource": True,
        "Force": True,  # Orthanc requires it where UIDs are kept or replaced
        "Synchronous": True,
    }


def _derived(tags: dict[str, Any]) -> dict[str, Any]:
    """Image Type, and the reference to the source."""
    _, *others = (tags.get("ImageType") or "ORIGINAL\\PRIMARY").split("\\")
    source = {
        "ReferencedSOPClassUID": tags["SOPClassUID"],
        "ReferencedSOPInstanceUID": tags["SOPInstanceUID"],
    }
    return {
        "ImageType": "\\".join(["DERIVED", *others]),
        "DerivationDescription": DERIVATION,
        "SourceImageSequence": [source],
    }


def _original(tags: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Original Attributes Sequence (PS3.3 C.12.1): the previous values, if the source has none.

    Earlier items may hold binary values, which Orthanc does not return, so they are not rewritten;
    they stay, and the source holds the previous values.
    """
    previous = _writable({name: tags[name] for name in ORIGINAL if tags.get(name)})
    if not previous or "OriginalAttributesSequence" in tags:
        return {}
    item = {
        "ModifiedAttributesSequence": [previous],
        "AttributeModificationDateTime": f"{now:%Y%m%d%H%M%S%z}",
        "ModifyingSystem": MODIFYING_SYSTEM,
        "SourceOfPreviousValues": "",
        "ReasonForTheAttributeModification": "CORRECT",
    }
    return {"OriginalAttributesSequence": [item]}


def _modifiers(tags: dict[str, Any]) -> dict[str, Any]:
    """View Modifier Code Sequence of the code that is replaced."""
    code = next(iter(_items(tags, "ViewCodeSequence")), {})
    modifiers = _writable(code).get("ViewModifierCodeSequence")
    return {"ViewModifierCodeSequence": modifiers} if modifiers else {}


def _writable(item: dict[str, Any]) -> dict[str, Any]:
    """Without what Orthanc does not take: private attributes, and the values that it left out."""
    return {
        name: [_writable(each) for each in value] if isinstance(value, list) else value
        for name, value in item.items()
        if value is not None and tag_for_keyword(name) is not None
    }


def _items(tags: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = tags.get(name)
    return found if isinstance(found, list) else []


def _header(tags: dict[str, Any]) -> ViewHeader:
    codes = [
        f"{each.get('CodingSchemeDesignator', '')}:{each.get('CodeValue', '')}"
        for each in _items(tags, "ViewCodeSequence")
    ]
    position = (tags.get("ViewPosition") or "").strip().upper()
    return ViewHeader(position or None, view_code=codes[0] if codes else None)
