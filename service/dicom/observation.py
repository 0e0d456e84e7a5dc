"""A result as a FHIR R4 (4.0.1) Observation."""

from __future__ import annotations

from datetime import date

from pydantic import JsonValue
from pydicom import Dataset

from service.dicom.findings import (
    IMAGE_VIEW,
    PRIVATE,
    REFUSED,
    Code,
    Finding,
    Quantity,
    findings,
    model_uid,
    report_uid,
)
from service.dicom.instance import Result

# The URIs of coding schemes, by their designators in DICOM
SYSTEMS = {
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "SCT": "http://snomed.info/sct",
    PRIVATE: "urn:cxrview:concept",
}
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
UNITS = "http://unitsofmeasure.org"
DICOM_UID = "urn:dicom:uid"


def observation(result: Result) -> dict[str, JsonValue]:
    """The Observation, without an `id`: its `identifier` is the UID of the structured report.

    The patient and the study are referred to by identifier, so that no server has to be asked for
    theirs. It holds the Patient ID, and neither name nor birth date.

    References:
        https://hl7.org/fhir/R4/observation.html
    """
    source, found = result.source, findings(result)
    resource: dict[str, JsonValue] = {
        "resourceType": "Observation",
        "identifier": [_uid(report_uid(result))],
        "status": "cancelled" if result.classification is None else "preliminary",
        "category": [_concept(f"{TERMINOLOGY}/observation-category", "imaging", "Imaging")],
        "code": _coded(IMAGE_VIEW),
        **_subject(result),
        "focus": [{"identifier": _uid(source.sop_instance_uid), "display": "the image"}],
        **_effective(source.attributes.get("StudyDate")),
        "issued": result.at.isoformat(timespec="milliseconds"),
        **_value(found),
        "device": {
            "type": "Device",
            "identifier": _uid(model_uid(result.card)),
            "display": f"cxrview {result.card.name} {result.card.version}",
        },
        "derivedFrom": [{"type": "ImagingStudy", "identifier": _uid(source.study_instance_uid)}],
    }
    components: list[JsonValue] = [
        _component(each) for each in found if each.name not in {IMAGE_VIEW, REFUSED}
    ]
    return resource | ({"component": components} if components else {})


def _subject(result: Result) -> dict[str, JsonValue]:
    """The patient by Patient ID; nothing without one."""
    attributes = result.source.attributes
    if "PatientID" not in attributes:
        return {}
    issuer = _text(attributes, "IssuerOfPatientID")
    identifier: dict[str, JsonValue] = {
        "type": _concept(f"{TERMINOLOGY}/v2-0203", "MR", "Medical record number"),
        "value": _text(attributes, "PatientID"),
    }
    if issuer:
        identifier["assigner"] = {"display": issuer}
    return {"subject": {"type": "Patient", "identifier": identifier}}


def _text(attributes: Dataset, keyword: str) -> str:
    """A value that is one by the Standard, although it may hold a backslash."""
    value = attributes.get(keyword, "")
    return value if isinstance(value, str) else "\\".join(value)


def _effective(study_date: str | None) -> dict[str, JsonValue]:
    """When the image was made; a date, as the time zone of a time would have to be guessed."""
    if not study_date:
        return {}
    return {"effectiveDateTime": date.fromisoformat(study_date).isoformat()}


def _value(found: list[Finding]) -> dict[str, JsonValue]:
    """The view, or why there is none."""
    for name, value in found:
        if name == IMAGE_VIEW and isinstance(value, Code):
            return {"valueCodeableConcept": _coded(value)}
        if name == REFUSED and isinstance(value, Code):
            reason = _concept(f"{TERMINOLOGY}/data-absent-reason", "not-performed", "Not Performed")
            return {"dataAbsentReason": reason | {"text": value.value}}
    reason = _concept(f"{TERMINOLOGY}/data-absent-reason", "not-applicable", "Not Applicable")
    return {"dataAbsentReason": reason | {"text": "not_chest"}}


def _component(finding: Finding) -> dict[str, JsonValue]:
    component: dict[str, JsonValue] = {"code": _coded(finding.name)}
    value = finding.value
    if isinstance(value, bool):
        return component | {"valueBoolean": value}
    if isinstance(value, Quantity):
        quantity: dict[str, JsonValue] = {
            "value": value.value,
            "unit": value.unit,
            "system": UNITS,
            "code": value.unit,
        }
        return component | {"valueQuantity": quantity}
    return component | {"valueCodeableConcept": _coded(value)}


def _coded(code: Code) -> dict[str, JsonValue]:
    return _concept(SYSTEMS[code.scheme], code.value, code.meaning)


def _concept(system: str, code: str, display: str) -> dict[str, JsonValue]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _uid(value: str) -> dict[str, JsonValue]:
    """A DICOM UID as an identifier."""
    return {"system": DICOM_UID, "value": f"urn:oid:{value}"}
