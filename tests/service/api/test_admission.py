"""Who may come in, and what those who may not are told."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from clocks import Clock

from service.api.admission import Admission, QueueFullError, ServiceRate


def admission(clock: Clock, most: int = 100, budget_seconds: float = 2) -> Admission:
    return Admission(most, budget_seconds, clock)


def answer(found: Admission, clock: Clock, seconds: float, count: int) -> None:
    """Answer `count` interactive images, one after another."""
    for _ in range(count):
        with found.slot("interactive") as place:
            place.arrived()
            clock.seconds += seconds


def test_the_drain_is_measured_while_there_is_work() -> None:
    """Idle time counts nothing; of two at once each has its share; those who go are not counted."""
    clock = Clock()
    drain = ServiceRate(clock)
    for _ in range(500):
        drain.enter()
        drain.enter()
        drain.enter()
        clock.seconds += 0.03
        drain.leave(answered=False)
        clock.seconds += 0.03
        drain.leave(answered=True)
        clock.seconds += 0.04
        drain.leave(answered=True)
        clock.seconds += 60  # no image comes for a minute
    assert drain.seconds_per_image == pytest.approx(0.05, rel=0.05)


def test_the_drain_follows_a_change() -> None:
    """After some hundred images of another kind, the old ones are forgotten."""
    clock = Clock()
    found = admission(clock)
    answer(found, clock, 0.2, 300)
    assert found.seconds_per_image("interactive") == pytest.approx(0.2, rel=0.05)
    answer(found, clock, 0.01, 500)
    assert found.seconds_per_image("interactive") == pytest.approx(0.01, rel=0.2)
    assert found.images_per_second("interactive") == pytest.approx(100, rel=0.2)


def test_an_image_that_would_wait_too_long_is_refused_at_once() -> None:
    """At 0.16 s an image nine are three quarters of 2 s; the next one learns when to come."""
    clock = Clock()
    found = admission(clock)
    answer(found, clock, 0.16, 400)
    with ExitStack() as inside:
        for _ in range(9):
            inside.enter_context(found.slot("interactive"))
        with pytest.raises(QueueFullError, match="9 images ahead would take longer") as refusal:
            found.check("interactive")
        assert refusal.value.retry_after_seconds == 2
        found.check("backfill")
    found.check("interactive")


def test_an_empty_service_takes_any_image() -> None:
    """It takes one image even if that image alone takes longer than the budget."""
    clock = Clock()
    found = admission(clock, budget_seconds=0.1)
    answer(found, clock, 5, 300)
    with found.slot("interactive"), pytest.raises(QueueFullError):
        found.check("interactive")


def test_images_are_bounded_in_each_lane() -> None:
    """However fast they are; the other lane is not concerned."""
    found = admission(Clock(), most=1)
    with found.slot("backfill"):
        with pytest.raises(QueueFullError, match="holds 1 images") as refusal:
            found.check("backfill")
        assert refusal.value.retry_after_seconds == 1
        found.check("interactive")
    assert found.images("backfill") == 0


def test_retry_after_follows_the_measured_rate() -> None:
    """It is the time that those inside will take: whole seconds, at least one."""
    clock = Clock()
    found = admission(clock, budget_seconds=100)
    answer(found, clock, 0.5, 400)
    with ExitStack() as inside:
        for count in range(1, 12):
            inside.enter_context(found.slot("interactive"))
            assert found.retry_after_seconds("interactive") == max(1, -(-count // 2))


def test_a_place_lapses_until_the_image_is_whole() -> None:
    """A slow sender's place is others'; once whole, the image needs one again, and keeps it."""
    found = admission(Clock(), most=1)
    with found.slot("interactive") as slow:
        slow.lapse()
        slow.lapse()
        with found.slot("interactive") as quick:
            quick.arrived()
            quick.lapse()
            assert found.images("interactive") == 1
            with pytest.raises(QueueFullError):
                slow.arrived()
        slow.arrived()
        assert found.images("interactive") == 1
    assert found.images("interactive") == 0


def test_work_that_can_wait_waits_for_a_slot() -> None:
    """Each slot that is released admits one waiting image, until none waits."""

    async def scenario() -> list[int]:
        found, inside = admission(Clock(), most=2), []

        async def work() -> None:
            await found.wait_for_slot("backfill")
            with found.slot("backfill") as place:
                place.arrived()
                inside.append(found.images("backfill"))
                await asyncio.sleep(0.001)

        await asyncio.gather(*(work() for _ in range(9)))
        assert found.images("backfill") == 0
        return inside

    counts = asyncio.run(scenario())
    assert len(counts) == 9
    assert max(counts) == 2
