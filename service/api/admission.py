"""Admission control: an overloaded service refuses an image before it reads the body."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from service.inference import LANES, Lane, UnavailableError

# Share of the latency budget that the mean time per image may use up; the rest covers slow images
EXPECTED_SHARE = 0.75


class QueueFullError(UnavailableError):
    """Too many images are ahead; they should be done after `retry_after_seconds`."""

    code: ClassVar[str] = "queue_full"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class ServiceRate:
    """The throughput of one lane, measured while it is busy.

    An image's time runs from the previous answer, or from its arrival at an idle lane, to its own
    answer. The mean is exponentially weighted over about 100 images; idle time does not count.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._inside = 0
        self._since = 0.0
        self._images, self._seconds = 4.0, 0.2  # an initial guess
        self.seconds_per_image = self._seconds / self._images  # the measured mean

    def enter(self) -> None:
        """Count an image that was received whole."""
        if self._inside == 0:
            self._since = self._now()
        self._inside += 1

    def leave(self, answered: bool) -> None:
        """Count an image that leaves; only an answered one changes the mean."""
        self._inside -= 1
        if answered:
            now = self._now()
            self._images = 0.99 * self._images + 1
            self._seconds = 0.99 * self._seconds + now - self._since
            self.seconds_per_image = self._seconds / self._images
            self._since = now


class Admission:
    """Counts the images of each lane from arrival to answer, and refuses more than fit.

    Args:
        max_images: The most images of each lane.
        budget_seconds: The latency budget. An interactive image is refused if it and those ahead
            should take more than `EXPECTED_SHARE` of it.
        now: A clock, in seconds.
    """

    def __init__(
        self,
        max_images: int,
        budget_seconds: float,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._max_images = max_images
        self._budget_seconds = budget_seconds
        self._images = dict.fromkeys(LANES, 0)
        self._rates = {lane: ServiceRate(now) for lane in LANES}
        self._left = asyncio.Event()

    def images(self, lane: Lane) -> int:
        """Images in a lane now."""
        return self._images[lane]

    def seconds_per_image(self, lane: Lane) -> float:
        """Mean time of a lane per image, measured while it was busy."""
        return self._rates[lane].seconds_per_image

    def images_per_second(self, lane: Lane) -> float:
        """The capacity of a lane: the inverse of `seconds_per_image`."""
        return 1 / self.seconds_per_image(lane)

    def retry_after_seconds(self, lane: Lane) -> int:
        """Time until the images now in a lane should be done; at least 1 s."""
        return math.ceil(max(1.0, self._images[lane] * self._rates[lane].seconds_per_image))

    def refuses(self, lane: Lane) -> bool:
        """Whether one more image would be refused now."""
        ahead = self._images[lane]
        if ahead >= self._max_images:
            return True
        if lane != "interactive" or not ahead:
            return False
        expected = (ahead + 1) * self._rates[lane].seconds_per_image
        return expected > EXPECTED_SHARE * self._budget_seconds

    def refusal(self, lane: Lane) -> QueueFullError:
        """The error with the reason why one more image is refused."""
        ahead = self._images[lane]
        if ahead >= self._max_images:
            detail = f"the lane holds {ahead} images, which is its limit"
        else:
            detail = f"the {ahead} images ahead would take longer than {self._budget_seconds:g} s"
        return QueueFullError(detail, self.retry_after_seconds(lane))

    def check(self, lane: Lane) -> None:
        """Check that one more image may be admitted.

        Raises:
            QueueFullError: The lane is full, or too slow for the latency budget.
        """
        if self.refuses(lane):
            raise self.refusal(lane)

    def slot(self, lane: Lane) -> Slot:
        """A slot for one image, from its first byte until its answer.

        Raises (on entering):
            QueueFullError: No slot is free.
        """
        return Slot(self, lane)

    async def wait_for_slot(self, lane: Lane) -> None:
        """Wait until the lane holds less than `max_images`: for work that can wait."""
        while self._images[lane] >= self._max_images:
            self._left.clear()
            await self._left.wait()

    def count(self, lane: Lane, change: int) -> None:
        """Add to the images of a lane; called by slots."""
        self._images[lane] += change
        if change < 0:
            self._left.set()

    def service_rate(self, lane: Lane) -> ServiceRate:
        """The throughput of a lane; used by slots."""
        return self._rates[lane]


class Slot:
    """One image's slot in its lane."""

    def __init__(self, admission: Admission, lane: Lane) -> None:
        self._admission = admission
        self._lane: Lane = lane
        self._counted = self._whole = False

    def __enter__(self) -> Self:
        self._take()
        return self

    def lapse(self) -> None:
        """Release the slot if the image is not received yet: slow senders do not block slots."""
        if self._counted and not self._whole:
            self._counted = False
            self._admission.count(self._lane, -1)

    def arrived(self) -> None:
        """The image was received whole; takes a slot again if it had lapsed.

        Raises:
            QueueFullError: The slot had lapsed, and no slot is free.
        """
        if not self._counted:
            self._take()
        self._whole = True
        self._admission.service_rate(self._lane).enter()

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        if self._counted:
            self._admission.count(self._lane, -1)
        if self._whole:
            self._admission.service_rate(self._lane).leave(answered=error is None)

    def _take(self) -> None:
        self._admission.check(self._lane)
        self._admission.count(self._lane, 1)
        self._counted = True
