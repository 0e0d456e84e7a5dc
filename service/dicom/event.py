"""A result as an event: CloudEvents 1.0 in JSON."""

from __future__ import annotations

from pydantic import JsonValue

from service.dicom.findings import report_uid
from service.dicom.instance import Result
from service.inference import Classification
from service.inference.classification import ModelReference

CLASSIFIED = "cxrview.image.classified"
REFUSED = "cxrview.image.refused"


def event(result: Result, source: str) -> dict[str, JsonValue]:
    """The event. Of the patient it holds the UIDs, and no text of the header.

    Args:
        result: Its event has the same `id` each time, so that a receiver knows a repetition.
        source: A URI reference of the service that answers.

    References:
        https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
    """
    refused = result.classification is None
    return {
        "specversion": "1.0",
        "id": report_uid(result),
        "source": source,
        "type": REFUSED if refused else CLASSIFIED,
        "subject": result.source.sop_instance_uid,
        "time": result.at.isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": {
            "study_instance_uid": result.source.study_instance_uid,
            "series_instance_uid": result.source.series_instance_uid,
            "sop_instance_uid": result.source.sop_instance_uid,
            "sop_class_uid": result.source.sop_class_uid,
            "model": ModelReference.of(result.card).model_dump(mode="json"),
            "problem": result.problem,
            "answer": _answer(result.classification),
        },
    }


def _answer(answer: Classification | None) -> JsonValue:
    """The answer of the API; of the header only whether it agrees, as its texts may be anything."""
    if answer is None:
        return None
    said: dict[str, JsonValue] = answer.model_dump(
        mode="json", exclude={"header": {"view_position", "body_part_examined"}}
    )
    for named_elsewhere in ("sop_instance_uid", "model"):
        del said[named_elsewhere]
    return said
