"""The chart, rendered with the values that tests try it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import yaml
from conftest import ROOT

Object = dict[str, Any]


def merged(values: Object, more: Object) -> Object:
    """As Helm merges two files of values."""
    both = {
        key: merged(values[key], value)
        for key, value in more.items()
        if isinstance(value, dict) and isinstance(values.get(key), dict)
    }
    return values | more | both


CHART = ROOT / "helm" / "cxrview"
ANONYMOUS = {"allowAnonymous": True}
KEYS = {"keys": {"secretName": "keys"}}
ALL = yaml.safe_load((CHART / "ci" / "all-values.yaml").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
DEV, PROD, ORTHANC = (
    yaml.safe_load((ROOT / "deploy" / f"values-{name}.yaml").read_text())
    for name in ("dev", "prod", "orthanc")
)
# The smallest that delivers results and receives DICOM: SQLite, one pod
DICOM: Object = KEYS | {
    "replicas": 1,
    "destinations": {"configMapName": "destinations"},
    "dicom": {"enabled": True},
    "config": {"dicom_callers": ["10.0.0.0/8"]},
    "networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.8/32"}}]}]},
}
# Made of the above: what else excludes a value of ci/all-values.yaml
CPU = {**ALL, "gpu": {"enabled": False}, "state": {"enabled": True, "existingClaim": "disk"}}
CASES = {
    "anonymous": ANONYMOUS,
    "keys": KEYS,
    "all": ALL,
    "dev": DEV,
    "prod": PROD,
    "cpu": CPU,
    "dicom": DICOM,
    "orthanc": merged(DEV, ORTHANC),
}


def render(values: Object, folder: Path = CHART) -> list[Object]:
    """The objects of a release, in no order."""
    with helm_python.Chart.load(folder) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="release", namespace="here")
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def pod_of(objects: list[Object]) -> Object:
    (deployment,) = of_kind(objects, "Deployment")
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


def environment(pod: Object) -> dict[str, str]:
    """The variables with a value; others come from Secrets."""
    env = pod["containers"][0]["env"]
    return {each["name"]: each["value"] for each in env if "value" in each}
