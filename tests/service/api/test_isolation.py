"""Over HTTP: a file that ends its decoder is told so, and other clients notice nothing."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import needs
import numpy as np
import pytest
from images import png

from service.api import runtime
from service.api.settings import Settings
from service.inference import LANES, Limits, Pipeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=needs.LINUX)

PICTURE = png(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8))
LIMITS = Limits(cpu_seconds=0.15, wall_seconds=20, memory_bytes=200 * 2**20)
CLIENTS, TIMES = 8, 50


@pytest.fixture
def hostile(
    monkeypatch: pytest.MonkeyPatch,
    light: Settings,
    start: Callable[..., AbstractContextManager[object]],
) -> Callable[[Limits], AbstractContextManager[object]]:
    """A service whose decoders do what a file says."""

    def started(limits: Limits) -> AbstractContextManager[object]:
        made = partial(
            Pipeline, decode="hostile_decoder:decode", limits=dict.fromkeys(LANES, limits)
        )
        monkeypatch.setattr(runtime, "Pipeline", made)
        return start(light.model_copy(update={"max_queue_images": 64}))

    return started


@pytest.mark.parametrize(("harm", "cause"), [
    ("segfault", "crashed"), ("loop", "deadline"), ("allocate", "memory"),
])  # fmt: skip
def test_harmful_files_cost_their_own_answers_only(hostile, harm: str, cause: str) -> None:
    """50 in a row: each is 422 and counted; of 8 clients beside them, all are answered alike."""
    statuses: Counter[int] = Counter()
    answers: set[float] = set()
    done = threading.Event()
    restarts = f'cxrview_decoder_restarts_total{{cause="{cause}"}}'

    def count(text: str) -> float:
        return float(text.split(f"\n{restarts} ")[1].split("\n", maxsplit=1)[0])

    limits = LIMITS if harm == "loop" else LIMITS._replace(cpu_seconds=5)
    with hostile(limits) as service:

        def honest() -> None:
            with service.client() as client:
                while not done.is_set():
                    found = client.post("/v1/classify", content=PICTURE)
                    statuses[found.status_code] += 1
                    answers.add(found.json().get("pfi"))

        threads = [threading.Thread(target=honest) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        with service.client() as client:
            before = count(client.get("/metrics").text)
            for _ in range(TIMES):
                found = client.post("/v1/classify", content=harm.encode())
                assert (found.status_code, found.json()["code"]) == (422, "decoder_failed")
            done.set()
            for thread in threads:
                thread.join()
            assert count(client.get("/metrics").text) == before + TIMES
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    assert set(statuses) == {200}
    assert statuses[200] > CLIENTS
    assert len(answers) == 1
