"""The parts of the OpenAPI description that FastAPI cannot infer: streamed bodies, and access."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.api.routes.backfill_schemas import NewBackfill

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
NEW_BACKFILL: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NewBackfill.model_json_schema()}},
    }
}
ROWS_ANSWER: dict[str, Any] = {
    "description": "One JSON object a line: the row of an image, as docs/backfill-results.md says",
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}
CERTIFICATE_ANSWER: dict[str, Any] = {
    "description": "The certificate, as docs/backfill-results.md says",
    "content": {"application/json": {"schema": {"type": "object"}}},
}
METRICS_ANSWER: dict[str, Any] = {
    "description": "The text format of Prometheus",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def describe_access(app: FastAPI) -> None:
    """Remove the security scheme if every client is accepted."""
    access = app.state.access
    if access.keys is None and access.tokens is None:
        described = app.openapi()  # FastAPI caches it, so the change stays
        described["components"].pop("securitySchemes")
        for operations in described["paths"].values():
            for operation in operations.values():
                operation.pop("security", None)
