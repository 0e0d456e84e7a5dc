"""The row of one image, from which sinks, certificate and audit are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

from model_store import AnsweredView, Rotation, View
from service.inference import Buffer

# done: classified. skipped: final, nothing to classify: a duplicate, not an image, or not a
# radiograph. failed: perhaps a radiograph, but it could not be read; it may be tried again
Outcome = Literal["done", "skipped", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# What the model saw: the stored file, or a picture that the archive rendered
Input = Literal["stored", "rendered"]
INPUTS: tuple[Input, ...] = get_args(Input)


@dataclass(frozen=True)
class Row:
    """One image of an archive, and its outcome. Values from its header are not trusted."""

    locator: str  # its name in the source; unique within a job
    outcome: Outcome
    code: str | None = None  # of docs/problems.md, `duplicate` or `crashed`; None if it is done
    # SOP Instance UID, or `sha256:` and the hash of a file without one; unique among rows that are
    # done
    key: str | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    modality: str | None = None
    station: str | None = None  # Station Name (0008,1010)
    month: str | None = None  # YYYY-MM of the acquisition, else of the study
    format: str | None = None  # a value of imaging.Format
    transfer_syntax: str | None = None
    input: Input | None = None  # None: not classified
    view: AnsweredView | None = None
    pfi: float | None = None
    threshold: float | None = None
    # This and all answers below: None where the model has no such head
    chest: float | None = None  # probability of a chest radiograph
    chest_threshold: float | None = None  # below it, the view is not_chest
    review: bool | None = None
    # How it lies, as in model_store.Orientation; None as well if it is no chest radiograph
    rotation_degrees: Rotation | None = None
    rotation_probability: float | None = None
    inverted: bool | None = None
    inverted_probability: float | None = None
    mirrored: bool | None = None  # None as well for laterals
    mirrored_probability: float | None = None
    view_position: str | None = None  # (0018,5101)
    view_position_agrees: bool | None = None  # None: it claims neither view, or there is none
    patient_orientation: str | None = None  # (0020,0020), with its backslash
    patient_orientation_agrees: bool | None = None
    view_code: str | None = None  # of View Code Sequence (0054,0220): scheme and value
    view_code_agrees: bool | None = None
    described_view: View | None = None  # the view that Series Description or another text names
    claimed_by: str | None = None  # the keyword of that attribute; never its text
    described_view_agrees: bool | None = None
    body_part_examined: str | None = None  # (0018,0015)
    body_part_agrees: bool | None = None  # None: it names no known part
    warnings: str = ""  # joined by spaces
    bytes: int | None = None  # of the file
    seconds: float | None = None  # from its bytes to its answer, waiting included
    finished: datetime | None = None  # the time of its outcome, with a time zone
    attempts: int = 1
    model: str = ""  # name/version
    model_sha256: str = ""


@dataclass(frozen=True)
class Names:
    """The UIDs of an instance."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Rendered:
    """A picture that an archive rendered, with its instance's UIDs, which it does not hold."""

    data: Buffer  # PNG or JPEG
    of: Names


class Source(Protocol):
    """An archive. Its methods are called from several threads at the same time."""

    def find(self) -> Iterator[str]:
        """The locators of all images, in an order of the source, while it lists them.

        Raises:
            SourceError: The archive cannot be listed.
        """

    def read(self, locator: str) -> Buffer | Rendered:
        """The whole file, or the picture that the archive renders of it, if that is configured.

        Raises:
            ItemError: This file cannot be read; `code` says why.
            SourceError: The whole archive cannot be read; the caller stops, or retries later.
        """

    def close(self) -> None:
        """Close connections and files; calls that wait raise SourceError."""


@runtime_checkable
class RemoteSource(Protocol):
    """A source across a network."""

    def check(self) -> None:
        """Ask it once, before work begins.

        Raises:
            SourceError: It does not answer, or not within `START_SECONDS`.
        """


class SourceError(Exception):
    """The archive does not answer, or its answer is wrong."""

    code: ClassVar[str] = "invalid_source"


class ItemError(Exception):
    """One image of an archive cannot be read; `code` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
