"""A network and its decoders in this process, for many images of one caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model_store import ModelVersion
from service.inference.batcher import Batcher, Runner
from service.inference.cpus import usable_cpus
from service.inference.memory import keep_freed_memory
from service.inference.network import Provider, open_network
from service.inference.pipeline import Pipeline, prepare

CPU_BATCH_IMAGES = 4  # more is no faster, and takes more memory
GPU_BATCH_IMAGES = 32
IN_FLIGHT = 2  # batches on a GPU: one is copied while the other runs
# A single caller has no one else to wait for, so a batch may fill up
PATIENCE_SECONDS = 0.1
BATCH_SECONDS = 2.0


@contextmanager
def open_pipeline(
    version: ModelVersion, provider: Provider = "cpu", cpus: int = 0
) -> Iterator[Pipeline]:
    """A pipeline, which is closed in the end.

    Args:
        version: The model.
        provider: Where it runs.
        cpus: Cores to use; 0: all that this process may.

    Raises:
        NetworkError: The model must not run.
    """
    keep_freed_memory()
    prepare()
    cpus = cpus or usable_cpus()
    # Threads that share a batch wait for one another: a batch a core comes later, and costs less
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
