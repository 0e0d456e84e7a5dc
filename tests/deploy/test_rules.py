"""The alerts, tried on series of their own."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml
from conftest import ROOT

RULES = yaml.safe_load((ROOT / "helm/cxrview/files/rules.yaml").read_text())
TESTS = yaml.safe_load((ROOT / "deploy/rules_test.yaml").read_text())


def test_every_alert_is_tried() -> None:
    """Each fires in one test, and in another, or before, it does not."""
    alerts = {
        rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
    }
    tries = [one for test in TESTS["tests"] for one in test["alert_rule_test"]]
    assert {one["alertname"] for one in tries if one["exp_alerts"]} == alerts
    assert {one["alertname"] for one in tries if not one["exp_alerts"]} == alerts


def test_promtool_agrees() -> None:
    """With the Prometheus that is here, 2 or 3."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    subprocess.run([promtool, "test", "rules", ROOT / "deploy/rules_test.yaml"], check=True)
