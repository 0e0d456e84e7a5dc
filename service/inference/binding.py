"""Runs with one page-locked input buffer, which a GPU copies itself."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_store import Prediction
from service.inference.outputs import Output, predictions_of

if TYPE_CHECKING:  # decode workers must not load it
    import onnxruntime

CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")  # one of them came with the provider
HOST_REGISTER_PORTABLE = 1  # page-locked for every context of the process


class BoundRun:
    """(B, 1, S, S) uint8 -> the prediction of each image, for one thread at a time.

    The tensors are copied into a buffer that lives as long as this object. For a GPU it is
    page-locked, so that the device copies it while another thread's batch computes. ONNX Runtime
    starts that copy when the input is bound.

    Args:
        session: Has the input `tensors`, and the outputs.
        outputs: Those to fetch, as `outputs_of` names them.
        shape: The shape of the largest batch, (B, 1, S, S).
        options: Of every run.
        pinned: Page-lock the buffer. If the CUDA runtime refuses, the buffer is pageable, and
            copies take longer.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        outputs: tuple[Output, ...],
        shape: tuple[int, ...],
        options: onnxruntime.RunOptions,
        *,
        pinned: bool = False,
    ) -> None:
        self._session = session
        self._outputs, self._options = outputs, options
        self._tensors = np.empty(shape, np.uint8)
        self._binding = session.io_binding()
        self.pinned = pinned and self._page_lock()

    def __call__(self, tensors: npt.NDArray[np.uint8]) -> list[Prediction]:
        """Run one batch, which must fit the buffer."""
        batch = self._tensors[: len(tensors)]
        batch[:] = tensors
        self._binding.bind_cpu_input("tensors", batch)
        for output in self._outputs:
            self._binding.bind_output(output)
        self._session.run_with_iobinding(self._binding, self._options)
        return predictions_of(self._outputs, self._binding.copy_outputs_to_cpu(), len(batch))

    def _page_lock(self) -> bool:
        """Page-lock the buffer for this object's lifetime; False if that fails."""
        address = ctypes.c_void_p(self._tensors.ctypes.data)
        for name in CUDA_RUNTIMES:
            try:
                cuda = ctypes.CDLL(name)
            except OSError:  # another version came with the provider, or none
                continue
            size = ctypes.c_size_t(self._tensors.nbytes)
            if cuda.cudaHostRegister(address, size, HOST_REGISTER_PORTABLE) == 0:
                weakref.finalize(self, cuda.cudaHostUnregister, address)
                return True
        return False
