"""A pipeline for many images of one caller, without a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model_store import ModelVersion
from service.inference.batcher import Batcher, Runner
from service.inference.cpus import usable_cpus
from service.inference.memory import keep_freed_memory
from service.inference.network import Provider, open_network
from service.inference.pipeline import Pipeline, prepare

CPU_BATCH_IMAGES = 4  # larger batches are not faster, and take more memory
GPU_BATCH_IMAGES = 32
IN_FLIGHT = 2  # batches on a GPU: one is copied while the other runs
# No other caller waits, so a batch may fill up
PATIENCE_SECONDS = 0.1
BATCH_SECONDS = 2.0


@contextmanager
def open_pipeline(
    version: ModelVersion, provider: Provider = "cpu", cpus: int = 0
) -> Iterator[Pipeline]:
    """A started pipeline, which is closed at the end of the block.

    Args:
        version: The model.
        provider: Where the network runs.
        cpus: Cores to use; 0: all that this process may use.

    Raises:
        NetworkError: The model must not run.
    """
    keep_freed_memory()
    prepare()
    cpus = cpus or usable_cpus()
    # One thread for each batch: threads that share a batch wait for each other, which shortens the
    # latency of a batch, but costs throughput
    network = open_network(version, provider, threads=1)
    if network.provider == "cpu":
        most, runners = CPU_BATCH_IMAGES, [Runner(lambda: network.run)] * cpus
    else:
        most = GPU_BATCH_IMAGES
        runners = [Runner(lambda: network.bound(most))] * IN_FLIGHT
    network.warm_up(Batcher.sizes(most))
    batcher = Batcher(runners, most, BATCH_SECONDS, PATIENCE_SECONDS)
    pipeline = Pipeline(version.card.preprocess, batcher, cpus)
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.close()
