"""Classify radiographs in this process."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from cxrview.results import Result, Results
from cxrview.sources import Photometric, Source, each_of, read
from model_store import DEFAULT_MODEL, DEFAULT_ROOT, ModelCard, Store
from service.imaging import read_array
from service.inference import Classification, Image, Provider, open_pipeline, usable_cpus
from service.uploads.files import LARGEST_FILE, UnreadableEntry

AHEAD = 8  # images in progress for each job: read, decoded or waiting for the network


class Classifier:
    """Classifies images with one model; several threads may use it.

    Files are decoded in separate processes. So a file that crashes its decoder does not affect
    other images.

    Args:
        model: `name/version`; `cxrview models` lists them.
        model_store: The folder of model versions.
        provider: Where the network runs.
        jobs: Files that are decoded at the same time; 0: one for each core.
        max_bytes: The largest file.

    Raises:
        StoreError, NetworkError: The model cannot be used.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        model_store: Path | str = DEFAULT_ROOT,
        provider: Provider = "cpu",
        jobs: int = 0,
        max_bytes: int = LARGEST_FILE,
    ) -> None:
        version = Store(Path(model_store)).load(model)
        self.card: ModelCard = version.card
        self._max_bytes = max_bytes
        self._jobs = jobs or usable_cpus()
        with ExitStack() as stack:
            self._pipeline = stack.enter_context(open_pipeline(version, provider, self._jobs))
            self._readers = stack.enter_context(ThreadPoolExecutor(self._jobs, "read"))
            self._close = weakref.finalize(self, stack.pop_all().close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and processes; also called when the object is garbage collected."""
        self._close()

    def classify(
        self, source: Source, *, photometric: Photometric = "MONOCHROME2"
    ) -> Classification:
        """Classify one radiograph.

        Args:
            source: The path or the bytes of a file; a pydicom Dataset; or an array (rows, columns)
                of integers or floats in any unit.
            photometric: Of an array: MONOCHROME2 if low values are dark, MONOCHROME1 if bright.

        Raises:
            ImageError, UploadError: The image cannot be classified; each has a stable `code`.
            PredictionError: The network answers with no probability.
            TypeError: `source` is of another type.
        """
        image = self._submitted(source, photometric)
        return self._classification(image)

    def classify_many(
        self,
        sources: Iterable[Source],
        *,
        photometric: Photometric = "MONOCHROME2",
        progress: bool = False,
    ) -> Results:
        """Classify many images; a bad one does not stop the others.

        Args:
            sources: As for `classify`; a folder stands for all files below it, except hidden ones.
            photometric: The photometric interpretation of arrays.
            progress: Show a progress bar on standard error.

        Returns:
            An iterator with one Result for each image, in order; `to_frame()` and `to_arrow()` make
            a table of them.
        """
        found = each_of(sources)
        if not progress:
            return Results(self._results(found, photometric))
        from rich.console import Console
        from rich.progress import track

        if isinstance(sources, Sized):  # expand folders now, to know the total
            listed = list(found)
            found, total = iter(listed), len(listed)
        else:
            total = None
        results = self._results(found, photometric)
        return Results(track(results, "classify", total, console=Console(stderr=True)))

    def _results(
        self, sources: Iterator[tuple[str, Source | UnreadableEntry]], photometric: Photometric
    ) -> Iterator[Result]:
        pending: deque[tuple[str, Future[Image]]] = deque()
        for name, source in sources:
            pending.append((name, self._readers.submit(self._submitted, source, photometric)))
            if len(pending) > AHEAD * self._jobs:
                yield self._result(*pending.popleft())
        while pending:
            yield self._result(*pending.popleft())

    def _result(self, name: str, submitted: Future[Image]) -> Result:
        try:
            return Result(name, self._classification(submitted.result()))
        except Exception as error:  # noqa: BLE001  # only this image fails
            return Result(name, error=error)

    def _submitted(self, source: Source | UnreadableEntry, photometric: Photometric) -> Image:
        data = read(source, self._max_bytes)
        image = Image(data if isinstance(data, bytes) else None, "interactive")
        if isinstance(data, np.ndarray):
            inverted = photometric == "MONOCHROME1"
            image.radiograph = read_array(data, self.card.preprocess, inverted=inverted)
        self._pipeline.submit(image)
        return image

    def _classification(self, image: Image) -> Classification:
        prediction = image.answer.result()
        assert image.radiograph is not None  # there is no prediction without it
        return Classification.of(image.radiograph, prediction, self.card)
