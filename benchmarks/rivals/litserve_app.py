"""LitServe with the same network, its batching on, and the plain stack's reading.

    RIVAL_MODEL=model.onnx RIVAL_SIZE=256 python benchmarks/rivals/litserve_app.py PORT WORKERS

It takes the raw body, which costs it less than a form or base64 would.
"""

import os
import sys
from typing import Annotated

import litserve
import numpy as np
import onnxruntime
from fastapi import Body
from reading import read

SIZE = int(os.environ["RIVAL_SIZE"])
RawBody = Annotated[bytes, Body(media_type="application/octet-stream")]


class Classifier(litserve.LitAPI):
    """The steps that LitServe asks for."""

    def setup(self, device: str) -> None:
        """Open the network, once a worker; `device` is the CPU."""
        del device
        self.session = onnxruntime.InferenceSession(os.environ["RIVAL_MODEL"])

    def decode_request(self, request: RawBody) -> np.ndarray:
        """From a file to (1, SIZE, SIZE) uint8."""
        return read(request, SIZE)

    def batch(self, inputs: list) -> np.ndarray:
        """(B, 1, SIZE, SIZE) uint8."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(B,) PFI."""
        return self.session.run(["pfi"], {"tensors": x})[0]

    def unbatch(self, output: np.ndarray) -> list:
        """One an image."""
        return list(output)

    def encode_response(self, output: np.float32) -> dict:
        """What is answered."""
        return {"pfi": float(output)}


if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    server = litserve.LitServer(
        Classifier(max_batch_size=8, batch_timeout=0.01),
        accelerator="cpu",
        workers_per_device=workers,
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
