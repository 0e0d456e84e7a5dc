"""The Job that runs a study on Kubernetes."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT

from training.__main__ import parser

JOB = yaml.safe_load((ROOT / "deploy/training/job.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.34"])
def test_the_job_is_valid(version: str) -> None:
    """Every key is one that Kubernetes knows."""
    kubernetes_validate.validate(JOB, version, strict=True)


def test_the_job_runs_a_command_that_exists() -> None:
    """Its arguments are those of `python -m training`, and a restart goes on."""
    options = parser().parse_args(CONTAINER["args"])
    assert options.resume
    assert CONTAINER["args"][0] == "reproduce"


def test_the_job_meets_the_restricted_pod_security_standard() -> None:
    """Not root, no escalation, no capabilities, the default seccomp profile."""
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = CONTAINER["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"]


def test_everything_mounted_is_a_volume() -> None:
    """And the folder that the run is written to is one that outlives the pod."""
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["work"] == CONTAINER["workingDir"]
    assert "persistentVolumeClaim" in volumes["work"]
