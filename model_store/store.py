"""The store: `<root>/<name>/<version>/{model.onnx, card.json, probe.png}`, written once."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from model_store.card import ModelCard

DEFAULT_ROOT = Path(__file__).parent
DEFAULT_MODEL = "swift/2.3.0"

MODEL_FILE, CARD_FILE, PROBE_FILE = "model.onnx", "card.json", "probe.png"

# Also keeps a reference inside the store: no "..", no other separator, no "latest"
REFERENCE = re.compile(r"^(?P<name>[a-z0-9][a-z0-9-]*)/(?P<version>\d+\.\d+\.\d+)$")


class StoreError(Exception):
    """A model version cannot be read from the store, or written to it."""


class ModelNotFoundError(StoreError):
    """The store has no such version, or it is incomplete."""


class TamperedModelError(StoreError):
    """A file differs from the published one by its SHA-256, or the card is not valid."""


class ModelExistsError(StoreError):
    """The version exists already, and versions are immutable: publish a new version."""


@dataclass(frozen=True)
class ModelVersion:
    """One published version, its hashes verified.

    `model` and `probe` are the verified bytes, so that no other bytes are loaded.
    """

    card: ModelCard
    model: bytes = field(repr=False)
    probe: bytes = field(repr=False)

    @property
    def reference(self) -> str:
        """`name/version`."""
        return f"{self.card.name}/{self.card.version}"


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of immutable model versions, named `name/version`."""

    root: Path = DEFAULT_ROOT

    def list(self) -> list[str]:
        """The references of all versions, by name and then by version number."""
        cards = self.root.glob(f"*/*/{CARD_FILE}")
        references = (card.parent.relative_to(self.root).as_posix() for card in cards)
        return sorted(filter(REFERENCE.match, references), key=_by_version)

    def load(self, reference: str) -> ModelVersion:
        """Read one version and verify it.

        Args:
            reference: `name/version`, for example `googlenet/1.0.0`; never "latest".

        Raises:
            ModelNotFoundError: No such version, or one of its files is missing.
            TamperedModelError: A file differs from what was published.
        """
        folder = self._folder(reference)
        try:
            files = {
                name: (folder / name).read_bytes() for name in (CARD_FILE, MODEL_FILE, PROBE_FILE)
            }
        except FileNotFoundError as error:
            known = ", ".join(self.list()) or "none"
            missing = error.filename
            raise ModelNotFoundError(
                f"no complete model {reference}: {missing} is missing (known: {known})"
            ) from None
        try:
            card = ModelCard.model_validate_json(files[CARD_FILE])
        except ValidationError as error:
            raise TamperedModelError(f"{reference}: card.json is not valid: {error}") from None
        version = ModelVersion(card, files[MODEL_FILE], files[PROBE_FILE])
        _verify(version, reference)
        return version

    def add(self, version: ModelVersion) -> Path:
        """Write one version, whole or not at all; return its folder.

        Raises:
            ModelExistsError: The version is already there.
            StoreError: A file cannot be written.
            TamperedModelError: The card's hashes are not those of the files.
        """
        _verify(version, version.reference)
        folder = self._folder(version.reference)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
        try:
            (draft / MODEL_FILE).write_bytes(version.model)
            (draft / PROBE_FILE).write_bytes(version.probe)
            (draft / CARD_FILE).write_text(version.card.model_dump_json(indent=2) + "\n")
            draft.chmod(0o755)  # mkdtemp makes it private, but a service runs as another user
            if folder.exists():
                raise ModelExistsError(f"{version.reference} is already published")
            # `rename` fails if another process has published the version meanwhile
            draft.rename(folder)
        except OSError as error:
            raise StoreError(f"{version.reference} was not written: {error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def _folder(self, reference: str) -> Path:
        match = REFERENCE.match(reference)
        if match is None:
            versions = [each for each in self.list() if each.split("/")[0] == reference]
            known = f"there are {', '.join(versions)}" if versions else f"as in {DEFAULT_MODEL}"
            raise ModelNotFoundError(
                f"{reference!r} is no model reference; write name/version: {known}"
            )
        return self.root / match["name"] / match["version"]


def load_published(reference: str, store: Store) -> ModelVersion:
    """Load a version from `store`, or else from the store of this package.

    Raises:
        StoreError: As `Store.load`.
    """
    return (store if reference in store.list() else Store()).load(reference)


def _by_version(reference: str) -> tuple[str, tuple[int, ...]]:
    name, version = reference.split("/")
    return name, tuple(map(int, version.split(".")))


def _verify(version: ModelVersion, reference: str) -> None:
    if version.reference != reference:
        raise TamperedModelError(f"{reference} holds the card of {version.reference}")
    for name, expected, data in (
        (MODEL_FILE, version.card.model_sha256, version.model),
        (PROBE_FILE, version.card.probe_sha256, version.probe),
    ):
        if sha256(data) != expected:
            raise TamperedModelError(
                f"{reference}/{name} has SHA-256 {sha256(data)}, but its card says {expected}"
            )
