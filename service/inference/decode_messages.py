"""What a decode worker answers, and how much of it is believed.

A worker may be in the hands of the file that it decodes. So its answers are not pickled: they are
JSON of a closed form, and the tensor's bytes, of which any are valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, StringConstraints

from model_store import PreprocessSpec
from service.imaging import Decoder, Format, ImageError, Origin, Radiograph, Tensor, ViewHeader

# Shared by the service and a worker: a file goes there, and its tensor back. A larger file gets
# memory of its own, which goes with it
SHARED_BYTES = 16 * 2**20
MAX_ANSWER_BYTES = 2**16
READY = Struct("=Q")  # the number of the worker's process, which it says at its start
TASK = Struct("=Q")  # bytes of the file

# Why a worker was replaced
Reason = Literal["crashed", "deadline", "memory"]

Text = Annotated[str, StringConstraints(max_length=4096)]
# Type, file and line: nothing else gets into the log
Where = Annotated[str, StringConstraints(pattern=r"^\w{1,64} in [\w.]{1,64}:\d{1,6}$")]
Warned = Annotated[str, StringConstraints(pattern="^[a-z_]{1,64}$")]


class Limits(NamedTuple):
    """Of one file in its decoder."""

    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int  # address space beyond what the worker has before, and the file itself


class Job(BaseModel):
    """What a worker is to do, as long as it lives."""

    model_config = ConfigDict(frozen=True)

    decode: str  # module:function, as `read_radiograph`
    spec: PreprocessSpec
    niceness: int
    limits: Limits


class Read(BaseModel):
    """A radiograph without its tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Format
    header: ViewHeader | None
    origin: Origin | None
    sop_instance_uid: Text | None
    transfer_syntax: Text | None
    warnings: tuple[Warned, ...]
    fallbacks: tuple[Decoder, ...]

    @classmethod
    def of(cls, radiograph: Radiograph) -> Read:
        """All but the tensor."""
        return cls(
            format=radiograph.format,
            header=radiograph.header,
            origin=radiograph.origin,
            sop_instance_uid=radiograph.sop_instance_uid,
            transfer_syntax=radiograph.transfer_syntax,
            warnings=radiograph.warnings,
            fallbacks=radiograph.fallbacks,
        )

    def radiograph(self, tensor: Tensor) -> Radiograph:
        """The whole."""
        return Radiograph(
            tensor=tensor,
            format=self.format,
            header=self.header,
            origin=self.origin,
            sop_instance_uid=self.sop_instance_uid,
            transfer_syntax=self.transfer_syntax,
            warnings=self.warnings,
            fallbacks=self.fallbacks,
        )


class Refusal(BaseModel):
    """An ImageError."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    code: Text
    text: Text

    def error(self) -> ImageError | None:
        """The error itself; None where no class has this code."""
        cls = next((cls for cls in _classes() if cls.code == self.code), None)
        return None if cls is None else cls(self.text)


class Failure(BaseModel):
    """What ended the worker, as far as Python saw it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reason: Reason
    where: Where  # for the log


class Answer(BaseModel):
    """One of these three."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    read: Read | None = None
    refusal: Refusal | None = None
    failed: Failure | None = None


def _classes(cls: type[ImageError] = ImageError) -> Iterator[type[ImageError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _classes(below)
