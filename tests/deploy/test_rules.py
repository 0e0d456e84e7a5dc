"""The alerts, tried on series of their own."""

from __future__ import annotations

import subprocess

import needs
import pytest
import yaml
from conftest import ROOT

from deploy import observe

RULES = yaml.safe_load((ROOT / "helm/cxrview/files/rules.yaml").read_text())
TESTS = yaml.safe_load((ROOT / "deploy/rules_test.yaml").read_text())


def test_every_alert_is_tried() -> None:
    """Each fires in one test, and in another, or before, it does not."""
    alerts = {
        rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
    }
    tries = [one for test in TESTS["tests"] for one in test.get("alert_rule_test", [])]
    assert {one["alertname"] for one in tries if one["exp_alerts"]} == alerts
    assert {one["alertname"] for one in tries if not one["exp_alerts"]} == alerts


@pytest.mark.parametrize("version", [2, 3])
def test_promtool_agrees(version: int) -> None:
    """With Prometheus 2 and 3, whose ranges differ at their left end."""
    try:
        promtool = observe.tool(f"prometheus-{version}/promtool")
    except observe.NoToolError:
        pytest.skip(needs.TOOLS)
    subprocess.run([promtool, "test", "rules", ROOT / "deploy/rules_test.yaml"], check=True)
    subprocess.run([promtool, "check", "rules", observe.RULES], check=True)
