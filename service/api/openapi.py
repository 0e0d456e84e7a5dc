"""The parts of the OpenAPI description that FastAPI cannot infer: streamed bodies, and access."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from service.api.routes.backfill_schemas import NewBackfill
from service.api.routes.review_schemas import NewDecision
from service.dicom.stow import JSON, XML

BINARY = {"schema": {"type": "string", "format": "binary"}}
FILES = {"type": "array", "items": BINARY["schema"], "minItems": 1}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "properties": {field: schema}, "required": [field]}}


ONE_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": _form("file", BINARY["schema"]),
            "application/dicom": BINARY,
            "image/png": BINARY,
            "image/jpeg": BINARY,
            "application/octet-stream": BINARY,
        },
    }
}
MANY_FILES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": _form("files", FILES),
            "application/zip": BINARY,
            "application/x-tar": BINARY,
        },
    }
}
RELATED = 'multipart/related; type="application/dicom"'
OBJECTS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            RELATED: {"schema": {"type": "array", "items": BINARY["schema"], "minItems": 1}},
            "application/dicom": BINARY,
        },
    }
}
STOW_ANSWERS = {
    200: "Every object is accepted",
    202: "Some objects are accepted; Failed SOP Sequence names the others",
    409: "No object is accepted; Failed SOP Sequence says why",
    503: "Nothing is accepted now, because the service is overloaded; `Retry-After` says when to "
    "send it again. Or a problem",
}
STOW_EXAMPLE = {
    "00081190": {"vr": "UR"},
    "00081198": {
        "vr": "SQ",
        "Value": [
            {
                "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                "00081155": {"vr": "UI", "Value": ["1.2.826.0.1.3680043.8.498.2"]},
                "00081197": {"vr": "US", "Value": [290]},
            }
        ],
    },
    "00081199": {
        "vr": "SQ",
        "Value": [
            {
                "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.1.1"]},
                "00081155": {"vr": "UI", "Value": ["1.2.826.0.1.3680043.8.498.1"]},
                "00081190": {"vr": "UR"},
            }
        ],
    },
}
NDJSON_ANSWER: dict[str, Any] = {
    "description": "One JSON object a line: an answer, or an error, each with the file's name",
    "content": {
        "application/x-ndjson": {
            "schema": {"type": "string"},
            "example": (
                '{"name":"a.dcm","view":"frontal","pfi":0.993,"threshold":0.5,"chest":0.998,'
                '"chest_threshold":0.4,"orientation":{"rotation_degrees":90,'
                '"rotation_probability":0.99,"inverted":false,"inverted_probability":0.002,'
                '"mirrored":false,"mirrored_probability":0.04},"review":false,'
                '"header":{"view_position":"PA","agrees":true,"body_part_examined":"CHEST",'
                '"body_part_agrees":true},"sop_instance_uid":"1.2.3",'
                '"model":{"name":"swift","version":"2.0.0","sha256":"5f3c..."},"warnings":[]}\n'
                '{"name":"b.txt","error":{"type":"urn:cxrview:problem:unrecognised_format",'
                '"title":"Not an image","status":415,"detail":"neither DICOM, PNG, JPEG, '
                'JPEG-LS, JPEG 2000 nor TIFF, by content","code":"unrecognised_format"}}\n'
            ),
        }
    },
}


def _json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """The body of a request that is read by `received_json`."""
    content = {"application/json": {"schema": kind.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


NEW_BACKFILL = _json_body(NewBackfill)
NEW_DECISION = _json_body(NewDecision)
DECISIONS_ANSWER: dict[str, Any] = {
    "description": "The table that `form` names, as docs/review.md says",
    "content": {
        "text/csv": {"schema": {"type": "string"}},
        "application/vnd.apache.parquet": BINARY,
    },
}
ROWS_ANSWER: dict[str, Any] = {
    "description": "One JSON object a line: the row of an image, as docs/backfill-results.md says",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}
CERTIFICATE_ANSWER: dict[str, Any] = {
    "description": "The certificate, as docs/backfill-results.md says",
    "content": {"application/json": {"schema": {"type": "object"}}},
}
CSV = "text/csv"
CSV_ANSWER: dict[str, Any] = {
    "description": "CSV, as docs/backfill-results.md says",
    "content": {CSV: {"schema": {"type": "string"}}},
}
METRICS_ANSWER: dict[str, Any] = {
    "description": "The text format of Prometheus",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def with_stow_answers(problems: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """The responses of the Store transaction: its answers beside these problems."""
    model = {"schema": {"type": "object"}, "example": STOW_EXAMPLE}
    content = {JSON: model, XML: {"schema": {"type": "string"}}}
    answers: dict[int | str, dict[str, Any]] = {
        status: {
            "description": description,
            "content": content | problems.get(status, {}).get("content", {}),
        }
        for status, description in STOW_ANSWERS.items()
    }
    return problems | answers


def describe_access(app: FastAPI) -> None:
    """Remove the security scheme if every client is accepted."""
    access = app.state.access
    if access.keys is None and access.tokens is None:
        described = app.openapi()  # FastAPI caches it, so the change stays
        described["components"].pop("securitySchemes")
        for operations in described["paths"].values():
            for operation in operations.values():
                operation.pop("security", None)
