"""One model version in ONNX Runtime, verified with its probe before it answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from model_store import ModelVersion, Prediction
from service.imaging import Tensor, image_to_tensor
from service.inference.binding import BoundRun
from service.inference.cpus import usable_cpus
from service.inference.errors import (
    GraphError,
    NetworkError,
    OutputError,
    ProbeError,
    ProviderError,
)
from service.inference.outputs import EVIDENCE, Output, outputs_of, predictions_of

if TYPE_CHECKING:  # decode workers load this package, and must stay small
    import onnxruntime

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# The default, EXHAUSTIVE, searches for hundreds of milliseconds for every batch size
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}
# If one image takes less time on all cores, one thread is faster, because several must be woken for
# every layer, and takes half of their CPU time
TOO_SHORT_TO_SHARE_SECONDS = 2e-3
# For slower networks: on one core, batches of 2 have the throughput of batches of 8, with less
# latency and less memory
CORE_BATCH_IMAGES = 2


@dataclass(frozen=True)
class Network:
    """An open session of one model version."""

    version: ModelVersion
    session: onnxruntime.InferenceSession
    provider: Provider  # the one in use, which may be a fall-back
    threads: int  # CPU threads that share a batch

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs of the graph that make a prediction."""
        return outputs_of(self.version.card)

    @cached_property
    def run_options(self) -> onnxruntime.RunOptions:
        """Compute what is fetched only: not the evidence of every image."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        return options

    def run(self, tensors: npt.NDArray[np.uint8]) -> list[Prediction]:
        """(B, 1, S, S) uint8 -> the prediction of each image.

        Raises:
            OutputError: An output has another shape or type than that of a prediction.
        """
        arrays = self._fetch(self.outputs, tensors)
        return predictions_of(self.outputs, arrays, len(tensors))

    def pfi(self, tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, 1, S, S) uint8 -> (B,) PFI, the probability of a frontal image, within 0..1."""
        (pfi,) = self._fetch(["pfi"], tensors)
        return np.asarray(pfi, dtype=np.float32)

    def evidence(self, tensor: Tensor) -> npt.NDArray[np.float32]:
        """What the network saw in one image, as a class activation map of the view.

        Args:
            tensor: (1, S, S) uint8.

        Returns:
            (h, w) float32, over the whole tensor: positive values speak for a frontal image,
            negative ones for a lateral, and their mean is the logit of the PFI.

        Raises:
            OutputError: The model has no such output, or it is no map.
        """
        if not self.version.card.heads.evidence:
            raise OutputError(f"{self.version.reference} has no map of evidence")
        (maps,) = self._fetch([EVIDENCE], tensor[np.newaxis])
        found = np.asarray(maps[0], dtype=np.float32)
        if found.ndim != 2 or not np.isfinite(found).all():
            raise OutputError(f"{self.version.reference} answers with no map of evidence")
        return found

    def _fetch(self, outputs: Sequence[str], tensors: npt.NDArray[np.uint8]) -> list[Any]:
        arrays: list[Any] = self.session.run(outputs, {"tensors": tensors}, self.run_options)
        return arrays

    def bound(self, max_batch_images: int) -> BoundRun:
        """Like `run`, with its own input buffer, for one thread; several keep a GPU busy."""
        shape = (max_batch_images, 1, *2 * (self.version.card.preprocess.size,))
        pinned = self.provider != "cpu"
        return BoundRun(self.session, self.outputs, shape, self.run_options, pinned=pinned)

    def check_outputs(self) -> None:
        """Check that the graph has each output of the heads that the card declares.

        Raises:
            OutputError: An output is missing.
        """
        wanted = {*self.outputs, *([EVIDENCE] if self.version.card.heads.evidence else [])}
        missing = wanted - {output.name for output in self.session.get_outputs()}
        if missing:
            raise OutputError(
                f"{self.version.reference} lacks the output of heads in its card: "
                f"{', '.join(sorted(missing))}"
            )

    def replay_probe(self) -> None:
        """Classify the probe image from its file, as for a request.

        Raises:
            ProbeError: A probability differs from the card's by more than its tolerance, or the
                card does not say what a head answers.
            OutputError: As `run`; or the declared map of evidence is none.
        """
        card = self.version.card
        tensor: Tensor = image_to_tensor(self.version.probe, card.preprocess)
        (prediction,) = self.run(tensor[np.newaxis])
        wanted = card.probe_outputs | {"pfi": (card.probe_pfi,)}
        for output in self.outputs:
            found = np.atleast_1d(getattr(prediction, output))
            said = np.asarray(wanted.get(output, ()))
            same = found.shape == said.shape and np.abs(found - said) <= card.probe_tolerance
            if not np.all(same):  # also true of NaN
                name = "PFI" if output == "pfi" else output
                raise ProbeError(
                    f"{self.version.reference} answers its probe with {name} {_decimals(found)}, "
                    f"but its card says {_decimals(said) or 'nothing'}"
                )
        if card.heads.evidence:
            self.evidence(tensor)

    def seconds_of_one(self) -> float:
        """The least time of four runs of one image."""
        size = self.version.card.preprocess.size
        tensors = np.zeros((1, 1, size, size), np.uint8)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            self.run(tensors)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        """Run every batch size once, because the first run of each is slow.

        Raises:
            NetworkError: The model cannot run one of them, or answers with another number of
                predictions.
        """
        size = self.version.card.preprocess.size
        with _failing_as_a_network(self.version):
            for batch in batch_sizes:
                self.run(np.zeros((batch, 1, size, size), dtype=np.uint8))


class Spread:
    """Runs a batch that runs alone on all cores, and concurrent batches on one core each.

    A single image is answered sooner on all cores. Several batches on one core each take a tenth
    less CPU time, because no thread waits for others after every layer.

    Args:
        shared: The network with several threads for each batch.
        single: The same version with one thread.
    """

    def __init__(self, shared: Network, single: Network) -> None:
        self._shared, self._single = shared, single
        self._lock = Lock()
        self._running = 0

    def run(self, tensors: npt.NDArray[np.uint8]) -> list[Prediction]:
        """As `Network.run`; called by as many threads as there are cores."""
        with self._lock:
            network = self._single if self._running else self._shared
            self._running += 1
        try:
            return network.run(tensors)
        finally:
            with self._lock:
                self._running -= 1


def open_network(
    version: ModelVersion,
    provider: Provider = "cpu",
    threads: int = 0,
    allow_cpu_fallback: bool = False,
    engine_cache: Path | None = None,
) -> Network:
    """Open a verified version and replay its probe.

    Args:
        version: From `Store.load`.
        provider: Where to run. With TensorRT, CUDA runs the nodes that TensorRT cannot.
        threads: CPU threads for one batch; 0: all cores that this process may use, or one if the
            model is so small that this is faster.
        allow_cpu_fallback: Accept the CPU if the requested GPU is not available.
        engine_cache: Folder in which TensorRT keeps its compiled engines. Compiling takes minutes;
            without the folder, it is repeated at every start.

    Raises:
        ProviderError: `provider` is not available, and no fall-back is allowed.
        GraphError: ONNX Runtime cannot open or run the model.
        OutputError: The model lacks an output of a head that its card declares, or it has another
            shape.
        ProbeError: The model's answer to its probe differs from its card.
    """
    import onnxruntime

    wanted = PROVIDERS[provider]
    if provider != "cpu":
        onnxruntime.preload_dlls()  # loads CUDA libraries that pip has installed
    available = onnxruntime.get_available_providers()
    if wanted not in available and not allow_cpu_fallback:
        raise ProviderError(
            f"{wanted} is not in this ONNX Runtime, which has {available}: replace onnxruntime by "
            "onnxruntime-gpu as in docs/deployment.md, or choose the provider cpu"
        )
    providers = [
        (name, options)
        for name, options in _wanted_providers(provider, engine_cache)
        if name in available
    ]
    with _failing_as_a_network(version):
        network = _open(version, wanted, providers, threads or usable_cpus(), allow_cpu_fallback)
        network.check_outputs()
        free_to_choose = not threads and network.threads > 1 and network.provider == "cpu"
        if free_to_choose and network.seconds_of_one() < TOO_SHORT_TO_SHARE_SECONDS:
            network = _open(version, wanted, providers, 1, allow_cpu_fallback)
        network.replay_probe()
    return network


@contextmanager
def _failing_as_a_network(version: ModelVersion) -> Iterator[None]:
    """Raise any other error as a GraphError: those of ONNX Runtime have no common class."""
    try:
        yield
    except NetworkError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GraphError(f"{version.reference} cannot be opened or run: {reason}") from error


def _decimals(values: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.6f}" for value in values)


def _open(
    version: ModelVersion,
    wanted: str,
    providers: list[tuple[str, dict[str, str]]],
    threads: int,
    allow_cpu_fallback: bool,
) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        version.model, _session_options(threads), providers=providers
    )
    # An available provider may still fail to load: ONNX Runtime then falls back without an error
    first = session.get_providers()[0]
    if first != wanted and not allow_cpu_fallback:
        raise ProviderError(
            f"{wanted} cannot be loaded; ONNX Runtime names the missing library or driver above. "
            "Install it (docs/deployment.md, A GPU), or choose the provider cpu"
        )
    actual = next(key for key, name in PROVIDERS.items() if name == first)
    return Network(version, session, actual, threads)


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would take CPU time from decoding
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only; it warns about every node it keeps on the CPU
    return options


def _wanted_providers(
    provider: Provider, engine_cache: Path | None
) -> list[tuple[str, dict[str, str]]]:
    wanted: list[tuple[str, dict[str, str]]] = [(PROVIDERS["cpu"], {})]
    if provider != "cpu":
        wanted.insert(0, (PROVIDERS["cuda"], CUDA_OPTIONS))
    if provider == "tensorrt":
        cache = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engine_cache)}
        wanted.insert(0, (PROVIDERS["tensorrt"], cache if engine_cache else {}))
    return wanted
