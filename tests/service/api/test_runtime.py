"""Which threads run the batches, on which device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from heads import assert_predictions_equal

from model_store import Store
from service.api.runtime import IN_FLIGHT, batch_images_of, runners_of
from service.api.settings import Settings
from service.inference import (
    CORE_BATCH_IMAGES,
    LANES,
    NETWORK_NICENESS,
    Network,
    Spread,
    open_network,
)


@pytest.fixture(scope="module")
def network(light: Settings) -> Network:
    return open_network(Store(light.model_store).load(light.model))


def test_a_network_of_several_threads_runs_once_a_core(
    network: Network, light: Settings, monkeypatch
) -> None:
    """People's only batch has all cores; backfill, in the background, never has more than one."""
    monkeypatch.setattr("service.api.runtime.usable_cpus", lambda: 3)
    large = replace(network, threads=2)
    runners = runners_of(large, light)
    assert [(*runner.lanes, runner.niceness) for runner in runners] == [
        ("interactive", 0),
        ("backfill", NETWORK_NICENESS["backfill"]),
    ] * 3
    assert batch_images_of(large, light) == CORE_BATCH_IMAGES
    people, archive = (runner.open() for runner in runners[:2])
    assert isinstance(people.__self__, Spread)
    assert archive.__self__.threads == 1
    tensors = np.full((2, 1, 128, 128), 200, np.uint8)
    for run in (people, archive):
        assert_predictions_equal(run(tensors), network.run(tensors))


def test_a_network_of_one_thread_runs_in_its_runner(
    network: Network, light: Settings, monkeypatch
) -> None:
    """There is one runner for each core only if one thread was asked for."""
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
    assert batch_images_of(small, chosen) == chosen.max_batch_images


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
    assert_predictions_equal(one(tensors), network.run(tensors))
