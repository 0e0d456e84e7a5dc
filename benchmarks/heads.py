"""CPU time of all heads of a model, compared with that of the PFI alone.

    python benchmarks/heads.py [NAME/VERSION ...]

One thread; both take turns in one process, because machines are noisy. Prints one table.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx.utils import extract_model
from tables import table

from model_store import Store
from service.inference import open_network

MODELS = ("googlenet/2.0.0", "swift/2.0.0")
BATCHES = (1, 2, 8)
SECONDS = 20.0  # for each size of batch


def compare(model: str, batch: int) -> tuple[float, float, int]:
    """Median milliseconds of a batch, of the PFI alone and of all heads, and the runs of each."""
    version = Store().load(model)
    network = open_network(version, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "whole.onnx"), Path(folder, "part.onnx")
        whole.write_bytes(version.model)
        extract_model(whole, part, ["tensors"], ["pfi"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        alone = onnxruntime.InferenceSession(part, options, providers=["CPUExecutionProvider"])
    size = version.card.preprocess.size
    tensors = np.random.default_rng(0).integers(0, 256, (batch, 1, size, size), dtype=np.uint8)
    of_pfi: list[float] = []
    of_heads: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for times, run in (
            (of_pfi, lambda: alone.run(["pfi"], {"tensors": tensors})),
            (
                of_heads,
                lambda: network.session.run(
                    network.outputs, {"tensors": tensors}, network.run_options
                ),
            ),
        ):
            began = time.thread_time()
            run()
            times.append(time.thread_time() - began)
    return statistics.median(of_pfi) * 1e3, statistics.median(of_heads) * 1e3, len(of_pfi)


def main() -> None:
    """Compare the models given, or those that are published."""
    rows = []
    for model in sys.argv[1:] or MODELS:
        for batch in BATCHES:
            pfi, heads, runs = compare(model, batch)
            rows.append(
                (
                    model,
                    str(batch),
                    f"{pfi:.3f} ms",
                    f"{heads:.3f} ms",
                    f"{heads / pfi:.3f}",
                    str(runs),
                )
            )
    print(table(("model", "batch", "PFI alone", "all heads", "ratio", "runs of each"), rows))


if __name__ == "__main__":
    main()
