"""The messages between the service and a decode worker.

A hostile file may take over the worker that decodes it, so the service does not trust its answers.
They are not pickled: they are JSON of a strict schema, and the tensor's bytes, any of which are
valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from model_store import PreprocessSpec
from service.imaging import (
    LONGEST_SIDE,
    Decoder,
    Display,
    Format,
    Grey,
    ImageError,
    Origin,
    Radiograph,
    Tensor,
    ViewHeader,
)
from service.imaging import Field as Part

# Size of the memory that the service and a worker share, for a file and then for its tensor. A
# larger file gets its own memory, which is freed with it. A display, if one was asked for, lies
# behind the tensor
SHARED_BYTES = 16 * 2**20
MAX_ANSWER_BYTES = 2**16
READY = Struct("=Q")  # a started worker's first message: its process id
TASK = Struct("=Q?")  # the size of a file in bytes; whether its display is asked for

# Why a worker was replaced
Reason = Literal["crashed", "deadline", "memory"]

Text = Annotated[str, StringConstraints(max_length=4096)]
# Type, file and line of an error; nothing else may be logged
Where = Annotated[str, StringConstraints(pattern=r"^\w{1,64} in [\w.]{1,64}:\d{1,6}$")]
Warned = Annotated[str, StringConstraints(pattern="^[a-z_]{1,64}$")]


class Limits(NamedTuple):
    """The limits for decoding one file."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int  # address space in addition to the worker's own and the file


class Job(BaseModel):
    """A worker's configuration for its whole life."""

    model_config = ConfigDict(frozen=True)

    decode: str  # module:function with the signature of `read_radiograph`
    spec: PreprocessSpec
    niceness: int
    limits: Limits


Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]


class Shape(BaseModel):
    """A display without its pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rows: Side
    columns: Side
    top: Share
    bottom: Share
    left: Share
    right: Share

    @classmethod
    def of(cls, display: Display) -> Shape:
        """From a display."""
        rows, columns = display.pixels.shape
        return cls(rows=rows, columns=columns, **display.field._asdict())

    def display(self, pixels: Grey) -> Display:
        """The display with its pixels."""
        return Display(pixels, Part(self.top, self.bottom, self.left, self.right))


class Read(BaseModel):
    """A radiograph without its tensor, and without the pixels of its display."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Format
    header: ViewHeader | None
    origin: Origin | None
    sop_instance_uid: Text | None
    transfer_syntax: Text | None
    warnings: tuple[Warned, ...]
    fallbacks: tuple[Decoder, ...]
    display: Shape | None = None

    @classmethod
    def of(cls, radiograph: Radiograph) -> Read:
        """From a radiograph."""
        return cls(
            format=radiograph.format,
            header=radiograph.header,
            origin=radiograph.origin,
            sop_instance_uid=radiograph.sop_instance_uid,
            transfer_syntax=radiograph.transfer_syntax,
            warnings=radiograph.warnings,
            fallbacks=radiograph.fallbacks,
            display=None if radiograph.display is None else Shape.of(radiograph.display),
        )

    def radiograph(self, tensor: Tensor, display: Display | None = None) -> Radiograph:
        """The radiograph with its tensor, and with its display."""
        return Radiograph(
            tensor=tensor,
            format=self.format,
            header=self.header,
            origin=self.origin,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax=self.transfer_syntax,
            warnings=self.warnings,
            fallbacks=self.fallbacks,
            display=display,
        )


class Refusal(BaseModel):
    """An ImageError, as its code and text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    code: Text
    text: Text

    def error(self) -> ImageError | None:
        """The error; None if no class has this code."""
        cls = next((cls for cls in _classes() if cls.code == self.code), None)
        return None if cls is None else cls(self.text)


class Failure(BaseModel):
    """The error that ended the worker, if Python could catch it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reason: Reason
    where: Where  # for the log


class Answer(BaseModel):
    """A worker's answer for one file: exactly one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    read: Read | None = None
    refusal: Refusal | None = None
    failed: Failure | None = None


def _classes(cls: type[ImageError] = ImageError) -> Iterator[type[ImageError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _classes(below)
