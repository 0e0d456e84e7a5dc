"""A model version answers only after it has proven itself."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import onnxruntime
import pytest

from model_store import ModelVersion
from service.imaging import image_to_tensor
from service.inference import (
    Network,
    ProbeError,
    Provider,
    ProviderError,
    Spread,
    open_network,
    usable_cpus,
)


@pytest.fixture(scope="module")
def network(version: ModelVersion) -> Network:
    return open_network(version)


def test_it_answers_its_probe_as_when_it_was_published(network: Network) -> None:
    """The probe, replayed from its file on, gives the PFI of the card."""
    network.replay_probe()


def test_an_answer_does_not_depend_on_its_batch(network: Network, version: ModelVersion) -> None:
    """One image gives one PFI alone, among others and in any place; all lie within 0..1."""
    probe = image_to_tensor(version.probe, version.card.preprocess)
    random = np.random.default_rng(0).integers(0, 256, (8, *probe.shape), dtype=np.uint8)
    random[5] = probe
    together = network.run(random)
    assert together.shape == (8,)
    assert together.dtype == np.float32
    assert ((together >= 0) & (together <= 1)).all()
    assert network.run(probe[np.newaxis])[0] == pytest.approx(together[5], abs=1e-5)
    for size in (1, 2, 3, 4):
        np.testing.assert_allclose(network.run(random[:size]), together[:size], atol=1e-5)


def test_another_model_under_the_same_card_does_not_start(version: ModelVersion) -> None:
    """A probe that is answered otherwise than the card says stops the start."""
    card = version.card.model_copy(update={"probe_pfi": 1 - version.card.probe_pfi})
    with pytest.raises(ProbeError, match="answers its probe with PFI"):
        open_network(replace(version, card=card))


@pytest.mark.parametrize(
    ("provider", "name"),
    [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")],
)
def test_asking_for_a_gpu_without_it_fails(
    version: ModelVersion, tmp_path: Path, provider: Provider, name: str
) -> None:
    """A silent fall-back to the CPU is a failed start, unless it is allowed."""
    if name in onnxruntime.get_available_providers():
        pytest.skip(f"needs an ONNX Runtime without {name}")
    with pytest.raises(ProviderError, match=f"{name} is not in this ONNX Runtime"):
        open_network(version, provider, engine_cache=tmp_path)
    fallen = open_network(version, provider, allow_cpu_fallback=True, engine_cache=tmp_path)
    assert fallen.provider == "cpu"


def test_threads_do_not_spin_and_fit_the_cpu_limit(version: ModelVersion) -> None:
    """Waiting threads leave the cores to decoding; there are as many as cores, or as asked for."""
    options = open_network(version).session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == usable_cpus()
    assert open_network(version, threads=1).session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize(
    ("seconds", "asked", "found"), [(1e-4, 0, 1), (1e-2, 0, 3), (1e-4, 2, 2), (1e-2, 2, 2)]
)
def test_a_small_network_runs_in_one_thread(
    version: ModelVersion, monkeypatch, seconds: float, asked: int, found: int
) -> None:
    """Unless told otherwise: waking others for each of its layers takes longer than the layer."""
    monkeypatch.setattr("service.inference.network.usable_cpus", lambda: 3)
    monkeypatch.setattr(Network, "seconds_of_one", lambda _: seconds)
    network = open_network(version, threads=asked)
    assert network.threads == found
    assert network.session.get_session_options().intra_op_num_threads == found


def test_the_time_of_one_image_is_measured(network: Network) -> None:
    """It is more than nothing, and less than a second."""
    assert 0 < network.seconds_of_one() < 1


def test_only_a_batch_that_is_alone_has_all_cores(network: Network, monkeypatch) -> None:
    """A second one, beside it, has one; an error on the way is no batch that still runs."""
    single = replace(network, threads=1)
    ran: list[int] = []
    beside = Event()

    def run(asked: Network, tensors: np.ndarray) -> np.ndarray:
        ran.append(asked.threads)
        if tensors.shape[0] == 2:
            beside.wait(5)
        if tensors.shape[0] == 3:
            raise RuntimeError("no memory")
        return np.zeros(tensors.shape[0], np.float32)

    monkeypatch.setattr(Network, "run", run)
    spread = Spread(replace(network, threads=4), single)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(spread.run, np.zeros((2, 1, 8, 8), np.uint8))
        while not ran:
            time.sleep(0.001)
        spread.run(np.zeros((1, 1, 8, 8), np.uint8))
        beside.set()
        first.result(5)
    with pytest.raises(RuntimeError, match="no memory"):
        spread.run(np.zeros((3, 1, 8, 8), np.uint8))
    spread.run(np.zeros((1, 1, 8, 8), np.uint8))
    assert ran == [4, 1, 4, 4]


def test_warm_up_runs_every_size(network: Network) -> None:
    """Sizes that the model cannot run would fail here, before the service is ready."""
    network.warm_up((1, 2, 4, 8))
