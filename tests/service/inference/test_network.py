"""A model version answers only after it has proven itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import onnx
import onnxruntime
import pytest
from heads import Edit, assert_predictions_equal, changed, marked, with_heads
from images import png, radiograph

from model_store import Heads, ModelVersion, Prediction
from model_store.store import sha256
from service.imaging import image_to_tensor
from service.inference import (
    GraphError,
    Network,
    NetworkError,
    OutputError,
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
    """One image gives one prediction alone, among others and in any place."""
    probe = image_to_tensor(version.probe, version.card.preprocess)
    random = np.random.default_rng(0).integers(0, 256, (8, *probe.shape), dtype=np.uint8)
    random[5] = probe
    together = network.run(random)
    assert len(together) == 8
    assert all(0 <= each.pfi <= 1 and each[1:] == (None,) * 4 for each in together)
    assert network.run(probe[np.newaxis])[0].pfi == pytest.approx(together[5].pfi, abs=1e-5)
    for size in (1, 2, 3, 4):
        assert_predictions_equal(network.run(random[:size]), together[:size])
    np.testing.assert_array_equal(network.pfi(random), [each.pfi for each in together])


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

    def run(asked: Network, tensors: np.ndarray) -> list[Prediction]:
        ran.append(asked.threads)
        if tensors.shape[0] == 2:
            beside.wait(5)
        if tensors.shape[0] == 3:
            raise RuntimeError("no memory")
        return [Prediction(0)] * tensors.shape[0]

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


@pytest.fixture(scope="module")
def headed() -> Network:
    return open_network(with_heads())


def tensors_of(network: Network, *pictures: np.ndarray) -> np.ndarray:
    spec = network.version.card.preprocess
    return np.stack([image_to_tensor(png(each), spec) for each in pictures])


def test_each_head_answers_for_its_own_image(headed: Network) -> None:
    """In a batch of four, no head answers with the value of another head or image."""
    plain = radiograph()
    pictures = (marked(plain), marked(plain, "no_chest"), marked(plain, "inverted", "turn_90"))
    pictures = (*pictures, marked(plain, "mirrored", "turn_270"))
    tensors = tensors_of(headed, *pictures)
    found = headed.run(tensors)
    assert [each.chest is not None and each.chest > 0.9 for each in found] == [1, 0, 1, 1]
    assert [each.inverted is not None and each.inverted > 0.9 for each in found] == [0, 0, 1, 0]
    assert [each.mirrored is not None and each.mirrored > 0.9 for each in found] == [0, 0, 0, 1]
    rotations = [each.rotation for each in found]
    assert [isinstance(each, tuple) and each.index(max(each)) for each in rotations] == [0, 0, 1, 3]
    np.testing.assert_array_equal(headed.pfi(tensors), [each.pfi for each in found])
    for at, each in enumerate(found):
        assert_predictions_equal(headed.run(tensors[at : at + 1]), [each])


def test_a_head_that_the_card_does_not_declare_is_silent(headed: Network) -> None:
    """Whatever the graph has besides, the card says what is asked of it."""
    version = headed.version
    heads = Heads(rotation=True)
    card = version.card.model_copy(update={"heads": heads})
    (found,) = open_network(replace(version, card=card)).run(tensors_of(headed, radiograph()))
    assert found.rotation is not None
    assert (found.chest, found.inverted, found.mirrored) == (None, None, None)


@pytest.mark.parametrize("head", ["chest", "rotation", "inverted", "mirrored", "evidence"])
def test_a_graph_without_a_declared_head_does_not_start(head: str) -> None:
    """The message names what is missing, before any image is answered."""
    with pytest.raises(OutputError, match=rf"swift/2\.0\.0 lacks .*: {head}$"):
        open_network(with_heads(lacking=[head]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (changed("chest", "Unsqueeze", 1), r"chest of 1 images .* is float32 of \(1, 1\)$"),
        (changed("rotation", "Unsqueeze", 1), r"rotation of 1 images .* of \(1, 1, 4\)$"),
        (changed("pfi", "Unsqueeze", 1), r"pfi of 1 images .* of \(1, 1\)$"),
        (changed("mirrored", "ReduceMean", 0), r"mirrored of 2 images .* of \(1,\)$"),
        (changed("evidence", "ReduceMean", 1, keepdims=0), "no map of evidence$"),
        (changed("evidence", "Log"), "no map of evidence$"),
    ],
)
def test_a_graph_that_contradicts_its_card_does_not_start(edit: Edit, message: str) -> None:
    """By the shapes of its answers, whatever it declares; at the batch sizes that it will run."""
    with pytest.raises(OutputError, match=message):
        open_network(with_heads(edit=edit)).warm_up((1, 2))


def declared_double(version: ModelVersion) -> bytes:
    model = onnx.load_from_string(version.model)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    serialized: bytes = model.SerializeToString()
    return serialized


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"no model",
        lambda version: version.model[:3000],
        declared_double,
        lambda version: version.model.replace(b"tensors", b"pixels_"),
    ],
    ids=["empty", "text", "cut", "double", "another input"],
)
def test_what_onnx_runtime_refuses_does_not_start(
    version: ModelVersion, spoil: Callable[[ModelVersion], bytes]
) -> None:
    """With an error of one line that names the model, and is a NetworkError."""
    model = spoil(version)
    card = version.card.model_copy(update={"model_sha256": sha256(model)})
    with pytest.raises(GraphError) as caught:
        open_network(replace(version, card=card, model=model))
    assert isinstance(caught.value, NetworkError)
    assert str(caught.value).startswith(f"{version.reference} cannot be opened or run: ")
    assert "\n" not in str(caught.value)


def test_a_probe_that_is_no_image_does_not_start(version: ModelVersion) -> None:
    """Its error is one of the model, and not of an image of a client."""
    with pytest.raises(GraphError, match=r"cannot be opened or run: .*by content"):
        open_network(replace(version, probe=b"no image"))


@pytest.mark.parametrize(
    ("head", "answer", "message"),
    [
        ("chest", (0.5,), "chest .*, but its card says 0.500000$"),
        ("rotation", (0.0, 0.0, 0.0, 1.0), "rotation .*, but its card says 0.000000, 0.0"),
        ("rotation", (0.5,), "rotation"),
        ("inverted", (float("nan"),), "inverted"),
        ("mirrored", None, "mirrored .*, but its card says nothing$"),
    ],
)
def test_each_head_answers_the_probe_as_published(
    headed: Network, head: str, answer: tuple[float, ...] | None, message: str
) -> None:
    """Another answer stops the start, as does a card that does not say what to expect."""
    version = headed.version
    outputs = {name: said for name, said in version.card.probe_outputs.items() if name != head}
    if answer is not None:
        outputs[head] = answer
    card = version.card.model_copy(update={"probe_outputs": outputs})
    with pytest.raises(ProbeError, match=message):
        open_network(replace(version, card=card))


def test_the_evidence_of_an_image_sums_up_to_its_pfi(headed: Network) -> None:
    """The mean of the map is the logit of the PFI; it is asked for, not part of a prediction."""
    (tensor,) = tensors_of(headed, radiograph())
    found = headed.evidence(tensor)
    assert found.dtype == np.float32
    assert found.shape == (8, 8)
    assert 1 / (1 + np.exp(-found.mean())) == pytest.approx(
        headed.run(tensor[None])[0].pfi, abs=1e-5
    )
    assert "evidence" not in headed.outputs


def test_a_model_without_evidence_says_so(network: Network) -> None:
    """Models of card version 1 have no such map."""
    (tensor,) = tensors_of(network, radiograph())
    with pytest.raises(OutputError, match="has no map of evidence"):
        network.evidence(tensor)
