"""The images of jobs, read again from their sources; nothing of them is kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, ClassVar, NamedTuple

from service.backfill.ledger.jobs import Job
from service.backfill.results.rows import ItemError, Rendered, Source
from service.inference import Buffer

MOST_OPEN = 4  # sources; an open zip holds the names of its entries
OTHER = "the source has another image there now than the job has classified"
BY_HASH = "sha256:"  # how the key of a file without a valid UID begins


class PictureError(Exception):
    """An image cannot be shown: it is gone from its source, or is another one now."""

    code: ClassVar[str] = "picture_unavailable"


class Original(NamedTuple):
    """An image as its source has it now."""

    data: Buffer
    uid: str | None  # what the image itself must say when it is decoded; None: it was compared

    def check(self, sop_instance_uid: str | None) -> None:
        """Compare the UID that is in the image.

        Raises:
            PictureError: It is another image than the one that the job has classified.
        """
        if self.uid is not None and sop_instance_uid != self.uid:
            raise PictureError(OTHER)


class Originals:
    """Reads images from the sources of jobs, of which some stay open.

    Args:
        opened: Opens the source of a job by its description, if jobs may still read from there.
    """

    def __init__(self, opened: Callable[[Mapping[str, Any]], Source]) -> None:
        self._opened, self._lock = opened, Lock()
        self._sources: OrderedDict[str, Source] = OrderedDict()  # by the id of the job

    def close(self) -> None:
        """Close all sources."""
        with self._lock:
            while self._sources:
                self._sources.popitem()[1].close()

    def read(self, job: Job, locator: str, key: str) -> Original:
        """Read an image.

        Args:
            job: Whose source has it.
            locator: Its locator there.
            key: As in its row.

        Raises:
            PictureError: It is gone, or is another one now.
            SourceNotAllowedError: Jobs may no longer read from there.
            OptionsError, SourceError: The source does not answer.
        """
        try:
            found = self._source(job).read(locator)
        except ItemError as error:
            raise PictureError(f"the image cannot be read again: {error}") from error
        if isinstance(found, Rendered):
            return _checked(found.data, key, found.of.sop_instance_uid)
        if key.startswith(BY_HASH):
            return _checked(found, key, BY_HASH + hashlib.sha256(found).hexdigest())
        return Original(found, key)

    def _source(self, job: Job) -> Source:
        with self._lock:
            if job.id not in self._sources:
                self._sources[job.id] = self._opened(job.description)
                if len(self._sources) > MOST_OPEN:
                    self._sources.popitem(last=False)[1].close()
            self._sources.move_to_end(job.id)
            return self._sources[job.id]


def _checked(data: Buffer, key: str, now: str | None) -> Original:
    if now != key:
        raise PictureError(OTHER)
    return Original(data, None)
