"""The chart: what it renders is valid, hardened, and configures the service that is there."""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from charts import (
    ALL,
    ANONYMOUS,
    CASES,
    CHART,
    CPU,
    DEFAULTS,
    DEV,
    KEYS,
    ORTHANC,
    PROD,
    Object,
    environment,
    of_kind,
    pod_of,
    render,
)
from conftest import DATA, ROOT

from service.api.settings import Settings
from service.cli import parser

# What the chart sets itself, from values of other names; what is in the image
SET_BY_CHART = {
    *("allow_anonymous", "audit_key", "audit_log", "drain_seconds"),
    *("engine_cache", "keys", "provider", "destinations", "outbox"),
    *("dicom_tls_certificate", "dicom_tls_clients", "dicom_tls_key"),
}
# In the image; and jobs belong to one process with a disk of its own, not to one of many replicas
NOT_OFFERED = {
    *("model_store", "backfill_folder", "backfill_sources", "backfill_ledger"),
    *("calibration_folder", "max_calibration_bytes"),  # of jobs
}
UNKNOWN_KINDS = {
    "PrometheusRule",
    "ScaledObject",
    "ServiceMonitor",
}  # custom resources, whose schemas Kubernetes does not have


@pytest.fixture(scope="module", params=CASES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return render(CASES[request.param])


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_helm_has_nothing_to_say(values: Object) -> None:
    """Not even a warning."""
    report = helm_python.lint(CHART, values, strict=True)
    assert not report["errors"]
    assert all("icon" in each["error"] for each in report["messages"])


@pytest.mark.parametrize("version", ["1.31", "1.33", "1.34"])
def test_all_objects_are_valid(objects: list[Object], version: str) -> None:
    """Every key is one that Kubernetes knows."""
    for each in objects:
        if each["kind"] not in UNKNOWN_KINDS:
            kubernetes_validate.validate(each, version, strict=True)


def test_each_value_has_its_object() -> None:
    """With all values there is one of each; without, what is needed and the walls around it."""
    always = {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
    assert {each["kind"] for each in render(KEYS)} == always
    more = {
        "ConfigMap",
        "Ingress",
        "PersistentVolumeClaim",
        "Pod",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
    }
    assert {each["kind"] for each in render(ALL)} == always | more
    assert of_kind(render(PROD), "HorizontalPodAutoscaler")


def test_pods_meet_the_restricted_standard(objects: list[Object]) -> None:
    """Not root, no escalation, no capabilities, a sealed root, no token of the cluster."""
    for pod in (pod_of(objects), *(each["spec"] for each in of_kind(objects, "Pod"))):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own["readOnlyRootFilesystem"]
            assert container["resources"].keys() == {"requests", "limits"}


def test_values_are_closed_and_all_are_tried() -> None:
    """What the schema does not know is refused; ci/all-values.yaml sets every value there is."""

    def paths(values: Object, schema: Object) -> set[str]:
        found = set()
        for key, value in values.items():
            inner = schema["properties"][key]
            if "properties" in inner:
                found |= {f"{key}.{each}" for each in paths(value, inner)}
            else:
                found.add(key)
        return found

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert paths(DEFAULTS, schema) == paths(ALL, schema)
    unset = {path for path in paths(ALL, schema) if at(ALL, path) == at(DEFAULTS, path)}
    assert unset == {
        # as they are: the other choice excludes values that are to be seen
        "allowAnonymous", "serviceAccount.name", "disruption.enabled", "networkPolicy.enabled",
        "autoscaling.enabled", "state.existingClaim",
    }  # fmt: skip
    for wrong in ({"replica": 1}, {"config": {"port": 1}}, {"gpu": {"enabled": "yes"}}):
        with pytest.raises(helm_python.HelmError):
            render(KEYS | wrong)


def at(values: Object, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


@pytest.mark.parametrize("values", [DEV, PROD, ORTHANC], ids=["dev", "prod", "orthanc"])
def test_examples_state_only_what_differs(values: Object) -> None:
    """A value that is the default says nothing, and would hide when that changes."""

    def same(values: Object, defaults: Object) -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict) and isinstance(defaults.get(key), dict) and defaults[key]:
                yield from same(value, defaults[key])
            elif value == defaults.get(key):
                yield key

    assert list(same(values, DEFAULTS | {"resources": {}})) == []


def test_the_configuration_is_that_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings and no others; and the variables of a pod are understood as they were meant."""
    assert DEFAULTS["config"].keys() == Settings.model_fields.keys() - SET_BY_CHART - NOT_OFFERED
    for name, value in environment(pod_of(render(ALL))).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    understood = {name: getattr(settings, name) for name in ALL["config"]}
    listed = {name: list(value) for name, value in understood.items() if isinstance(value, tuple)}
    assert understood | listed == ALL["config"]
    assert (settings.provider, settings.drain_seconds) == ("tensorrt", 15)
    assert str(settings.engine_cache) == "/state/engines"
    assert str(settings.keys) == "/keys/keys"
    assert str(settings.destinations) == "/destinations/pacs.toml"
    assert str(settings.dicom_tls_certificate) == "/dicom-tls/certificate.pem"


def test_the_service_is_started_as_it_can_be(objects: list[Object]) -> None:
    """The arguments are its own, its ports are those of probes and Services."""
    pod = pod_of(objects)
    container = pod["containers"][0]
    options: argparse.Namespace = parser().parse_args(container["args"])
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    expected = {"http": options.port, "operations": options.operations_port}
    if options.dicom_port is not None:
        expected["dicom"] = options.dicom_port
    assert ports == expected
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "operations"
    for service in of_kind(objects, "Service"):
        assert all(each["targetPort"] in ports for each in service["spec"]["ports"])
    assert pod["enableServiceLinks"] is False
    drain = float(environment(pod)["CXRVIEW_DRAIN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] > drain


def test_it_needs_keys_or_tokens_or_a_clear_choice() -> None:
    """Keys, or a decision; TLS where there is an Ingress; nothing goes out."""
    with pytest.raises(helm_python.HelmError, match="secretName: a Secret"):
        render({})
    with pytest.raises(helm_python.HelmError, match="tlsSecretName"):
        render(KEYS | {"ingress": {"enabled": True, "host": "x"}})
    assert environment(pod_of(render(ANONYMOUS)))["CXRVIEW_ALLOW_ANONYMOUS"] == "true"
    tokens = {"config": {"oidc_issuer": "https://idp.example", "oidc_audience": "cxrview"}}
    for values in (KEYS, tokens):
        assert "CXRVIEW_ALLOW_ANONYMOUS" not in environment(pod_of(render(values)))
    (policy,) = of_kind(render(KEYS), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy["spec"]
    assert [each["ports"] for each in policy["spec"]["ingress"]] == [[{"port": "http"}]]
    (policy,) = of_kind(render(ALL), "NetworkPolicy")
    *asked, names = policy["spec"]["egress"]
    assert asked == ALL["networkPolicy"]["egress"]
    assert names["to"] == [{"namespaceSelector": {}}]
    assert {each["port"] for each in names["ports"]} == {53}


def test_files_are_mounted_where_settings_look_for_them(objects: list[Object]) -> None:
    """Keys and the audit log's secret, from Secrets, which no process of the pod may write."""
    pod = pod_of(objects)
    volumes = {each["name"]: each for each in pod.get("volumes", [])}
    found = set()
    for mount in pod["containers"][0].get("volumeMounts", []):
        if "secret" in volumes[mount["name"]]:
            assert mount["readOnly"]
            (item,) = volumes[mount["name"]]["secret"]["items"]
            found.add(f"{mount['mountPath']}/{item['path']}")
    variables = environment(pod)
    wanted = {variables.get("CXRVIEW_KEYS"), variables.get("CXRVIEW_AUDIT_KEY")}
    assert found == wanted - {None}


def test_a_gpu_is_one_value() -> None:
    """It brings image, resource, runtime class, node selector and tolerations with it."""
    gpu = {key: value for key, value in ALL["gpu"].items() if key != "enabled"}
    without = pod_of(render(KEYS | {"gpu": gpu}))
    assert without == pod_of(render(KEYS))
    pod = pod_of(render(KEYS | {"gpu": ALL["gpu"]}))
    container = pod["containers"][0]
    assert container["image"].endswith("-gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["tolerations"] == ALL["gpu"]["tolerations"]
    assert environment(pod)["CXRVIEW_PROVIDER"] == "tensorrt"
    compiles, loads = (
        each["containers"][0]["startupProbe"]["failureThreshold"] for each in (pod, without)
    )
    assert compiles > loads


def test_a_gpu_has_larger_batches_unless_config_says_otherwise() -> None:
    """A CPU keeps the default of the service."""
    on = {"gpu": {"enabled": True}}
    for values, expected in (
        ({}, None),
        (on, "32"),
        ({"gpu": {"enabled": True, "maxBatchImages": 64}}, "64"),
        (on | {"config": {"max_batch_images": 16}}, "16"),
    ):
        variables = environment(pod_of(render(KEYS | values)))
        assert variables.get("CXRVIEW_MAX_BATCH_IMAGES") == expected


def test_the_number_of_pods_has_one_owner() -> None:
    """`replicas`, an autoscaler or KEDA: an upgrade must not undo what those have decided."""
    keda = {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}}
    hpa = {"autoscaling": {"enabled": True}}
    for values, counted in ((KEYS, 2), (KEYS | keda, None), (KEYS | hpa, None)):
        (deployment,) = of_kind(render(values), "Deployment")
        assert deployment["spec"].get("replicas") == counted
    with pytest.raises(helm_python.HelmError, match="autoscaling and keda"):
        render(KEYS | keda | hpa)
    with pytest.raises(helm_python.HelmError, match="prometheusAddress"):
        render(KEYS | {"keda": {"enabled": True}})


def test_state_outlives_pods() -> None:
    """A claim, one's own or one that is made and kept; what is mounted can be written to."""
    for values, name, made in ((ALL, "release-cxrview-state", 1), (CPU, "disk", 0)):
        objects = render(values)
        pod = pod_of(objects)
        mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
        assert mounts["state"] == {"name": "state", "mountPath": "/state"}
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert mounts.keys() == volumes.keys()
        assert volumes["state"]["persistentVolumeClaim"]["claimName"] == name
        claims = of_kind(objects, "PersistentVolumeClaim")
        assert [each["metadata"]["name"] for each in claims] == [name] * made
    assert "CXRVIEW_ENGINE_CACHE" not in environment(pod_of(render(CPU)))
    assert "volumes" not in pod_of(render(ANONYMOUS))


def test_every_dashboard_is_brought(tmp_path: Path) -> None:
    """As it is in its file, which Grafana's sidecar finds by the label."""
    copy = shutil.copytree(CHART, tmp_path / "cxrview")
    folder = copy / "files" / "dashboards"
    folder.mkdir(exist_ok=True)
    for name in ("one", "two"):
        (folder / f"{name}.json").write_text(json.dumps({"title": f"{{{{ {name} }}}}\n"}))
    for chart in (CHART, copy):
        (made,) = (
            each
            for each in of_kind(render(ALL, chart), "ConfigMap")
            if each["metadata"]["name"].endswith("-dashboards")
        )
        files = {
            each.name: each.read_text() for each in (chart / "files/dashboards").glob("*.json")
        }
        assert made["data"] == files
        assert made["metadata"]["labels"]["dashboards"] == "yes"
        assert made["metadata"]["annotations"] == {"grafana_folder": "Radiology"}
        assert len(json.dumps(made)) < 2**20  # what a ConfigMap can hold


def test_alerts_lead_to_the_runbook_and_look_at_metrics_that_exist() -> None:
    """Each has a section of its own, and only names that docs/metrics.md or the rules know."""
    (made,) = of_kind(render(ALL), "PrometheusRule")
    rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert made["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    sections = re.findall("^## (.*)$", (ROOT / "deploy" / "runbook.md").read_text(), re.MULTILINE)
    alerts = [rule["alert"] for rule in rules if "alert" in rule]
    assert alerts == sections
    for rule in rules:
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            section = rule["alert"].lower()
            assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{section}"
    known = set(
        re.findall(r"^\| `(cxrview_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )
    known |= {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        for name in re.findall(r"\bcxrview[_:][\w:]+", rule["expr"]):
            assert name in known or name.removesuffix("_bucket") in known, name


def test_the_trial_classifies_a_real_radiograph() -> None:
    """`helm test` sends one of ours, with the key, and its script is Python."""
    objects = render(ALL)
    (files,) = (each for each in of_kind(objects, "ConfigMap") if "binaryData" in each)
    sent = base64.b64decode(files["binaryData"]["lateral.jpg"])
    assert sent == (DATA / "lateral-0048.jpg").read_bytes()
    compile(files["data"]["classify.py"], "classify.py", "exec")
    (pod,) = of_kind(objects, "Pod")
    url = pod["spec"]["containers"][0]["args"][0]
    assert url == "http://release-cxrview:8080/v1/classify"
    (policy,) = of_kind(objects, "NetworkPolicy")
    peers = policy["spec"]["ingress"][0]["from"]
    labels = pod["metadata"]["labels"]
    assert any(labels == peer.get("podSelector", {}).get("matchLabels") for peer in peers)
