"""What is known of a calibration: in its file in the job's folder, and in answers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store import SiteReport
from service.backfill.results import atomic_files

FOLDER = "calibrations"
State = Literal["reading", "fitting", "done", "failed"]


class Calibration(BaseModel):
    """A calibration of a job's model on the images that persons have decided."""

    model_config = ConfigDict(frozen=True)

    id: str
    model: str = Field(description="name/version that is calibrated")
    version: str = Field(description="name/version that is written")
    reader: str = Field(description="who has asked for it")
    created: datetime
    ended: datetime | None = None
    state: State = Field(
        default="reading",
        description="`reading`: the images, from the source of the job; `fitting`: the cutoffs",
    )
    images: int = Field(description="decided ones that the model can be calibrated on")
    read: int = Field(default=0, description="of these")
    left_out: int = Field(default=0, description="of these: they could not be read again")
    reason: str | None = Field(default=None, description="why it has failed")
    report: SiteReport | None = Field(default=None, description="null until it is done")

    @property
    def active(self) -> bool:
        """Whether it is not at its end."""
        return self.state in {"reading", "fitting"}


class Kept(BaseModel):
    """The file of a calibration."""

    calibration: Calibration
    scratch: Path  # the folder of its images, to be deleted if the service was killed


def keep(out: Path, kept: Kept) -> None:
    """Write the file into a job's folder.

    Raises:
        UnwritableError: The folder cannot be written to.
    """
    path = out / FOLDER / f"{kept.calibration.id}.json"
    atomic_files.publish(atomic_files.write(path, kept.model_dump_json(indent=2).encode()))


def kept_in(out: Path) -> list[Kept]:
    """All calibrations of a job, the newest first; without files that are damaged."""
    found = []
    for path in (out / FOLDER).glob("*.json"):
        try:
            found.append(Kept.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return sorted(found, key=lambda each: each.calibration.created, reverse=True)
