"""The chart, in the hands of those who install and inspect it: Helm 3 and 4, and trivy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CASES, CHART, Object
from conftest import ROOT
from tools import tool


def helm(version: int, *arguments: str | Path) -> str:
    run = subprocess.run(
        [tool(f"helm-{version}/helm"), *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "helm"))


@pytest.fixture(params=CASES)
def values(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of values, of each case."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(CASES[request.param]))
    return file


@pytest.mark.parametrize("version", [3, 4])
def test_helm_lints_it(version: int, values: Path) -> None:
    """Without a warning, of which an icon is none."""
    said = helm(version, "lint", "--strict", CHART, "--values", values)
    assert "WARNING" not in said
    assert "ERROR" not in said


def test_helm_3_and_4_render_the_same(values: Path) -> None:
    """All objects and the trial are equal in both versions."""

    def rendered(version: int) -> list[Object]:
        text = helm(version, "template", "release", CHART, "--namespace=x", "--values", values)
        objects = [each for each in yaml.safe_load_all(text) if each]
        return sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert rendered(3) == rendered(4)
    assert "Deployment" in [each["kind"] for each in rendered(3)]


@pytest.mark.parametrize("version", [3, 4])
def test_helm_refuses_what_the_schema_does_not_know(version: int) -> None:
    """As the library does that other tests use."""
    run = subprocess.run(
        [tool(f"helm-{version}/helm"), "template", CHART, "--set=allowAnonymous=true,keda.max=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "/keda" in run.stderr or "keda:" in run.stderr
    assert "max" in run.stderr


def misconfigurations(target: Path, cache: Path, *options: str | Path) -> list[Any]:
    """What trivy finds, with the checks that are in it: it downloads nothing."""
    trivy = Path(sys.executable).with_name("trivy")
    quiet = ["--skip-check-update", "--skip-version-check", "--disable-telemetry", "--quiet"]
    said = subprocess.run(
        [trivy, "config", *quiet, "--cache-dir", cache, "--format=json", *options, target],
        capture_output=True,
        check=True,
    ).stdout
    results = json.loads(said)["Results"]
    assert sum(each["MisconfSummary"]["Successes"] for each in results) > 20
    return [one for each in results for one in each.get("Misconfigurations", [])]


def severe(found: list[Any]) -> list[Any]:
    return [
        (each["ID"], each["Title"]) for each in found if each["Severity"] in {"HIGH", "CRITICAL"}
    ]


def test_trivy_finds_nothing_severe_in_the_chart(values: Path, tmp_path: Path) -> None:
    """Nor more than the namespace and the registry, which are for those to choose who install."""
    found = misconfigurations(CHART, tmp_path, "--helm-values", values)
    assert not severe(found)
    assert {each["ID"] for each in found} <= {"KSV-0110", "KSV-0125"}


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "deploy/training/Dockerfile"])
def test_trivy_finds_nothing_severe_in_an_image(dockerfile: str, tmp_path: Path) -> None:
    """Of what one can see in a Dockerfile."""
    assert not severe(misconfigurations(ROOT / dockerfile, tmp_path))


def test_trivy_would_find_it(tmp_path: Path) -> None:
    """The same check of an image that runs as root."""
    (tmp_path / "Dockerfile").write_text('FROM debian:bookworm-slim\nCMD ["id"]\n')
    assert ("DS-0002", "Image user should not be 'root'") in severe(
        misconfigurations(tmp_path / "Dockerfile", tmp_path)
    )
