"""CPU time of all heads of a model, with making its predictions, compared with the PFI alone.

    python benchmarks/heads.py NAME/VERSION ...

The models must have heads beside that of the view. One thread; both take turns in one process,
because machines are noisy. Prints one table.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from tables import table

from model_store import Store
from service.inference import Network, open_network

BATCHES = (1, 2, 8)
SECONDS = 20.0  # for each size of batch


def compare(network: Network, batch: int) -> tuple[float, float, int]:
    """Median milliseconds of a batch, of the PFI alone and of all heads, and the runs of each."""
    size = network.version.card.preprocess.size
    tensors = np.random.default_rng(0).integers(0, 256, (batch, 1, size, size), dtype=np.uint8)
    of_pfi: list[float] = []
    of_heads: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for times, run in ((of_pfi, network.pfi), (of_heads, network.run)):
            began = time.thread_time()
            run(tensors)
            times.append(time.thread_time() - began)
    return statistics.median(of_pfi) * 1e3, statistics.median(of_heads) * 1e3, len(of_pfi)


def main() -> None:
    """Compare the models given."""
    if len(sys.argv) < 2:
        sys.exit("which models? python benchmarks/heads.py NAME/VERSION ...")
    rows = []
    for model in sys.argv[1:]:
        network = open_network(Store().load(model), threads=1)
        for batch in BATCHES:
            pfi, heads, runs = compare(network, batch)
            times = f"{pfi:.3f} ms", f"{heads:.3f} ms", f"{heads / pfi:.3f}"
            rows.append((model, str(batch), *times, str(runs)))
    print(table(("model", "batch", "PFI alone", "all heads", "ratio", "runs of each"), rows))


if __name__ == "__main__":
    main()
