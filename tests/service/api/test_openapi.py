"""The description of the API, held against the running service by Schemathesis."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from conftest import ROOT
from live import Live, serving

from service.api.auth.keys import PERMISSIONS, Permission
from service.cli import main

PROGRAM = Path(sys.executable).with_name("st")
# No schema can say which bytes are an image; and of many files a bad one is a line of the answer
INAPPLICABLE = "positive_data_acceptance,negative_data_rejection"

Run = subprocess.CompletedProcess[str]


def compared(live: Live, folder: Path, *options: str) -> Run:
    """Every operation, with what its description allows and what it does not, always the same.

    The description is that in the folder; without one, the service's own.
    """
    url, own = f"http://127.0.0.1:{live.port}", folder / "openapi.json"
    described = [str(own), "--url", url] if own.exists() else [f"{url}/openapi.json"]
    command = [
        *(str(PROGRAM), "run", *described, "--no-color"),
        *("--phases", "coverage,fuzzing", "--max-examples", "25", "--seed", "1"),
        *("--generation-deterministic", "--exclude-checks", INAPPLICABLE, *options),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "dicom_bodies", "PYTHONPATH": str(ROOT / "tests" / "clients")}
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | hooks,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def cases(run: Run) -> int:
    """How many requests were made that passed; every operation was among them."""
    assert run.returncode == 0, run.stdout
    assert re.search(r"Selected: (\d+)/\1\s+Tested: \1\s", run.stdout)
    return int(re.search(r"(\d+) generated, \1 passed", run.stdout)[1])


def key(file: Path, *permissions: Permission, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["key", "client", *permissions, "--file", str(file)]) == 0
    return capsys.readouterr().out.strip()


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("log") / "log", model="swift/1.0.0") as live:
        yield live


@pytest.fixture
def guarded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[tuple[Live, dict[str, str]]]:
    """A service that asks for keys, and one of each kind."""
    file = tmp_path / "keys"
    kinds: dict[str, tuple[Permission, ...]] = {"all": PERMISSIONS, "some": ("backfill",)}
    held = {kind: key(file, *permissions, capsys=capsys) for kind, permissions in kinds.items()}
    with serving(tmp_path / "log", model="swift/1.0.0", keys=str(file)) as live:
        yield live, held | {"wrong": "cxr_none"}


def test_the_open_service_is_as_described(open_to_all: Live, tmp_path: Path) -> None:
    """No status, media type, header or body that the description does not have, and no 5xx."""
    assert cases(compared(open_to_all, tmp_path)) > 100


def test_the_service_with_jobs_is_as_described(tmp_path: Path) -> None:
    """Nor where archives are worked on."""
    settings = {"backfill_folder": str(tmp_path / "jobs"), "backfill_sources": str(tmp_path)}
    with serving(tmp_path / "log", model="swift/1.0.0", **settings) as live:
        assert cases(compared(live, tmp_path)) > 100


def test_the_service_with_destinations_is_as_described(tmp_path: Path) -> None:
    """Nor where DICOM objects are accepted."""
    (tmp_path / "results").mkdir()
    file = tmp_path / "destinations.toml"
    file.write_text('[destinations.folder]\nkind = "folder"\npath = "results"\n')
    settings = {"destinations": str(file), "outbox": f"sqlite:///{tmp_path / 'outbox'}"}
    with serving(tmp_path / "log", model="swift/1.0.0", **settings) as live:
        assert cases(compared(live, tmp_path)) > 100


@pytest.mark.parametrize("kind", ["all", "some", "wrong"])
def test_the_guarded_service_is_as_described(
    guarded: tuple[Live, dict[str, str]], tmp_path: Path, kind: str
) -> None:
    """Nor with keys; and nothing that asks for one can be had without, or with a wrong one."""
    live, held = guarded
    run = compared(live, tmp_path, "--header", f"Authorization: Bearer {held[kind]}")
    assert cases(run) > 100
    text = httpx2.get(f"http://127.0.0.1:{live.port}/metrics").text
    found = re.findall(r'refused_total\{reason="(not_\w+)"\} (\S+)', text)
    refused = {reason for reason, count in found if float(count)}
    assert "not_authenticated" in refused  # it tries without as well
    assert ("not_permitted" in refused) == (kind == "some")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ('"415"', '"416"', "Undocumented status code"),
        ("application/problem+json", "application/json", "Undocumented Content-Type"),
    ],
)
def test_a_difference_is_found(
    open_to_all: Live, tmp_path: Path, right: str, wrong: str, complaint: str
) -> None:
    """The comparison fails where the description lacks what the service does."""
    described = httpx2.get(f"http://127.0.0.1:{open_to_all.port}/openapi.json").text
    assert right in described
    (tmp_path / "openapi.json").write_text(described.replace(right, wrong))
    run = compared(open_to_all, tmp_path)
    assert run.returncode == 1
    assert complaint in run.stdout


def test_only_who_asks_for_keys_says_so(
    open_to_all: Live, guarded: tuple[Live, dict[str, str]]
) -> None:
    """The description of a service without authentication has no security scheme."""
    for live, asks in ((open_to_all, False), (guarded[0], True)):
        described = httpx2.get(f"http://127.0.0.1:{live.port}/openapi.json").text
        assert ("securitySchemes" in described) == asks
        assert ('"security"' in described) == asks
