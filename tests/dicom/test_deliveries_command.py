"""`cxrview deliveries`: the outbox without the service."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from service.cli import main
from service.dicom.outbox import Entry, Outbox

MODEL = "swift/1.1.0"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an outbox with two dead letters and a result that waits."""
    monkeypatch.delenv("CXRVIEW_OUTBOX", raising=False)
    monkeypatch.delenv("CXRVIEW_DESTINATIONS", raising=False)
    url = f"sqlite:///{tmp_path}/outbox.sqlite"
    outbox = Outbox(url)
    for number in range(3):
        outbox.put(f"1.2.{number}", MODEL, "{}", [Entry("pacs", b"Doe^John")])
    for each in outbox.lease("pacs", 2, 60):
        outbox.dead(each, "rejected", "HTTP 422")
    outbox.close()
    return url


def states(url: str) -> list[str]:
    outbox = Outbox(url)
    try:
        return [each.state for each in reversed(outbox.deliveries())]
    finally:
        outbox.close()


def test_list(url: str, capsys) -> None:
    """Numbers, deliveries and reasons; no payload."""
    assert main(["deliveries", "list", "--outbox", url, "--state", "dead"]) == 0
    out = capsys.readouterr().out
    assert out.count("rejected HTTP 422") == 2
    assert "1.2.1" in out
    assert "1.2.2" not in out
    assert "Doe" not in out


def test_retry_and_drop(url: str, capsys) -> None:
    """By id; one that cannot be changed is named, and the others are changed."""
    assert main(["deliveries", "retry", "1", "--outbox", url]) == 0
    assert main(["deliveries", "drop", "2", "99", "3", "--outbox", url]) == 1
    found = capsys.readouterr()
    assert found.out == "1 pacs pending\n2 pacs dropped\n3 pacs dropped\n"
    assert "no delivery 99" in found.err
    assert states(url) == ["pending", "dropped", "dropped"]


def test_all_dead_letters_of_a_destination(url: str) -> None:
    """And no others."""
    assert main(["deliveries", "drop", "--dead", "ris", "--outbox", url]) == 1
    assert states(url) == ["dead", "dead", "pending"]
    assert main(["deliveries", "retry", "--dead", "pacs", "--outbox", url]) == 0
    assert states(url) == ["pending", "pending", "pending"]


def test_the_outbox_of_the_settings(url: str, monkeypatch, tmp_path: Path, capsys) -> None:
    """Its URL, or the file beside that of the destinations."""
    for name, value in (
        ("CXRVIEW_OUTBOX", url),
        ("CXRVIEW_DESTINATIONS", str(tmp_path / "destinations.toml")),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert main(["deliveries", "list"]) == 0
    assert main(["deliveries", "list"]) == 2
    assert "name the outbox" in capsys.readouterr().err


def test_an_outbox_that_is_not_there(tmp_path: Path, capsys) -> None:
    """Is not created."""
    for url in (f"sqlite:///{tmp_path}/none", "postgresql://user@127.0.0.1:1/x"):
        assert main(["deliveries", "list", "--outbox", url]) == 2
    assert "there is no outbox" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["list --destination ris", "retry --dead ris", "drop --dead ris"])
def test_a_destination_without_results_is_named(url: str, words: str, capsys) -> None:
    """With those that have some: the name may be misspelt."""
    action, *rest = words.split()
    assert main(["deliveries", action, "--outbox", url, *rest]) == 1
    assert "no results for a destination 'ris', those that have: pacs" in capsys.readouterr().err


def test_another_database_is_left_alone(tmp_path: Path, capsys) -> None:
    """No tables are added, and its mode stays."""
    file = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE patients (name)")
    file.chmod(0o644)
    before = file.read_bytes()[100:]  # without the header, which holds the journal's mode
    assert main(["deliveries", "list", "--outbox", f"sqlite:///{file}"]) == 2
    assert "holds no outbox" in capsys.readouterr().err
    assert file.read_bytes()[100:] == before
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", ["0", "-1", "1e3", "9" * 20, "9" * 5000])
@pytest.mark.parametrize("words", ["list --limit={}", "retry -- {}", "drop -- {}"])
def test_a_number_that_no_delivery_has(
    words: str, number: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is refused, as by the API."""
    action, *rest = words.format(number).split()
    with pytest.raises(SystemExit) as end:
        main(["deliveries", action, "--outbox", url, *rest])
    assert end.value.code == 2
    assert "number" in capsys.readouterr().err
