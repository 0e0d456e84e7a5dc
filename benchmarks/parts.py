"""The parts of an answer, each alone: decoding, and the network at its steady state.

One JSON line in, {"part": "decode" or "network", ...}, one out. Decoding runs in one thread; the
network as the service opens it, or with so many threads a batch, and so many batches at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np

from model_store import ModelVersion, Store
from service.imaging import read_radiograph
from service.inference import CORE_BATCH_IMAGES, Network, keep_freed_memory, open_network

Seconds = dict[str, float]


@cache
def version_of(model: str) -> ModelVersion:
    """Loaded once."""
    return Store().load(model)


@cache
def network_of(model: str, threads: int) -> Network:
    """Opened once."""
    return open_network(version_of(model), threads=threads)


def decode(model: str, paths: list[str], seconds: float) -> Seconds:
    """Seconds an image, from bytes in memory to the model's tensor; each file at least once."""
    spec = version_of(model).card.preprocess
    files = cycle([Path(path).read_bytes() for path in paths])
    return timed(lambda: read_radiograph(next(files), spec), 1, len(paths), seconds)


def network(model: str, batch: int, seconds: float, threads: int = 0, streams: int = 1) -> Seconds:
    """Seconds an image, of tensors that wait in memory, run by so many callers at once."""
    opened = network_of(model, threads)
    size = opened.version.card.preprocess.size
    shape = (batch, 1, size, size)
    tensors = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    opened.run(tensors)
    if streams == 1:
        return timed(lambda: opened.run(tensors), batch, 1, seconds)
    with ThreadPoolExecutor(streams) as callers:
        inputs = [tensors] * streams
        return timed(lambda: list(callers.map(opened.run, inputs)), batch * streams, 1, seconds)


def network_served(model: str, seconds: float) -> Seconds:
    """Seconds an image of one batch after another, each as the service runs it when it is busy."""
    by_core = network_of(model, 0).threads > 1
    return network(model, CORE_BATCH_IMAGES if by_core else 8, seconds, 1 if by_core else 0)


def timed(work: Callable[[], object], images: int, times: int, seconds: float) -> Seconds:
    """CPU and wall seconds an image; `work` does so many, at least so many times."""
    done = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while done < times or time.perf_counter() - wall < seconds:
        work()
        done += 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu / (done * images), "wall_s": wall / (done * images)}


PARTS: dict[str, Callable[..., Seconds]] = {
    "decode": decode,
    "network": network,
    "network_served": network_served,
}

if __name__ == "__main__":
    keep_freed_memory()  # as the service does
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(PARTS[request.pop("part")](**request)), flush=True)
