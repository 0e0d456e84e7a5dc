"""What the service is delivered with: every package, its version and its licence."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GPL = "Metadata-Version: 2.4\nName: copyleft\nVersion: 1.0\nLicense-Expression: GPL-3.0-only\n"


def needed_by(requirements: list[str], seen: set[tuple[str, str]]) -> Iterator[Distribution]:
    """What pip would install for them, by the metadata of what is here."""
    for each in map(Requirement, requirements):
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            found = distribution(each.name)
            for extra in ("", *each.extras):
                if (each.name, extra) not in seen:
                    seen.add((each.name, extra))
                    yield found
                    yield from needed_by(of_extra(found, extra), seen)


def of_extra(package: Distribution, extra: str) -> list[str]:
    asked = map(Requirement, package.requires or [])
    return [
        f"{each.name}[{','.join(each.extras)}]"
        for each in asked
        if each.marker is None or each.marker.evaluate({"extra": extra})
    ]


@pytest.fixture(scope="module")
def runtime() -> dict[str, Distribution]:
    """All that `.[cpu,tracing]` needs."""
    extras = PROJECT["optional-dependencies"]
    asked = PROJECT["dependencies"] + extras["cpu"] + extras["tracing"]
    return {canonicalize_name(each.name): each for each in needed_by(asked, set())}


@pytest.fixture
def python(tmp_path: Path, runtime: dict[str, Distribution]) -> Path:
    """Of an environment that holds their metadata, which is all that is asked for."""
    venv.create(tmp_path / "venv", symlinks=True)
    for each in runtime.values():
        install(tmp_path, each)
    return tmp_path / "venv" / "bin" / "python"


def site(folder: Path) -> Path:
    (found,) = (folder / "venv" / "lib").glob("*/site-packages")
    return found


def install(folder: Path, package: Distribution) -> None:
    (metadata,) = (
        Path(str(each.locate()))
        for each in package.files or []
        if each.name == "METADATA" and each.parent.name.endswith(".dist-info")
    )
    (site(folder) / metadata.parent.name).symlink_to(metadata.parent)


def run(python: Path, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "deploy" / "sbom.py", python, file],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_bill_holds_all_that_runs(
    runtime: dict[str, Distribution], python: Path, tmp_path: Path
) -> None:
    """Each package once, with its version and licence; no torch, nothing of the GPL's family."""
    said = run(python, tmp_path / "out" / "sbom.json")
    assert (said.returncode, said.stdout) == (0, ""), said.stderr
    bill = json.loads((tmp_path / "out" / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "cxrview")
    listed = {canonicalize_name(each["name"]): each for each in bill["components"]}
    assert {name: each["version"] for name, each in listed.items()} == {
        name: each.version for name, each in runtime.items()
    }
    assert {"fastapi", "onnxruntime", "pydantic-core", "starlette"} <= listed.keys()
    assert "torch" not in listed
    for each in listed.values():
        assert each["licenses"]
        assert each["purl"].startswith("pkg:pypi/")
        assert "GPL" not in json.dumps(each["licenses"])


def test_what_must_not_be_delivered_is_named(python: Path, tmp_path: Path) -> None:
    """A package for training, a licence of the GPL's family, and one that is missing."""
    install(tmp_path, distribution("torch"))
    folder = site(tmp_path) / "copyleft-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(GPL)
    (missing,) = site(tmp_path).glob("uvicorn-*.dist-info")
    missing.unlink()
    said = run(python, tmp_path / "sbom.json")
    assert said.returncode == 1
    lines = said.stdout.splitlines()
    assert "torch: not for running the service" in lines
    assert "uvicorn: not there" in lines
    assert "copyleft: 1.0, but constraints.txt has None" in lines
    assert any(line.startswith("copyleft: ") and "GPL-3.0-only" in line for line in lines)
