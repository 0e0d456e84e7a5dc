"""DICOM in the chart: the receiver, its Service, TLS and callers; destinations, and the outbox."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import pytest
from charts import (
    ALL,
    CHART,
    DEV,
    DICOM,
    KEYS,
    ORTHANC,
    Object,
    environment,
    merged,
    of_kind,
    pod_of,
    render,
)
from conftest import ROOT

from service.api.settings import Settings
from service.dicom.destinations import read_destinations

POSTGRESQL: Object = {"outbox": {"urlSecretName": "outbox"}}
KEDA: Object = {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}}
DELIVERS: Object = {
    key: DICOM[key] for key in ("keys", "replicas", "destinations", "networkPolicy")
}


def projected(pod: Object, name: str) -> dict[str, Any]:
    """The paths of a projected volume, each with the kind, name and entry it comes from."""
    (volume,) = (each["projected"] for each in pod["volumes"] if each["name"] == name)
    assert volume["defaultMode"] == 0o440
    found: dict[str, Any] = {}
    for source in volume["sources"]:
        ((kind, values),) = source.items()
        for item in values.get("items", [{"path": "*", "key": "*"}]):
            found[item["path"]] = (kind, values["name"], item["key"])
    (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == name)
    assert mount == {"name": name, "mountPath": f"/{name}", "readOnly": True}
    return found


def test_sqlite_is_for_one_pod() -> None:
    """Its volume is kept, and an update ends the pod before the next one mounts the volume."""
    objects = render(DICOM)
    pod = pod_of(objects)
    assert environment(pod)["CXRVIEW_OUTBOX"] == "sqlite:////outbox/outbox.sqlite"
    assert {"name": "outbox", "mountPath": "/outbox"} in pod["containers"][0]["volumeMounts"]
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    named = {"claimName": claim["metadata"]["name"]}
    assert volumes["outbox"]["persistentVolumeClaim"] == named
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    own = render(merged(DICOM, {"outbox": {"existingClaim": "disk"}}))
    assert not of_kind(own, "PersistentVolumeClaim")
    assert {"claimName": "disk"} in [
        each.get("persistentVolumeClaim") for each in pod_of(own)["volumes"]
    ]


@pytest.mark.parametrize("more", [{"replicas": 3}, KEDA, {"autoscaling": {"enabled": True}}])
def test_several_pods_share_postgresql(more: Object) -> None:
    """Its URL holds a password, so it comes from a Secret; no volume, and a rolling update."""
    with pytest.raises(helm_python.HelmError, match="SQLite is for one pod: set replicas: 1"):
        render(merged(DICOM, more))
    objects = render(merged(DICOM, more | POSTGRESQL))
    (variable,) = (
        each for each in pod_of(objects)["containers"][0]["env"] if each["name"] == "CXRVIEW_OUTBOX"
    )
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "outbox", "key": "url"}}
    assert not of_kind(objects, "PersistentVolumeClaim")
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"destinations": {"configMapName": ""}}, "destinations.configMapName or"),
        ({"config": {"dicom_callers": []}}, "config.dicom_callers: who may send"),
        ({"dicom": {"tls": {"clientsSecretName": "ca"}}}, "dicom.tls.secretName"),
        ({"networkPolicy": {"egress": []}}, "networkPolicy.egress: rules"),
        ({"config": {"dicom_ae_title": "LONGER THAN IT MAY"}}, "dicom_ae_title"),
        ({"outbox": {"accessModes": ["ReadWriteMany"]}}, "accessModes"),
        ({"dicom": {"port": 104}}, "port"),
    ],
)
def test_what_could_not_work_is_refused(values: Object, message: str) -> None:
    """With the name of the value to set."""
    with pytest.raises(helm_python.HelmError, match=re.escape(message)):
        render(merged(DICOM, values))


def test_results_may_be_delivered_without_the_receiver() -> None:
    """For STOW-RS: no port is opened for DICOM, in the pod or beside it."""
    objects = render(DELIVERS)
    container = pod_of(objects)["containers"][0]
    assert "--dicom-port" not in container["args"]
    assert container["image"].endswith("-dicom")
    assert not [each for each in objects if each["metadata"]["name"].endswith("-dicom")]
    (policy,) = of_kind(objects, "NetworkPolicy")
    assert [each["ports"] for each in policy["spec"]["ingress"]] == [[{"port": "http"}]]


def test_the_receiver_has_a_service_of_its_own() -> None:
    """Outside of the cluster it keeps the peers' addresses, which the allow-list compares."""
    for values, port, more in (
        ({}, 11112, {"type": "ClusterIP"}),
        (
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "port": 104},
            104,
            {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "loadBalancerSourceRanges": ["10.0.0.0/8"],
            },
        ),
        ({"type": "NodePort"}, 11112, {"type": "NodePort", "externalTrafficPolicy": "Local"}),
    ):
        objects = render(merged(DICOM, {"dicom": {"service": values}}))
        (spec,) = (
            each["spec"]
            for each in of_kind(objects, "Service")
            if each["metadata"]["name"] == "release-cxrview-dicom"
        )
        (deployment,) = of_kind(objects, "Deployment")
        assert spec.pop("selector") == deployment["spec"]["selector"]["matchLabels"]
        assert spec.pop("ports") == [{"name": "dicom", "port": port, "targetPort": "dicom"}]
        assert spec == more


def test_only_named_peers_reach_the_port() -> None:
    """With networkPolicy.dicomFrom; without, the allow-list of the receiver decides alone."""
    peers = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    for values, expected in (
        ({}, {"ports": [{"port": "dicom"}]}),
        ({"dicomFrom": peers}, {"ports": [{"port": "dicom"}], "from": peers}),
    ):
        (policy,) = of_kind(render(merged(DICOM, {"networkPolicy": values})), "NetworkPolicy")
        assert expected in policy["spec"]["ingress"]
        assert policy["spec"]["egress"][:-1] == DICOM["networkPolicy"]["egress"]


def test_certificates_are_where_settings_look_for_them() -> None:
    """The key and the authorities of peers may come from two Secrets."""
    pod = pod_of(render(ALL))
    files = projected(pod, "dicom-tls")
    assert files == {
        "certificate.pem": ("secret", "dicom-tls", "receiver.pem"),
        "key.pem": ("secret", "dicom-tls", "receiver.key"),
        "clients.pem": ("secret", "hospital", "ca.pem"),
    }
    variables = environment(pod)
    names = ("CERTIFICATE", "KEY", "CLIENTS")
    assert {variables[f"CXRVIEW_DICOM_TLS_{name}"] for name in names} == {
        f"/dicom-tls/{path}" for path in files
    }
    without = merged(ALL, {"dicom": {"tls": {"clientsSecretName": ""}}})
    pod = pod_of(render(without))
    assert projected(pod, "dicom-tls").keys() == {"certificate.pem", "key.pem"}
    assert "CXRVIEW_DICOM_TLS_CLIENTS" not in environment(pod)


def test_destinations_and_their_secrets_are_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the documentation, beside Orthanc: as the pod sees it, the service accepts it."""
    pod = pod_of(render(merged(DEV, ORTHANC)))
    assert projected(pod, "destinations") == {
        "destinations.toml": ("configMap", "cxrview-destinations", "destinations.toml"),
        "*": ("secret", "cxrview-destinations", "*"),
    }
    text = (ROOT / "docs/deployment.md").read_text()
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "destinations.toml").write_text(toml)
    said = (ROOT / "deploy/values-orthanc.yaml").read_text()
    (secret,) = re.findall(r"--from-literal=([\w-]+)=", said)
    (tmp_path / secret).write_text("password")
    (destination,) = read_destinations(tmp_path / "destinations.toml")
    assert tomllib.loads(toml)["destinations"][destination.name]["password_file"] == secret
    for name, value in environment(pod).items():
        monkeypatch.setenv(name, value)
    assert Settings().dicom_callers == ("ORTHANC",)
    alone = pod_of(
        render(merged(DELIVERS, {"destinations": {"configMapName": "", "secretName": "s"}}))
    )
    assert projected(alone, "destinations") == {"*": ("secret", "s", "*")}


def test_the_image_has_what_dicom_needs() -> None:
    """The default tag follows; a tag of one's own is used as it is."""
    gpu = {"gpu": {"enabled": True}}
    for values, tag in (
        (KEYS, "-cpu"),
        (DELIVERS, "-dicom"),
        (merged(DELIVERS, gpu), "-gpu"),
        (merged(DELIVERS, {"image": {"tag": "1"}}), ":1"),
    ):
        assert pod_of(render(values))["containers"][0]["image"].endswith(tag)
    dockerfile = (ROOT / "Dockerfile").read_text()
    for target in ("dicom", "gpu", "backfill"):
        install = rf'AS build-{target}\n(?:.+\\\n)*?.*"\.\[([\w,]+)\]"'
        (extras,) = re.findall(install, dockerfile)
        assert "dicom" in extras.split(",")


def test_notes_name_the_port_and_what_is_open() -> None:
    """The title and the Service to configure at a peer; that it is without TLS."""
    for values, said in (
        (
            DICOM,
            ["CXRVIEW at port 11112", "release-cxrview-dicom", "without TLS", "deliveries list"],
        ),
        (ALL, ["RADIOLOGY VIEWS at port 104", "release-cxrview-dicom"]),
    ):
        with helm_python.Chart.load(CHART) as chart:
            files = chart.render(values, name="release", namespace="here")
        (notes,) = (text for path, text in files.items() if path.endswith("NOTES.txt"))
        assert all(each in notes for each in said)
        assert ("without TLS" in notes) == ("without TLS" in said)
