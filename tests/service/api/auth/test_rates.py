"""How many images one client may send."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from clocks import Clock
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st

from service.api.auth.keys import new_key
from service.api.auth.rates import BURST_SECONDS, MOST_CLIENTS, RateLimitedError, Rates
from service.api.settings import Settings

BODY = (DATA / "frontal-0003.jpg").read_bytes()


@given(
    rate=st.floats(0.05, 500),
    pauses=st.lists(st.floats(0, 60), min_size=1, max_size=60),
)
def test_no_client_gets_more_than_the_rate_and_one_burst(rate: float, pauses: list[float]) -> None:
    """However the requests are spread; and who waits as told gets in."""
    clock = Clock()
    rates = Rates(rate, clock)
    images = 0
    for pause in pauses:
        clock.seconds += pause
        for _ in range(40):
            try:
                rates.check("a")
            except RateLimitedError as error:
                refused = clock.seconds
                clock.seconds += error.retry_after_seconds
                rates.check("a")
                clock.seconds = refused
                break
            rates.count("a")
            images += 1
        most = rate * (clock.seconds + max(BURST_SECONDS, 1 / rate))
        assert images <= most * (1 + 1e-9) + 1e-6
    assert rates.of("a").images == images


def test_clients_do_not_pay_for_each_other() -> None:
    """Each has a rate of its own; without a rate, no client is refused."""
    rates = Rates(0.01, Clock())
    for client in "ab":
        rates.check(client)
        rates.count(client)
        with pytest.raises(RateLimitedError, match=r"0\.01 images/s"):
            rates.check(client)
    assert rates.of("a").limited == 1
    free = Rates(None, Clock())
    for _ in range(1000):
        free.check("a")
        free.count("a")


def test_few_clients_are_remembered() -> None:
    """Those that came last: names without end fill no memory."""
    rates = Rates(1, Clock())
    for number in range(MOST_CLIENTS + 10):
        rates.count(str(number))
    assert len(rates.seen) == MOST_CLIENTS
    assert "0" not in rates.seen
    assert str(MOST_CLIENTS) in rates.seen


def test_work_that_can_wait_waits_in_turn() -> None:
    """Five images more than a burst, at 100 images/s, take 50 ms."""
    start = time.monotonic()
    rates = Rates(100)
    for _ in range(int(100 * BURST_SECONDS)):
        rates.count("a")

    async def wait() -> float:
        await asyncio.gather(*(rates.wait("a") for _ in range(5)))
        return time.monotonic() - start

    assert asyncio.run(wait()) > 0.045


def test_a_client_over_its_rate_is_told_when_to_go_on(
    start, light: Settings, tmp_path: Path
) -> None:
    """429 with Retry-After, for images and batches; others, and cards, are not concerned."""
    path = tmp_path / "keys"
    keys, lines = zip(
        *(
            new_key(name, frozenset(permissions))
            for name, permissions in {
                "fast": ("classify", "backfill"),
                "slow": ("classify",),
                "operator": ("admin",),
            }.items()
        ),
        strict=True,
    )
    path.write_text("\n".join(lines))
    fast, slow, operator = ({"authorization": f"Bearer {key}"} for key in keys)
    settings = light.model_copy(update={"keys": path, "max_client_images_per_second": 0.3})
    with start(settings) as service, service.client() as client:
        for _ in range(3):
            assert client.post("/v1/classify", content=BODY, headers=fast).status_code == 200
        for way in ("/v1/classify", "/v1/classify?lane=backfill", "/v1/classify/batch"):
            refused = client.post(way, content=BODY, headers=fast)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 4
        assert client.get("/v1/model", headers=fast).status_code == 200
        assert client.post("/v1/classify", content=BODY, headers=slow).status_code == 200
        assert client.get("/v1/clients", headers=fast).status_code == 403
        assert client.get("/v1/clients", headers=operator).json() == [
            {"name": "fast", "permissions": ["backfill", "classify"], "images": 3, "limited": 3},
            {"name": "operator", "permissions": ["admin"], "images": 0, "limited": 0},
            {"name": "slow", "permissions": ["classify"], "images": 1, "limited": 0},
        ]


def test_each_image_of_a_batch_counts(start, light: Settings) -> None:
    """It is slowed down, not refused; who comes without a key is known by an address."""
    settings = light.model_copy(update={"max_client_images_per_second": 100})
    files = [("files", (f"{number}.jpg", BODY)) for number in range(5)]
    with start(settings) as service, service.client() as client:
        lines = client.post("/v1/classify/batch", files=files).text.splitlines()
        assert len(lines) == 5
        assert client.get("/v1/clients").json() == [
            {"name": "127.0.0.1", "permissions": None, "images": 5, "limited": 0}
        ]
