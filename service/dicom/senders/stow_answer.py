"""The answer to STOW-RS: what became of each instance (PS3.18 10.5.3, Table 10.5.1-2)."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

FAILED, REFERENCED = "00081198", "00081199"  # sequences
INSTANCE_UID, FAILURE_REASON, WARNING_REASON = "00081155", "00081197", "00081196"
Item = dict[str, str]  # the first value of each attribute, by tag


class AnswerError(Exception):
    """The answer is no Store Instances Response."""


def failure_of(content_type: str, body: bytes, sop_instance_uid: str) -> int | None:
    """Why the instance was not stored.

    Returns:
        Its Failure Reason; None if it is in the Referenced SOP Sequence only.

    Raises:
        AnswerError: The answer does not name the instance.
    """
    items = _items(content_type, body)
    for item in items.get(FAILED, []):
        if item.get(INSTANCE_UID, sop_instance_uid) == sop_instance_uid:
            return _number(item.get(FAILURE_REASON))
    if _referenced(items, sop_instance_uid) is None:
        raise AnswerError("the answer does not name the instance")
    return None


def warning_of(content_type: str, body: bytes, sop_instance_uid: str) -> int | None:
    """The Warning Reason of an instance that was stored; None if it has none."""
    found = _referenced(_items(content_type, body), sop_instance_uid)
    if found is None or WARNING_REASON not in found:
        return None
    return _number(found[WARNING_REASON])


def _referenced(items: dict[str, list[Item]], sop_instance_uid: str) -> Item | None:
    return next(
        (item for item in items.get(REFERENCED, []) if item.get(INSTANCE_UID) == sop_instance_uid),
        None,
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _items(content_type: str, body: bytes) -> dict[str, list[Item]]:
    read = _from_xml if "xml" in content_type.lower() else _from_json
    try:
        return read(body)
    except (ValueError, RecursionError, ET.ParseError) as error:
        raise AnswerError("the answer is not DICOM JSON or XML") from error


def _from_json(body: bytes) -> dict[str, list[Item]]:
    data = json.loads(body)
    if isinstance(data, list) and len(data) == 1:  # some servers answer an array
        data = data[0]
    return {
        tag: [
            {key: str(value) for key in item if (value := _first(_at(item, key))) is not None}
            for item in _values(_at(data, tag))
            if isinstance(item, dict)
        ]
        for tag in (FAILED, REFERENCED)
    }


def _at(data: Any, key: str) -> Any:
    return data.get(key) if isinstance(data, dict) else None


def _values(attribute: Any) -> list[Any]:
    values = _at(attribute, "Value")
    return values if isinstance(values, list) else []


def _first(attribute: Any) -> Any:
    return next(iter(_values(attribute)), None)


def _from_xml(body: bytes) -> dict[str, list[Item]]:
    # Expat bounds the expansion of entities, and reads no other files
    root = ET.fromstring(body)  # noqa: S314
    return {
        attribute.get("tag", "").upper(): [
            dict(_xml_item(item)) for item in _named(attribute, "Item")
        ]
        for attribute in _named(root, "DicomAttribute")
    }


def _xml_item(item: ET.Element) -> Iterator[tuple[str, str]]:
    for attribute in _named(item, "DicomAttribute"):
        for value in _named(attribute, "Value"):
            yield attribute.get("tag", "").upper(), (value.text or "").strip()
            break


def _named(parent: ET.Element, name: str) -> list[ET.Element]:
    """Children with this name, in any namespace."""
    return [child for child in parent if child.tag.rpartition("}")[2] == name]
