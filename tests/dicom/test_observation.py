"""The result as a FHIR resource."""

from __future__ import annotations

import json
from decimal import Decimal

import needs
import pytest
from dicom_results import AT, KINDS, STUDY, answered, cards

from model_store import Prediction
from service.dicom.findings import IMAGE_VIEW, REFUSED, Code, Quantity, findings, report_uid
from service.dicom.instance import Result
from service.dicom.observation import observation

CARDS = cards()


@pytest.fixture(params=KINDS)
def result(request) -> Result:
    """One of every kind."""
    return KINDS[request.param](CARDS)


def test_fhir_resources_finds_it_valid(result) -> None:
    """By its models of R4B, which differs from R4 in no element that is used here."""
    models = pytest.importorskip("fhir.resources.R4B.observation", reason=needs.DEV)
    found = json.loads(json.dumps(observation(result)))
    read = models.Observation.model_validate(found)
    assert read.issued == AT
    again = json.loads(read.model_dump_json())
    assert sorted(again) == sorted(found)
    assert again["component"] == found["component"] if "component" in found else True


def test_it_says_what_the_report_says(result) -> None:
    """The same codes and values, of which the view is the Observation's own value."""
    resource = observation(result)
    found = findings(result)
    own = {name.value: value for name, value in found if name in {IMAGE_VIEW, REFUSED}}
    components = [each for each in found if each.name not in {IMAGE_VIEW, REFUSED}]
    if "111031" in own:
        (coding,) = resource["valueCodeableConcept"]["coding"]
        assert isinstance(own["111031"], Code)
        assert (coding["system"], coding["code"]) == (
            "http://snomed.info/sct", own["111031"].value
        )  # fmt: skip
        assert "dataAbsentReason" not in resource
    else:
        assert "valueCodeableConcept" not in resource
        assert resource["dataAbsentReason"]["text"] == (result.problem or "not_chest")
    assert resource["status"] == ("cancelled" if result.problem else "preliminary")
    said = resource.get("component", [])
    assert len(said) == len(components)
    for component, (name, value) in zip(said, components, strict=True):
        assert component["code"]["coding"][0]["code"] == name.value
        if isinstance(value, Quantity):
            assert component["valueQuantity"]["value"] == value.value
            assert abs(Decimal(str(value.value)).as_tuple().exponent) <= 6
        elif isinstance(value, bool):
            assert component["valueBoolean"] is value
        else:
            assert component["valueCodeableConcept"]["coding"][0]["code"] == value.value


def test_it_refers_by_identifier(result) -> None:
    """To study, image, report and device: no server has to be asked for its own."""
    resource = observation(result)
    uids = "urn:dicom:uid"
    (study,) = resource["derivedFrom"]
    assert study["identifier"] == {"system": uids, "value": f"urn:oid:{STUDY}"}
    (image,) = resource["focus"]
    assert image["identifier"]["value"] == f"urn:oid:{result.source.sop_instance_uid}"
    assert resource["identifier"] == [{"system": uids, "value": f"urn:oid:{report_uid(result)}"}]
    assert resource["device"]["identifier"]["value"].startswith("urn:oid:2.25.")
    assert observation(result) == resource


def test_it_holds_the_patients_id_and_no_more() -> None:
    """No name, birth date, accession number or description; not even an ID if there is none."""
    names = {"PatientName": "SECRET^Name", "StudyDescription": "SECRET", "PatientSex": "O"}
    names |= {"AccessionNumber": "SECRET", "ReferringPhysicianName": "SECRET", "StudyID": "SECRET"}
    names |= {"PatientBirthDate": "19010203", "ViewPosition": "SECRET", "IssuerOfPatientID": "KH"}
    text = json.dumps(observation(answered(CARDS.plain, Prediction(0.5), **names)))
    assert "SECRET" not in text
    assert "1901" not in text
    subject = json.loads(text)["subject"]["identifier"]
    assert (subject["value"], subject["assigner"]) == ("4711", {"display": "KH"})
    assert "subject" not in observation(answered(CARDS.plain, Prediction(0.5), PatientID=""))
    two = observation(answered(CARDS.plain, Prediction(0.5), PatientID="47\\11"))
    assert two["subject"]["identifier"]["value"] == "47\\11"
