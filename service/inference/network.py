"""One model version in ONNX Runtime, proven before it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from model_store import ModelVersion
from service.imaging import Tensor, image_to_tensor

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[Provider, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # EXHAUSTIVE, the default, searches anew for every batch size: hundreds of milliseconds each
    "cuda": ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}),
}


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

    def run(self, tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, 1, S, S) uint8 -> (B,) PFI, the probability of a frontal image, within 0..1."""
        (pfi,) = self.session.run(["pfi"], {"tensors": tensors})
        return np.asarray(pfi, dtype=np.float32)

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

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        """Run every batch size once, so that no request pays for the first time."""
        size = self.version.card.preprocess.size
        for batch in batch_sizes:
            self.run(np.zeros((batch, 1, size, size), dtype=np.uint8))


def open_network(
    version: ModelVersion,
    provider: Provider = "cpu",
    threads: int = 0,
    allow_cpu_fallback: bool = False,
) -> Network:
    """Open a verified version and replay its probe.

    Args:
        version: As `Store.load` returned it.
        provider: Where to run.
        threads: CPU threads for one batch; 0 leaves it to ONNX Runtime (all cores).
        allow_cpu_fallback: Accept the CPU where CUDA was asked for and cannot be had.

    Raises:
        ProviderError: `provider` cannot be had, and no fall-back is allowed.
        ProbeError: The model is not the one its card describes.
    """
    wanted, provider_options = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if wanted not in available and not allow_cpu_fallback:
        raise ProviderError(f"{wanted} is not in this ONNX Runtime, which has {available}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; it warns about every node it keeps on the CPU
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if provider != "cpu" and wanted in available:
        providers.insert(0, (wanted, provider_options))
    session = onnxruntime.InferenceSession(version.model, options, providers=providers)
    # Listed is not loaded: ONNX Runtime falls back in silence when CUDA's libraries are missing
    actual: Provider = provider if session.get_providers()[0] == wanted else "cpu"
    if actual != provider and not allow_cpu_fallback:
        raise ProviderError(f"asked for {wanted}, but ONNX Runtime fell back to the CPU")
    network = Network(version, session, actual)
    network.replay_probe()
    return network
