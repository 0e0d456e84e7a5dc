"""Which threads run the batches, on which device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_store import Store
from service.api.runtime import IN_FLIGHT, runners_of
from service.api.settings import Settings
from service.inference import LANES, NETWORK_NICENESS, Network, open_network


@pytest.fixture(scope="module")
def network(light: Settings) -> Network:
    return open_network(Store(light.model_store).load(light.model))


def test_on_a_cpu_backfill_has_a_session_that_yields(network: Network, light: Settings) -> None:
    """People's network is the one that is open; the archive's is another, in the background."""
    large = replace(network, threads=2)
    people, archive = runners_of(large, light)
    assert (people.lanes, people.niceness) == (("interactive",), 0)
    assert (archive.lanes, archive.niceness) == (("backfill",), NETWORK_NICENESS["backfill"])
    tensors = np.full((2, 1, 128, 128), 200, np.uint8)
    assert people.open().__self__ is large
    assert archive.open().__self__ is not large
    np.testing.assert_allclose(archive.open()(tensors), network.run(tensors), atol=1e-6)


def test_a_network_of_one_thread_runs_in_its_runner(
    network: Network, light: Settings, monkeypatch
) -> None:
    """So it needs no session for backfill; once a core where somebody has asked for one thread."""
    monkeypatch.setattr("service.api.runtime.usable_cpus", lambda: 3)
    lanes = [("interactive",), ("backfill",)]
    small = replace(network, threads=1)
    chosen = light.model_copy(update={"inference_threads": 0})
    assert [runner.lanes for runner in runners_of(small, chosen)] == lanes
    runners = runners_of(small, light.model_copy(update={"inference_threads": 1}))
    assert [runner.lanes for runner in runners] == lanes * 3
    assert {(*runner.lanes, runner.niceness) for runner in runners} == {
        ("interactive", 0),
        ("backfill", NETWORK_NICENESS["backfill"]),
    }
    assert all(runner.open().__self__ is small for runner in runners)


def test_on_a_gpu_two_batches_are_in_flight_for_both_lanes(
    network: Network, light: Settings
) -> None:
    """Each runner serves people first, and has buffers of its own; here they lie on the CPU."""
    runners = runners_of(replace(network, provider="cuda"), light)
    assert [runner.lanes for runner in runners] == [LANES] * IN_FLIGHT
    assert not any(runner.niceness for runner in runners)
    one, other = (runner.open() for runner in runners)
    assert one is not other
    tensors = np.full((3, 1, 128, 128), 200, np.uint8)
    np.testing.assert_allclose(one(tensors), network.run(tensors), atol=1e-6)
