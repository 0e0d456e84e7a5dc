"""The Job that works on an archive in Kubernetes."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT

from service.cli import _parser

JOB = yaml.safe_load((ROOT / "deploy/backfill/job.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.34"])
def test_the_job_is_valid(version: str) -> None:
    """Every key is one that Kubernetes knows."""
    kubernetes_validate.validate(JOB, version, strict=True)


def test_workers_run_a_command_that_exists_and_share_its_job() -> None:
    """One ledger and one folder for all; whoever starts again goes on."""
    options = _parser().parse_args(CONTAINER["args"])
    assert options.resume
    assert options.ledger == "$(LEDGER)"
    assert {each["name"] for each in CONTAINER["env"]} >= {"LEDGER"}
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"] > 1
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert any(str(options.out).startswith(f"{path}/") for path in mounts)
    assert mounts.keys() == {"/results", "/token"}
    assert set(mounts.values()) == {volume["name"] for volume in POD["volumes"]}


def test_the_job_meets_the_restricted_pod_security_standard() -> None:
    """Not root, no escalation, no capabilities, the default seccomp profile, a sealed root."""
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = CONTAINER["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"]
