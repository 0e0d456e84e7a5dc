"""A version is written once, and read only as it was written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from model_store import (
    DEFAULT_ROOT,
    ModelExistsError,
    ModelNotFoundError,
    ModelVersion,
    Store,
    TamperedModelError,
)
from model_store.store import sha256


@pytest.fixture
def small(version: ModelVersion) -> ModelVersion:
    """A version whose files are a few bytes."""
    hashes = {"model_sha256": sha256(b"model"), "probe_sha256": sha256(b"probe")}
    return ModelVersion(version.card.model_copy(update=hashes), b"model", b"probe")


@pytest.fixture
def store(tmp_path: Path, small: ModelVersion) -> Store:
    """A store that holds it."""
    store = Store(tmp_path)
    store.add(small)
    return store


def renamed(version: ModelVersion, name: str, number: str) -> ModelVersion:
    card = version.card.model_copy(update={"name": name, "version": number})
    return replace(version, card=card)


def test_what_was_added_is_loaded(store: Store, small: ModelVersion) -> None:
    """Card and bytes survive the round trip, readable by any user."""
    assert store.load("googlenet/1.1.0") == small
    assert (store.root / "googlenet/1.1.0").stat().st_mode & 0o777 == 0o755


def test_versions_are_listed_by_number(store: Store, small: ModelVersion) -> None:
    """1.10.0 comes after 1.9.0; drafts and foreign folders are no versions."""
    for number in ("1.10.0", "1.9.0", "0.1.0"):
        store.add(renamed(small, "googlenet", number))
    store.add(renamed(small, "a", "2.0.0"))
    (store.root / "googlenet" / "latest").mkdir()
    (store.root / "googlenet" / "latest" / "card.json").touch()
    numbers = ["0.1.0", "1.1.0", "1.9.0", "1.10.0"]
    assert store.list() == ["a/2.0.0", *(f"googlenet/{number}" for number in numbers)]


def test_a_version_is_immutable(store: Store, small: ModelVersion) -> None:
    """Adding it again fails, and leaves what is there and nothing else."""
    with pytest.raises(ModelExistsError, match="already published"):
        store.add(small)
    assert [path.name for path in (store.root / "googlenet").iterdir()] == ["1.1.0"]
    assert store.load("googlenet/1.1.0") == small


@pytest.mark.parametrize("file", ["model.onnx", "probe.png"])
def test_changed_bytes_are_found(store: Store, file: str) -> None:
    """One byte more in the weights or the probe, and the version does not load."""
    with (store.root / "googlenet/1.1.0" / file).open("ab") as changed:
        changed.write(b"!")
    with pytest.raises(TamperedModelError, match=f"{file} has SHA-256"):
        store.load("googlenet/1.1.0")


def test_a_card_in_the_wrong_place_is_found(store: Store) -> None:
    """A version copied under another number is not that number."""
    shutil.copytree(store.root / "googlenet/1.1.0", store.root / "googlenet/2.0.0")
    with pytest.raises(TamperedModelError, match=r"googlenet/2\.0\.0 holds the card of"):
        store.load("googlenet/2.0.0")


def test_a_broken_card_is_found(store: Store) -> None:
    """A card that does not parse is reported as such, not as a crash."""
    (store.root / "googlenet/1.1.0/card.json").write_text("{}")
    with pytest.raises(TamperedModelError, match=r"card\.json is not valid"):
        store.load("googlenet/1.1.0")


@pytest.mark.parametrize(
    "reference",
    ["googlenet", "googlenet/latest", "../x/1.0.0", "googlenet/1.1.0/", "/etc/1.0.0", ""],
)
def test_a_reference_names_a_version_explicitly(store: Store, reference: str) -> None:
    """No "latest", and no way out of the store."""
    with pytest.raises(ModelNotFoundError, match="no model reference"):
        store.load(reference)


def test_an_unknown_version_is_told_with_those_known(store: Store) -> None:
    """The message lists what could have been meant."""
    with pytest.raises(ModelNotFoundError, match=r"known: googlenet/1\.1\.0"):
        store.load("googlenet/9.9.9")


def test_hashes_are_checked_before_writing(tmp_path: Path, small: ModelVersion) -> None:
    """A card for other bytes never enters a store."""
    with pytest.raises(TamperedModelError):
        Store(tmp_path).add(replace(small, model=b"other"))
    assert not list(tmp_path.iterdir())


def test_the_shipped_version_is_whole(version: ModelVersion) -> None:
    """It loads from the package, was tested, and says where its data came from."""
    assert "googlenet/1.1.0" in Store(DEFAULT_ROOT).list()
    rows = {row.name: row for row in version.card.evaluations}
    assert rows["test"].accuracy.n == rows["test"].images > 0
    assert {source.use for source in version.card.data} == {"pre-training", "fine-tuning"}
    assert version.card.threshold_rule == "middle"
    assert version.card.parity_max_abs_difference <= 1e-4
