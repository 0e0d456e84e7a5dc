"""The result as an event."""

from __future__ import annotations

import json

import needs
import pytest
from dicom_results import AT, KINDS, answered, cards

from model_store import Prediction
from service.dicom.event import event
from service.dicom.findings import report_uid

CARDS = cards()


@pytest.mark.parametrize("kind", KINDS)
def test_the_sdk_of_cloudevents_reads_it(kind) -> None:
    """With the attributes that a receiver routes by."""
    http = pytest.importorskip("cloudevents.core.bindings.http", reason=needs.DEV)
    result = KINDS[kind](CARDS)
    made = event(result, "urn:example:cxrview")
    message = http.HTTPMessage(
        {"content-type": "application/cloudevents+json"}, json.dumps(made).encode()
    )
    read = http.from_http_event(message)
    assert read.get_id() == report_uid(result)
    assert read.get_source() == "urn:example:cxrview"
    refused = result.classification is None
    assert read.get_type() == f"cxrview.image.{'refused' if refused else 'classified'}"
    assert read.get_subject() == result.source.sop_instance_uid
    assert read.get_time() == AT
    assert read.get_data() == made["data"]
    assert (made["data"]["answer"] is None) == refused
    assert made["data"]["problem"] == result.problem
    if result.classification is not None:
        assert made["data"]["answer"]["view"] == result.classification.view
        assert made["data"]["answer"]["pfi"] == result.classification.pfi
    assert event(result, "urn:example:cxrview") == made


def test_it_holds_no_text_of_the_header() -> None:
    """What stands in an attribute may be a name, whatever the attribute is for."""
    attributes = dict.fromkeys(
        (
            "PatientName",
            "PatientID",
            "AccessionNumber",
            "StudyID",
            "StudyDescription",
            "ViewPosition",
            "BodyPartExamined",
            "ReferringPhysicianName",
        ),
        "SECRET",
    )
    result = answered(CARDS.headed, Prediction(0.5, 0.9), **attributes)
    assert "SECRET" in str(result.classification.header)
    made = event(result, "urn:x")
    assert "SECRET" not in json.dumps(made)
    assert made["data"]["answer"]["header"] == {"agrees": None, "body_part_agrees": None}
