"""A network and its decoders in this process, for work on archives where nobody else waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model_store import ModelVersion
from service.inference import (
    Batcher,
    Pipeline,
    Provider,
    Runner,
    keep_freed_memory,
    open_network,
    usable_cpus,
)

BATCH_IMAGES = 8
# Of no account where nobody waits: a batch may fill up meanwhile
PATIENCE_SECONDS = 0.1
BATCH_SECONDS = 2.0


@contextmanager
def pipeline_of(
    version: ModelVersion, provider: Provider = "cpu", workers: int = 0
) -> Iterator[Pipeline]:
    """A pipeline, which is closed in the end.

    Args:
        version: The model.
        provider: Where it runs.
        workers: Decode threads; 0: one a core.

    Raises:
        NetworkError: The model must not run.
    """
    keep_freed_memory()
    network = open_network(version, provider)
    network.warm_up(Batcher.sizes(BATCH_IMAGES))
    batcher = Batcher([Runner(lambda: network.run)], BATCH_IMAGES, BATCH_SECONDS, PATIENCE_SECONDS)
    pipeline = Pipeline(
        version.card.preprocess,
        batcher,
        workers or usable_cpus(),
        yields=network.threads > 1,
    )
    pipeline.start()
    try:
        yield pipeline
    finally:
        pipeline.close()
