"""One model version in ONNX Runtime, proven before it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from model_store import ModelVersion
from service.imaging import Tensor, image_to_tensor
from service.inference.binding import BoundRun
from service.inference.cpus import usable_cpus

if TYPE_CHECKING:  # decode workers load this package, and must stay small
    import onnxruntime

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# EXHAUSTIVE, the default, searches anew for every batch size: hundreds of milliseconds each
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}
# Of one image on all cores. Where it takes less, one thread is faster than several that have to be
# woken for every layer, and costs half of their time
TOO_SHORT_TO_SHARE_SECONDS = 2e-3
# Of a network that takes longer, one core answers two together as fast as eight, for which others
# would wait, and in less memory
CORE_BATCH_IMAGES = 2


class NetworkError(Exception):
    """The model cannot serve; the process must not become ready."""


class ProviderError(NetworkError):
    """ONNX Runtime would run on another device than the one asked for."""


class ProbeError(NetworkError):
    """The model does not answer its own probe as it did when it was published."""


@dataclass(frozen=True)
class Network:
    """An open session of one model version."""

    version: ModelVersion
    session: onnxruntime.InferenceSession
    provider: Provider  # the one that really runs
    threads: int  # of the CPU, that share a batch

    def run(self, tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, 1, S, S) uint8 -> (B,) PFI, the probability of a frontal image, within 0..1."""
        (pfi,) = self.session.run(["pfi"], {"tensors": tensors})
        return np.asarray(pfi, dtype=np.float32)

    def bound(self, max_batch_images: int) -> BoundRun:
        """`run`, with buffers of its own: for one thread of those that keep a GPU busy."""
        shape = (max_batch_images, 1, *2 * (self.version.card.preprocess.size,))
        return BoundRun(self.session, shape, pinned=self.provider != "cpu")

    def replay_probe(self) -> None:
        """Classify the probe from its file on, as a request would.

        Raises:
            ProbeError: The PFI is not the one in the card.
        """
        card = self.version.card
        tensor: Tensor = image_to_tensor(self.version.probe, card.preprocess)
        found = float(self.run(tensor[np.newaxis])[0])
        if not abs(found - card.probe_pfi) <= card.probe_tolerance:  # also true of NaN
            raise ProbeError(
                f"{self.version.reference} answers its probe with PFI {found:.6f}, "
                f"but its card says {card.probe_pfi:.6f}"
            )

    def seconds_of_one(self) -> float:
        """What a batch of one takes, at its best."""
        size = self.version.card.preprocess.size
        tensors = np.zeros((1, 1, size, size), np.uint8)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            self.run(tensors)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        """Run every batch size once, so that no request pays for the first time."""
        size = self.version.card.preprocess.size
        for batch in batch_sizes:
            self.run(np.zeros((batch, 1, size, size), dtype=np.uint8))


class Spread:
    """Runs a batch on all cores while it is the only one; those beside it have one core each.

    Alone, an image is answered sooner by all of them. Of several, each on a core of its own costs a
    tenth less: no thread waits for others at the end of every layer.

    Args:
        shared: Its threads share a batch.
        single: The same version, of one thread.
    """

    def __init__(self, shared: Network, single: Network) -> None:
        self._shared, self._single = shared, single
        self._lock = Lock()
        self._running = 0

    def run(self, tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, 1, S, S) uint8 -> (B,) PFI; called by as many threads as there are cores."""
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
        version: As `Store.load` returned it.
        provider: Where to run. TensorRT leaves to CUDA what it cannot run.
        threads: CPU threads for one batch; 0: all cores that this process may use, or one if the
            model is so small that this is faster.
        allow_cpu_fallback: Accept the CPU where a GPU was asked for and cannot be had.
        engine_cache: Folder in which TensorRT keeps what it has compiled, which takes minutes;
            without it every start compiles anew.

    Raises:
        ProviderError: `provider` cannot be had, and no fall-back is allowed.
        ProbeError: The model is not the one its card describes.
    """
    import onnxruntime

    wanted = PROVIDERS[provider]
    if provider != "cpu":
        onnxruntime.preload_dlls()  # finds the libraries of CUDA where pip has put them
    available = onnxruntime.get_available_providers()
    if wanted not in available and not allow_cpu_fallback:
        raise ProviderError(f"{wanted} is not in this ONNX Runtime, which has {available}")
    providers = [
        (name, options)
        for name, options in _wanted_providers(provider, engine_cache)
        if name in available
    ]
    network = _open(version, wanted, providers, threads or usable_cpus(), allow_cpu_fallback)
    free_to_choose = not threads and network.threads > 1 and network.provider == "cpu"
    if free_to_choose and network.seconds_of_one() < TOO_SHORT_TO_SHARE_SECONDS:
        network = _open(version, wanted, providers, 1, allow_cpu_fallback)
    network.replay_probe()
    return network


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
    # Listed is not loaded: ONNX Runtime falls back in silence when a provider's libraries are
    # missing
    first = session.get_providers()[0]
    if first != wanted and not allow_cpu_fallback:
        raise ProviderError(f"asked for {wanted}, but ONNX Runtime fell back to {first}")
    actual = next(key for key, name in PROVIDERS.items() if name == first)
    return Network(version, session, actual, threads)


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from decoding
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
