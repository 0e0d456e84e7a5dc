"""The Job, and the RayJob, that work on an archive in Kubernetes."""

from __future__ import annotations

import shlex
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from conftest import ROOT

from service.cli import parser

VERSIONS = ("1.31", "1.33", "1.34")
JOB = yaml.safe_load((ROOT / "deploy/backfill/job.yaml").read_text())
RAYJOB, POLICY = yaml.safe_load_all((ROOT / "deploy/backfill/rayjob.yaml").read_text())
CLUSTER = RAYJOB["spec"]["rayClusterSpec"]
GROUPS = (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"])
PODS = [JOB["spec"]["template"], *(group["template"] for group in GROUPS)]
COMMANDS = {
    "Job": PODS[0]["spec"]["containers"][0]["args"],
    "RayJob": shlex.split(RAYJOB["spec"]["entrypoint"])[1:],
}


@pytest.mark.parametrize("version", VERSIONS)
def test_all_objects_are_valid(version: str) -> None:
    """Every key is one that Kubernetes knows."""
    kubernetes_validate.validate(JOB, version, strict=True)
    kubernetes_validate.validate(POLICY, version, strict=True)
    for template in PODS:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}} | template
        kubernetes_validate.validate(pod, version, strict=True)


def test_a_rayjob_is_one_of_its_operator() -> None:
    """Keys that KubeRay's definitions have: others would be refused, or left out."""
    known = {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes",
             "ttlSecondsAfterFinished", "rayClusterSpec"}  # fmt: skip
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    assert RAYJOB["spec"].keys() == known
    groups = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert CLUSTER.keys() == groups
    assert CLUSTER["authOptions"] == {"mode": "token"}
    head, workers = GROUPS
    assert head.keys() == {"rayStartParams", "template"}
    assert workers.keys() == head.keys() | {"groupName", "replicas", "minReplicas", "maxReplicas"}
    for group in GROUPS:  # they are passed to a shell
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert head["rayStartParams"]["num-cpus"] == "0"


def test_a_cluster_is_of_the_version_in_the_image() -> None:
    """As the operator reads from it what it can do."""
    assert CLUSTER["rayVersion"] == ray.__version__
    assert f"ray=={ray.__version__}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_workers_run_a_command_that_exists_and_share_its_job(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All use one ledger and one folder; a worker that restarts goes on."""
    monkeypatch.setenv("CXRVIEW_BACKFILL_LEDGER", "postgresql+pg8000://somewhere")
    options = parser().parse_args(COMMANDS[name])
    assert options.resume
    assert options.ledger == "postgresql+pg8000://somewhere"
    assert options.engine == ("ray" if name == "RayJob" else "local")
    assert str(options.out).startswith("/results/")
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"] > 1


def container_of(template: dict[str, Any]) -> dict[str, Any]:
    (found,) = template["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def test_all_machines_have_what_a_worker_needs() -> None:
    """The ledger, the archive's token, the results; and nothing is mounted that is not there."""
    for template in PODS:
        container = container_of(template)
        named = {each["name"] for each in container["env"]}
        assert named == {"CXRVIEW_BACKFILL_LEDGER", "CXRVIEW_DICOMWEB_TOKEN_FILE"}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts.keys() >= {"/results", "/token"}
        assert set(mounts.values()) == {volume["name"] for volume in template["spec"]["volumes"]}
    for template in PODS[1:]:  # where Ray writes
        assert {"name": "ray", "mountPath": "/tmp"} in container_of(template)["volumeMounts"]


def test_all_pods_meet_the_restricted_pod_security_standard() -> None:
    """Not root, no escalation, no capabilities, the default seccomp profile, a sealed root."""
    for template in PODS:
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        seccomp = template["spec"]["securityContext"]["seccompProfile"]
        assert seccomp == {"type": "RuntimeDefault"}
        own = container_of(template)["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"]
