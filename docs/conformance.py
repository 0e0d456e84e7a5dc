"""The DICOM conformance statement, in the shape of PS3.2 Annex A, from the tables of the code."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import pydicom
from pydicom import Dataset, charset, uid
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pynetdicom import (
    DEFAULT_TRANSFER_SYNTAXES,
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
)
from pynetdicom.sop_class import Verification

from model_store import Orientation, Store
from service.api.settings import PREFIX, Settings
from service.backfill.sources.dicomweb_options import DicomwebOptions
from service.dicom import findings, stow
from service.dicom.association_request import APPLICATION_CONTEXT, MAX_ITEMS, MAX_REQUEST_BYTES
from service.dicom.commands import SOP_CLASS_NOT_SUPPORTED, UNRECOGNISED_OPERATION
from service.dicom.destinations import KINDS, CStoreDestination
from service.dicom.instance import (
    IDENTIFIERS,
    IMAGE,
    KEPT,
    PATIENT_AND_STUDY,
    PLAIN_CHARACTER_SETS,
    UTF_8,
    Result,
    SourceInstance,
)
from service.dicom.pdu import MAX_PDU_BYTES
from service.dicom.receiver import ANSWER_SECONDS, IDLE_SECONDS
from service.dicom.senders.association import PDU_BYTES, SYNTAXES
from service.dicom.senders.statuses import (
    AWAY,
    DUPLICATE,
    LATER,
    NO_REASON,
    PENDING,
    WARNINGS,
    is_later,
)
from service.dicom.statuses import CODES, MEANINGS, REJECTIONS
from service.dicom.structured_report import structured_report
from service.dicom.tls import CIPHERS
from service.imaging import RADIOGRAPHS, SUPPORTED
from service.imaging.attributes import CODE, LUT, MODALITY_LUT, PALETTES, TOLD, WANTED
from service.inference import Classification
from service.inference.classification import Header, ModelReference

REPORT = uid.Comprehensive3DSRStorage
LIMITS = ("max_head_seconds", "max_receive_idle_seconds", "max_receive_seconds", "max_upload_bytes")
WHY_REJECTED = {
    "called_ae": "the called AE title is not that of the receiver",
    "calling_ae": "the calling AE title is not valid, or it and the network are not allowed",
    "limit": "as many associations are open as the settings allow",
    "stopping": "the service is stopping",
    "application_context": "the application context is not that of DICOM",
    "protocol_version": "bit 0 of the protocol version is not set",
}
WHY_FAILED = {
    stow.CANNOT_UNDERSTAND: "the object cannot be classified, and never will be",
    stow.SOP_CLASS_NOT_SUPPORTED: "the object is neither CR, DX nor Secondary Capture",
    stow.TRANSFER_SYNTAX_NOT_SUPPORTED: "there is no decoder for the transfer syntax",
    stow.MISMATCH: "the object belongs to another study than the path",
    stow.PROCESSING_FAILURE: "an error of the service, which its log names",
    stow.OUT_OF_RESOURCES: "nothing was kept: send the object again later",
}


def conformance() -> str:
    """The whole statement."""
    sections = (_overview, _networking, _web, _media, _characters, _security, _objects)
    return "\n".join(line for section in sections for line in section())


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
    yield ""


def _uids(some: Iterable[str]) -> list[tuple[str, str]]:
    return [(uid.UID(each).name, f"`{each}`") for each in sorted(some)]


def _overview() -> Iterator[str]:
    yield """\
# DICOM conformance statement

In the order of PS3.2. The tables follow from the code (`python docs/reference.py`), so they are
those of the version that this documentation belongs to.

## 1 Overview

cxrview says whether a chest radiograph is a frontal or a lateral view. It receives images by
C-STORE and by STOW-RS, or retrieves them by DICOMweb. It delivers results as Comprehensive 3D SR.
It stores no image, and it neither queries nor retrieves by DIMSE.
"""
    yield from _table(
        ("service", "SOP class", "user (SCU)", "provider (SCP)"),
        [
            ("Verification", Verification.name, "no", "yes"),
            *(("Storage", name, "no", "yes") for name, _ in _uids(RADIOGRAPHS)),
            ("Storage", uid.UID(REPORT).name, "yes", "no"),
        ],
    )
    yield from _table(
        ("DICOMweb", "user agent", "origin server"),
        [
            ("Store (STOW-RS), PS3.18 10.5", "yes: results", "yes: images"),
            ("Search (QIDO-RS), PS3.18 10.6", "yes: archives of a backfill", "no"),
            ("Retrieve (WADO-RS), PS3.18 10.4", "yes: archives of a backfill", "no"),
        ],
    )


def _networking() -> Iterator[str]:
    yield """\
## 2 Networking

### 2.1 Implementation model

One application entity, the **receiver**, accepts images. It classifies each, commits the results to
the outbox, a database, and only then answers success. The **sender** of each destination of
the kind `c-store` delivers results from the outbox. It tries again until the peer has stored a
result or refuses it, or until a stated time; each time, the bytes are the same.

An image that is sent again is not classified again, and has the same result.

### 2.2 The receiver

`cxrview receive`, or `cxrview serve --dicom-port`.
"""
    version = f"`{PYNETDICOM_IMPLEMENTATION_UID}`, `{PYNETDICOM_IMPLEMENTATION_VERSION}`"
    yield from _table(
        ("", ""),
        [
            ("application context", f"`{APPLICATION_CONTEXT}`"),
            ("AE title", _setting("dicom_ae_title")),
            ("Implementation Class UID, Version Name", version),
            ("largest PDU that is accepted", f"{MAX_PDU_BYTES:,} bytes"),
            ("associations at the same time", _setting("dicom_max_associations")),
            ("asynchronous operations", "not negotiated: one request at a time"),
            ("role selection, extended negotiation, user identity", "proposals are ignored"),
            ("idle association", f"aborted after {IDLE_SECONDS:.0f} s"),
            ("classification of one image", f"at most {ANSWER_SECONDS:.0f} s, then status A700H"),
            ("associations that it initiates", "none"),
        ],
    )
    yield """\
Presentation contexts have one of these SOP classes and any of these transfer syntaxes. Of several
transfer syntaxes in one context, the first in this table is accepted. Nothing is transcoded.
"""
    yield from _table(("SOP class", "UID"), _uids(RADIOGRAPHS))
    yield from _table(("transfer syntax", "UID"), _uids(SUPPORTED))
    yield f"""\
Verification (`{Verification}`) is accepted in {_names(DEFAULT_TRANSFER_SYNTAXES)}.

An object needs one frame, in grey or in equal channels. Statuses of C-STORE; Error Comment
{_tag("ErrorComment")} holds the code of an [error](problems.md):
"""
    yield from _table(("status", "meaning"), ((f"{code:04X}H", MEANINGS[code]) for code in CODES))
    yield from _broken_requests()
    yield "Rejected associations (A-ASSOCIATE-RJ):\n"
    yield from _table(
        ("result", "source", "reason", "because"),
        ((*found, WHY_REJECTED[each]) for each, found in REJECTIONS.items()),
    )
    yield f"""\
### 2.3 The sender

It initiates associations to the host and port of a destination, and proposes
{uid.UID(REPORT).name} in {_names(SYNTAXES)}.
Its PDUs, and those that it asks for, have at most {PDU_BYTES:,} bytes. One request at a time.

"""
    yield from _table(("status of the peer", "effect"), _effects())
    yield """\
### 2.4 Configuration

The receiver's settings ([all settings](settings.md)):
"""
    names = [each for each in Settings.model_fields if each.startswith("dicom_")]
    yield from _table(
        ("variable", "meaning"),
        ((f"`{PREFIX}{each.upper()}`", _meaning(each)) for each in (*names, *LIMITS)),
    )
    others = KINDS["folder"].model_fields
    keys = [f"`{each}`" for each in CStoreDestination.model_fields if each not in others]
    yield f"Keys of a destination of the kind `c-store`, beside those of all: {', '.join(keys)}.\n"


def _broken_requests() -> Iterator[str]:
    yield f"""\
A sender repeats after A700H and 0110H; after the others, the same object fails again.

A UID is digits with dots, of at most 64 characters. Components with leading zeros, which PS3.5 9.1
forbids, are accepted as they stand. Priority and Move Originator are not looked at. Operations
other than C-STORE and C-ECHO are answered with {UNRECOGNISED_OPERATION:04X}H (unrecognised
operation), a C-ECHO of another SOP class with {SOP_CLASS_NOT_SUPPORTED:04X}H.

The association is aborted at a command set that is damaged or lacks Command Field, Message ID or
Command Data Set Type; at a response; in a presentation context that was not accepted; and at a data
set without a command, or in another presentation context than its command. An association request
is aborted if it is damaged, if a presentation context has an even or repeated number or lacks its
abstract or transfer syntaxes, if a name has more than 64 characters, or if it has more than
{MAX_REQUEST_BYTES:,} bytes or {MAX_ITEMS:,} items. Items that are not
recognised, anywhere in it, are ignored.
"""


def _effects() -> Iterator[tuple[str, str]]:
    """What a status of C-STORE means for a delivery; ranges of statuses are one line."""
    yield "0000H", "delivered"
    later, all_wait = "tried again", "tried again; all others wait as well"
    for status in sorted({DUPLICATE, *WARNINGS, *LATER} - {NO_REASON}):
        if status in AWAY:
            yield f"{status:04X}H", all_wait
        elif status < 0xA000:
            yield f"{status:04X}H", later if is_later(status) else "delivered, with a warning"
    yield "A7xxH", all_wait
    yield "BxxxH", "delivered, with a warning"
    yield ", ".join(f"{status:04X}H" for status in sorted(PENDING)), all_wait
    yield "any other", "a dead letter at once"
    yield (
        "no association; the presentation context rejected, for any reason; no status in time",
        all_wait,
    )
    yield (
        "a response to another operation or message, or about another SOP class or instance",
        all_wait,
    )


def _names(uids: Iterable[str]) -> str:
    return ", ".join(uid.UID(each).name for each in uids)


def _setting(name: str) -> str:
    return f"`{PREFIX}{name.upper()}`, by default {Settings.model_fields[name].default}"


def _meaning(name: str) -> str:
    return " ".join((Settings.model_fields[name].description or "").split())


def _web() -> Iterator[str]:
    yield f"""\
## 3 DICOMweb

### 3.1 Store, as origin server

`POST /dicom-web/studies` and `POST /dicom-web/studies/{{study}}`, with `multipart/related;
type="application/dicom"`, or one object as `application/dicom`. SOP classes and transfer syntaxes
are those of the receiver. The answer is `{stow.JSON}` or `{stow.XML}`. Retrieve URL
{_tag("RetrieveURL")} is empty, because nothing can be retrieved.

| status | meaning |
|---|---|
| 200 | the results of all objects are committed |
| 202 | those of some are |
| 400 | the body is no multipart, or the path names no study |
| 401, 403, 429 | [access](access.md) |
| 404 | no destinations are configured |
| 406, 415 | media types |
| 409 | none is: {_tag("FailedSOPSequence")} says why |
| 413 | the body is larger than `{PREFIX}MAX_BATCH_BODY_BYTES` |
| 503 | nothing was stored: send the request again after `Retry-After` |

Failure Reason {_tag("FailureReason")}:
"""
    reasons = {*stow.REASONS.values(), stow.OUT_OF_RESOURCES}
    yield from _table(
        ("reason", "meaning"),
        ((f"{each:04X}H", WHY_FAILED[each]) for each in sorted(reasons)),
    )
    modalities = ", ".join(DicomwebOptions.model_fields["modalities"].default)
    yield f"""\
### 3.2 Store, as user agent

A destination of the kind `stow` gets one Structured Report a request. It is delivered if Referenced
SOP Sequence {_tag("ReferencedSOPSequence")} lists it; a status of 200 alone is not enough.

### 3.3 Search and Retrieve, as user agent

[A backfill](backfill-sources.md#pacs) searches instances by Study Date and Modality ({modalities}),
with `limit` and `offset`, and retrieves each as `application/dicom; transfer-syntax=*`, or as a
rendered picture.

### 3.4 Corrections

[`cxrview corrections`](corrections.md) proposes attributes, and stores corrected copies in an
Orthanc by its REST API.
"""


def _media() -> Iterator[str]:
    yield """\
## 4 Media interchange

Not supported: no DICOMDIR is read or written. `cxrview classify` and a backfill read Part 10 files
in folders and archives. A destination of the kind `folder` gets a Part 10 file for each report.
"""


def _objects() -> Iterator[str]:
    yield """\
## 7 Annexes

### 7.1 Attributes that are read

No other attribute is read. Those of the first table decide how pixels are read.
"""
    pixels = sorted(
        {*WANTED, *PALETTES, *LUT, MODALITY_LUT} - {tag_for_keyword("ViewPosition")}, key=int
    )
    yield from _attributes(pixels)
    yield "Compared with the answer, or copied into rows of a backfill; none refuses an image:\n"
    claims = sorted({*TOLD, *CODE, tag_for_keyword("ViewPosition")}, key=int)
    yield from _attributes(claims)
    yield f"""\
Copied into results as well, where they are valid. None is cut or changed; an invalid value is left
empty. These are copied even if they are too long or have several values, because archives file by
them ([why](dicom-results.md)): {", ".join(map(dictionary_description, sorted(IDENTIFIERS)))}.
"""
    yield from _attributes(sorted(set(KEPT) - set(pixels) - set(claims), key=int))
    report = _report()
    yield f"""\
### 7.2 The Structured Report

{uid.UID(REPORT).name} (`{REPORT}`), TID 1500 without Tracking Identifiers, in the study of the
image. All reports of a model version in a study are one series. The SOP Instance UID depends on
that of the image and on the model version only. These attributes are written; those of the patient
and the study are the image's, if it has them. If the image has no Timezone Offset From UTC, the
report's own dates and times are in the local time of the service.
"""
    yield from _attributes(int(element.tag) for element in report)
    yield "Content of a report about a frontal chest radiograph, of a model with all heads:\n"
    yield "```text"
    yield from _content(report, 0)
    yield """\
```

`not_chest` has no Image View. A refusal has its reason instead of the findings, and Completion Flag
PARTIAL.

### 7.3 Corrections

View Code Sequence is the one code of the decided view. View Position is emptied if it names the
other view. PA, AP, LL and RL are never written. A corrected copy differs from its source in
"""
    written = (
        "ImageType", "SOPInstanceUID", "DerivationDescription", "SourceImageSequence",
        "ViewPosition", "ViewCodeSequence", "OriginalAttributesSequence",
    )  # fmt: skip
    yield from _attributes(tag_for_keyword(each) for each in written)
    yield f"""\
### 7.4 Coded terminology

Views are of PS3.16 CID 4010: {_codes(findings.VIEWS.values())}. Concepts for which the Standard
has no code are of the private scheme `{findings.PRIVATE}`.

### 7.5 Private attributes, private SOP classes, private transfer syntaxes

None.
"""


def _attributes(tags: Iterable[int | None]) -> Iterator[str]:
    known = [tag for tag in tags if tag is not None]
    yield from _table(
        ("attribute", "tag", "VR"),
        ((dictionary_description(tag), _tag(tag), dictionary_VR(tag)) for tag in known),
    )


def _tag(tag: int | str) -> str:
    number = tag_for_keyword(tag) if isinstance(tag, str) else tag
    return f"({number >> 16:04X},{number & 0xFFFF:04X})"


def _codes(codes: Iterable[findings.Code]) -> str:
    return ", ".join(f"{each.meaning} ({each.value}, {each.scheme})" for each in codes)


def _report() -> Dataset:
    """A report with everything that one can hold."""
    source = Dataset()
    samples = {"AS": "060Y", "CS": "F", "DA": "20260101", "TM": "120000", "IS": "1", "US": 1}
    for keyword in (*PATIENT_AND_STUDY, *IMAGE):
        source.add_new(keyword, dictionary_VR(keyword), samples.get(dictionary_VR(keyword), "x"))
    source.TimezoneOffsetFromUTC, source.SpecificCharacterSet = "+0000", UTF_8
    card = Store().load("swift/1.1.0").card
    reference = ModelReference(name=card.name, version=card.version, sha256=card.model_sha256)
    agrees = {name: True for name in Header.model_fields if name.endswith("agrees")}
    claims = {name: "X" for name in Header.model_fields if name not in agrees}
    answer = Classification(
        view="frontal", pfi=0.99, threshold=0.5, chest=0.98, chest_threshold=0.5, review=False,
        orientation=Orientation(
            rotation_degrees=0, rotation_probability=0.99, inverted=False,
            inverted_probability=0.01, mirrored=False, mirrored_probability=0.01,
        ),
        header=Header(**claims, **agrees), sop_instance_uid="1.2.3", model=reference, warnings=[],
    )  # fmt: skip
    instance = SourceInstance(
        uid.ComputedRadiographyImageStorage, "1.2.3", "1.2.4", "1.2.5", None, source
    )
    data = structured_report(Result(instance, card, datetime(2026, 1, 1, tzinfo=UTC), answer))
    return pydicom.dcmread(io.BytesIO(data))


def _content(item: Dataset, depth: int) -> Iterator[str]:
    """A line for each content item: relationship, value type, concept."""
    concept = item.ConceptNameCodeSequence[0] if "ConceptNameCodeSequence" in item else None
    named = ""
    if concept is not None:
        code = f"{concept.CodeValue}, {concept.CodingSchemeDesignator}"
        named = f" {concept.CodeMeaning} ({code})"
    relation = item.get("RelationshipType", "").lower()
    yield "  " * depth + f"{relation} {item.ValueType}{named}".strip()
    for each in item.get("ContentSequence", ()):
        yield from _content(each, depth + 1)


def _characters() -> Iterator[str]:
    read = ", ".join(sorted(each for each in charset.python_encoding if each))
    written = ", ".join(PLAIN_CHARACTER_SETS)
    yield f"""\
## 5 Character sets

Read: {read}. A text of an unknown set is read as far as possible, and never refuses an image.

Written in reports: that of the image if it is one of {written} and holds all texts; otherwise
{UTF_8}. A report whose texts are ASCII names no Specific Character Set.
"""


def _security() -> Iterator[str]:
    yield f"""\
## 6 Security

- **TLS** by the profile of BCP 195 (PS3.15 Annex B): TLS 1.2 and 1.3, cipher suites of TLS 1.2
  `{CIPHERS}`, no compression, no renegotiation. With `{PREFIX}DICOM_TLS_CLIENTS` a client needs a
  certificate. The receiver with a certificate accepts no connection without TLS.
- **Who may send**: `{PREFIX}DICOM_CALLERS`, AE titles and networks; by default this machine only.
  HTTP needs the permission `classify` ([access](access.md)).
- **No image is stored.** Results with attributes of the patient are in the outbox until they are
  delivered. [No attribute is in a log or a metric](security.md).
"""
