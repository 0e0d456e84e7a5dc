"""What an operator may choose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from annotated_types import Gt
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store import DEFAULT_ROOT
from service.inference import Provider


def usable_cpus() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """Read once, at start-up, from CXRVIEW_* variables. Units are in the names.

    There is no `port` or `host` here: Kubernetes itself sets CXRVIEW_PORT in every pod beside a
    Service called cxrview. They are options of `cxrview serve`.
    """

    model_config = SettingsConfigDict(env_prefix="CXRVIEW_", frozen=True)

    model: str = "googlenet/1.0.0"  # name/version; never "latest", so that a rollback is a change
    model_store: Path = DEFAULT_ROOT
    provider: Provider = "cpu"
    allow_cpu_fallback: bool = False  # a GPU pod that serves from its CPU should fail, not crawl
    inference_threads: NonNegativeInt = 0  # 0: all cores
    decode_workers: PositiveInt = Field(default_factory=usable_cpus)

    max_upload_bytes: PositiveInt = 64 * 2**20  # one radiograph; uncompressed CR reaches 30 MB
    max_batch_body_bytes: PositiveInt = 128 * 2**20  # one archive or multipart body, held in memory
    max_held_bytes: PositiveInt = 256 * 2**20  # all bodies in memory at once; beyond: 503
    max_archive_entries: PositiveInt = 10_000
    max_archive_bytes: PositiveInt = 2 * 2**30  # all entries of one archive, inflated one by one
    max_archive_ratio: Annotated[float, Gt(1)] = 200  # inflated / deflated of one entry
    max_receive_idle_seconds: PositiveFloat = 30  # a client that sends nothing for so long is cut

    max_batch_images: PositiveInt = 8  # per ONNX call; more raises throughput and latency
    max_queue_images: PositiveInt = 64  # beyond this: 503 with Retry-After

    @field_validator("max_batch_images")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, as each batch size is warmed; not {value}")
        return value
