"""The way of one received object: read, classified, and its results committed to the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from model_store import ModelCard
from service.dicom.destinations import Destination, payload
from service.dicom.instance import Result, SourceInstance, read_instance
from service.dicom.outbox import Entry, Outbox
from service.imaging import ImageError
from service.inference import Buffer, Classification, Lane

# Classifies one file; raises ImageError, or UnavailableError if the queue is full or the service
# is stopping
Classify = Callable[[Buffer, Lane], Awaitable[Classification]]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Accepted:
    """An object whose results are committed."""

    source: SourceInstance
    classification: Classification
    repeated: bool  # it was accepted before; nothing was added to the outbox


class Intake:
    """Accepts objects, however they arrive; an object that is repeated has one result.

    Args:
        classify: The pipeline of the process.
        card: Of the model that answers.
        outbox: Keeps the answers, and the results that are to be delivered.
        destinations: Where results go.
        now: A clock, in UTC; its time is written into results.
    """

    def __init__(
        self,
        classify: Classify,
        card: ModelCard,
        outbox: Outbox,
        destinations: Sequence[Destination],
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._classify = classify
        self._card = card
        self._model = f"{card.name}/{card.version}"
        self._outbox = outbox
        self._destinations = destinations
        self._now = now

    async def accept(
        self, data: Buffer, lane: Lane, check: Callable[[SourceInstance], object] = lambda _: None
    ) -> Accepted:
        """Classify one object, unless its answer is known; return when its results are on disk.

        An object that cannot be classified is reported to the destinations that want refusals; its
        error is raised after that report is on disk.

        Args:
            data: A DICOM Part 10 file.
            lane: Of its image.
            check: Called with the object's header before anything is done; may raise what the
                caller wants to have raised.

        Raises:
            InstanceError: It is no DICOM object with valid UIDs.
            ImageError: It cannot be classified.
            UnavailableError: The queue is full, or the service is stopping.
            OutboxAwayError: The outbox cannot be used. Nothing is committed; send it again.
        """
        at = self._now()
        source, known = await asyncio.to_thread(self._read, data, check)
        if known is not None:
            return Accepted(source, known, repeated=True)
        try:
            answer = await self._classify(data, lane)
        except ImageError as error:
            await asyncio.to_thread(self._refuse, Result(source, self._card, at, None, error.code))
            raise
        return await asyncio.to_thread(self._commit, Result(source, self._card, at, answer), answer)

    def _read(
        self, data: Buffer, check: Callable[[SourceInstance], object]
    ) -> tuple[SourceInstance, Classification | None]:
        source = read_instance(data)
        check(source)
        return source, self._known(source.sop_instance_uid)

    def _known(self, sop_instance_uid: str) -> Classification | None:
        stored = self._outbox.answer(sop_instance_uid, self._model)
        return None if stored is None else Classification.model_validate_json(stored)

    def _commit(self, result: Result, answer: Classification) -> Accepted:
        source = result.source
        uid, entries = source.sop_instance_uid, self._entries(result)
        if self._outbox.put(uid, self._model, answer.model_dump_json(), entries):
            return Accepted(source, answer, repeated=False)
        # The same object was received twice at the same time: the first answer is the result
        return Accepted(source, self._known(uid) or answer, repeated=True)

    def _refuse(self, result: Result) -> None:
        if entries := self._entries(result):
            # Not under the model's own name: the object may come again, repaired
            refused = f"{self._model}/{result.problem}"
            self._outbox.put(result.source.sop_instance_uid, refused, None, entries)

    def _entries(self, result: Result) -> list[Entry]:
        return [
            Entry(destination.name, payload(destination, result))
            for destination in self._destinations
            if destination.wants(result)
        ]
