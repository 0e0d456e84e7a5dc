"""Admission: an overloaded service refuses an image before it reads it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from service.inference import LANES, Lane, UnavailableError

# Of the budget, by the mean of the images measured; the rest is for those that take longer
EXPECTED_SHARE = 0.75


class QueueFullError(UnavailableError):
    """Too many images are ahead; `retry_after_seconds` says when they should be done."""

    code: ClassVar[str] = "queue_full"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class ServiceRate:
    """How fast one lane answers, measured while it has something to do.

    The time from an answer, or from the arrival at an idle lane, to the next answer is that
    image's. The means of the last hundred or so images counts; idle time never does.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._inside = 0
        self._since = 0.0
        self._images, self._seconds = 4.0, 0.2  # a guess, soon forgotten
        self.seconds_per_image = self._seconds / self._images  # the measured mean

    def enter(self) -> None:
        """An image is there, whole."""
        if self._inside == 0:
            self._since = self._now()
        self._inside += 1

    def leave(self, answered: bool) -> None:
        """It has been answered, or has gone unanswered, which says nothing of the speed."""
        self._inside -= 1
        if answered:
            now = self._now()
            self._images = 0.99 * self._images + 1
            self._seconds = 0.99 * self._seconds + now - self._since
            self.seconds_per_image = self._seconds / self._images
            self._since = now


class Admission:
    """The images of each lane that are arriving, waiting or worked on.

    Args:
        max_images: Of each lane.
        budget_seconds: An interactive image is refused if those ahead should take more than
            `EXPECTED_SHARE` of it.
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
        """What one image costs a lane, as measured while it was busy."""
        return self._rates[lane].seconds_per_image

    def images_per_second(self, lane: Lane) -> float:
        """The inverse: what the lane can answer."""
        return 1 / self.seconds_per_image(lane)

    def retry_after_seconds(self, lane: Lane) -> int:
        """When all that are in the lane now should be done."""
        return math.ceil(max(1.0, self._images[lane] * self._rates[lane].seconds_per_image))

    def refuses(self, lane: Lane) -> bool:
        """Whether one more image may not come now."""
        ahead = self._images[lane]
        if ahead >= self._max_images:
            return True
        if lane != "interactive" or not ahead:
            return False
        expected = (ahead + 1) * self._rates[lane].seconds_per_image
        return expected > EXPECTED_SHARE * self._budget_seconds

    def refusal(self, lane: Lane) -> QueueFullError:
        """Why one more image may not come now."""
        ahead = self._images[lane]
        if ahead >= self._max_images:
            detail = f"the lane holds {ahead} images, which is its limit"
        else:
            detail = f"the {ahead} images ahead would take longer than {self._budget_seconds:g} s"
        return QueueFullError(detail, self.retry_after_seconds(lane))

    def check(self, lane: Lane) -> None:
        """Whether one more image may come.

        Raises:
            QueueFullError: Not now.
        """
        if self.refuses(lane):
            raise self.refusal(lane)

    def slot(self, lane: Lane) -> Slot:
        """A slot for one image, from its first byte until its answer.

        Raises (on entering):
            QueueFullError: There is none.
        """
        return Slot(self, lane)

    async def wait_for_slot(self, lane: Lane) -> None:
        """Return when `check` would pass: for work that can wait."""
        while self._images[lane] >= self._max_images:
            self._left.clear()
            await self._left.wait()

    def count(self, lane: Lane, change: int) -> None:
        """For slots: one more, or one less."""
        self._images[lane] += change
        if change < 0:
            self._left.set()

    def service_rate(self, lane: Lane) -> ServiceRate:
        """For slots: the speed of a lane."""
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
        """Give the slot up: a slow sender does not keep one that others could use."""
        if self._counted and not self._whole:
            self._counted = False
            self._admission.count(self._lane, -1)

    def arrived(self) -> None:
        """The image is there, whole.

        Raises:
            QueueFullError: Its slot had lapsed, and there is none now.
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
