"""Objects for KEDA and the Prometheus operator, of which Kubernetes itself knows nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import ALL, DEFAULTS, KEYS, PROD, Object, of_kind, render
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from pydantic import BaseModel, ValidationError
from tools import tool

# Made of the projects' own custom resource definitions
MODELS: dict[str, type[BaseModel]] = {
    "PrometheusRule": PrometheusRule,
    "ScaledObject": ScaledObject,
    "ServiceMonitor": ServiceMonitor,
}


def understood(model: type[BaseModel], made: Object) -> Any:
    """What of an object is left when it was read: a key that is not known is lost on the way."""
    return model.model_validate(made).model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.mark.parametrize("values", [ALL, PROD], ids=["all", "prod"])
def test_custom_resources_are_as_their_definitions_say(values: Object) -> None:
    """Every key is known, and nothing changes type as it is read."""
    made = [each for each in render(values) if each["kind"] in MODELS]
    assert {each["kind"] for each in made} >= {"PrometheusRule", "ServiceMonitor"}
    for each in made:
        assert understood(MODELS[each["kind"]], each) == each


def test_a_misspelt_key_would_be_seen() -> None:
    """At any depth; and so would a wrong type, and one that is missing."""
    (made,) = of_kind(render(ALL), "ScaledObject")

    def changed(text: str, into: str) -> Object:
        other: Object = json.loads(json.dumps(made).replace(text, into))
        assert other != made
        return other

    for misspelt in (
        changed("maxReplicaCount", "maxReplicas"),
        changed("stabilizationWindowSeconds", "stabilisationWindowSeconds"),
        changed('"failureThreshold": 3', '"failureThreshold": "3"'),
    ):
        assert understood(ScaledObject, misspelt) != misspelt
    for wrong in (changed('"maxReplicaCount": 12', '"maxReplicaCount": "many"'),
                  changed('"scaleTargetRef"', '"target"')):  # fmt: skip
        with pytest.raises(ValidationError):
            understood(ScaledObject, wrong)


def scaled_object(values: Object) -> Object:
    """The ScaledObject of a release called `release`, in the namespace `here`."""
    (made,) = of_kind(render(values), "ScaledObject")
    spec: Object = made["spec"]
    return spec


def test_keda_scales_the_deployment_within_bounds() -> None:
    """Never to 0, as no pod would then count images; each trigger states its target for one pod."""
    keda = {"enabled": True, "prometheusAddress": "http://prometheus:9090"}
    values = KEYS | {"keda": keda}
    spec = scaled_object(values)
    (deployment,) = of_kind(render(values), "Deployment")
    assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert 0 < spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    thresholds = {each["name"]: each["metadata"]["threshold"] for each in spec["triggers"]}
    assert thresholds == {
        "inside": str(DEFAULTS["keda"]["insideImages"]),
        "images-per-second": str(DEFAULTS["keda"]["imagesPerSecond"]),
    }
    for each in spec["triggers"]:
        assert each["metricType"] == "AverageValue"  # the only one that falls back
        assert each["metadata"]["ignoreNullValues"] == "false"
        assert "authenticationRef" not in each
    with pytest.raises(Exception, match="minReplicas"):
        render(KEYS | {"keda": keda | {"minReplicas": 0}})


@pytest.mark.parametrize("prometheus", ["prometheus-2", "prometheus-3"])
def test_keda_counts_this_release_alone(prometheus: str, tmp_path: Path) -> None:
    """Both lanes and all its pods, with what a full one refuses; no other namespace or release."""
    queries = {each["name"]: each["metadata"]["query"] for each in scaled_object(ALL)["triggers"]}
    own = 'namespace="here",service="release-cxrview-operations"'
    others = ('namespace="there",service="release-cxrview-operations"',
              'namespace="here",service="second-cxrview-operations"')  # fmt: skip
    series = [
        {"series": f"cxrview_inside_images{{{own},pod='a',lane='interactive'}}", "values": "7x40"},
        {"series": f"cxrview_inside_images{{{own},pod='b',lane='backfill'}}", "values": "5x40"},
        {"series": f"cxrview_images_total{{{own},pod='a'}}", "values": "0+150x40"},
        {"series": f"cxrview_images_total{{{own},pod='b'}}", "values": "0+300x40"},
        {"series": f"cxrview_images_refused_total{{{own},pod='a',reason='queue_full'}}",
         "values": "_x20 0+75x20"},
        {"series": f"cxrview_images_refused_total{{{own},pod='a',reason='corrupt_image'}}",
         "values": "0+900x40"},
    ]  # fmt: skip
    series += [
        {"series": f"cxrview_{name}{{{other},pod='c'}}", "values": "0+1000x40"}
        for other in others
        for name in ("inside_images", "images_total")
    ]
    expected = (("inside", "4m", 12), ("images-per-second", "4m", 30),
                ("images-per-second", "9m", 35))  # fmt: skip
    test = {
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": series,
            "promql_expr_test": [
                {"expr": f"round({queries[name]}, 0.001)", "eval_time": when,
                 "exp_samples": [{"labels": "{}", "value": value}]}
                for name, when, value in expected
            ],
        }],
    }  # fmt: skip
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    run = subprocess.run(
        [tool(f"{prometheus}/promtool"), "test", "rules", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_what_is_scraped_is_what_keda_asks_for() -> None:
    """The Service that the ServiceMonitor selects gives the label `service` its name."""
    objects = render(ALL)
    (monitor,) = of_kind(objects, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (
        each["metadata"]["name"]
        for each in of_kind(objects, "Service")
        if wanted <= each["metadata"]["labels"].items()
    )
    for trigger in scaled_object(ALL)["triggers"]:
        assert f'service="{service}"' in trigger["metadata"]["query"]
        assert 'namespace="here"' in trigger["metadata"]["query"]
