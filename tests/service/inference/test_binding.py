"""The path that a GPU takes, on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from heads import assert_predictions_equal, with_heads

from model_store import ModelVersion
from service.inference import Network, open_network


@pytest.fixture(scope="module")
def network(version: ModelVersion) -> Network:
    return open_network(version)


@pytest.fixture(scope="module")
def headed() -> Network:
    return open_network(with_heads())


@pytest.mark.parametrize("name", ["network", "headed"])
def test_bound_runs_answer_as_plain_ones(name: str, request: pytest.FixtureRequest) -> None:
    """One buffer, batches of changing size: the same answers, and none of an earlier batch."""
    network: Network = request.getfixturevalue(name)
    size = network.version.card.preprocess.size
    tensors = np.random.default_rng(0).integers(0, 256, (4, 1, size, size), dtype=np.uint8)
    run = network.bound(4)
    for batch in (tensors, tensors[:1], tensors[1:3], tensors[::-1]):
        assert_predictions_equal(run(batch), network.run(batch))


def test_two_bound_runs_share_nothing(network: Network) -> None:
    """What one thread keeps is not overwritten by another's batch."""
    size = network.version.card.preprocess.size
    dark, bright = (np.full((1, 1, size, size), value, np.uint8) for value in (10, 200))
    one, other = network.bound(1), network.bound(1)
    first = one(dark)
    other(bright)
    assert first == one(dark)


def test_more_images_than_the_buffer_holds_are_an_error(network: Network) -> None:
    """They would not be answered; the batcher never makes such a batch."""
    size = network.version.card.preprocess.size
    with pytest.raises(ValueError, match="broadcast"):
        network.bound(1)(np.zeros((2, 1, size, size), np.uint8))


def test_the_cpu_needs_no_locked_pages(network: Network) -> None:
    """Only a GPU fetches the buffer by itself."""
    assert not network.bound(1).pinned
