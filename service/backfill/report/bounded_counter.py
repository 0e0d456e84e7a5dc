"""Count millions of texts in bounded memory."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# Distinct values of one column. An archive has hundreds of stations; a column whose values all
# differ has millions
MOST_DISTINCT = 50_000
# Texts with equal hashes that are compared in full; further ones are counted, but not listed
MOST_COMPARED = 1000


@dataclass
class BoundedCounter:
    """Counts rows by value; beyond `most` values, the rarest are merged into `others`."""

    most: int = MOST_DISTINCT
    counts: Counter[str | None] = field(default_factory=Counter)
    others: int = 0

    def add(self, values: pa.Array) -> None:
        """Count a column."""
        for pair in pc.value_counts(values).to_pylist():
            self.counts[pair["values"]] += pair["counts"]
        if len(self.counts) > 2 * self.most:
            self.others += self.counts.total()
            self.counts = Counter(dict(self.counts.most_common(self.most)))
            self.others -= self.counts.total()

    def largest(self, most: int) -> tuple[dict[str | None, int], int]:
        """The largest counts, by count and then by value, and the number of all other rows."""
        ordered = sorted(self.counts.items(), key=lambda one: (-one[1], one[0] or ""))
        largest = dict(ordered[:most])
        return largest, self.others + self.counts.total() - sum(largest.values())


class Repetitions:
    """Finds texts that occur more than once; takes 8 bytes of memory a text.

    Python's hash of a text has 64 bits and a new key in each process, so texts with equal hashes
    cannot be prepared. By chance two of ten million texts collide in one of 400,000 jobs; then a
    second pass over the texts tells them apart.
    """

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, texts: Iterable[str]) -> None:
        """Add texts."""
        self._hashes.extend(map(hash, texts))

    def suspects(self) -> npt.NDArray[np.int64]:
        """Hashes that occur n > 1 times, each n - 1 times, sorted."""
        hashes = np.frombuffer(self._hashes, np.int64)
        hashes.sort()  # in place, within the array
        again: npt.NDArray[np.int64] = hashes[1:][hashes[1:] == hashes[:-1]]
        return again

    def find(self, again: Iterator[list[str]]) -> tuple[int, dict[str, int]]:
        """The repeated texts.

        Args:
            again: All texts a second time; read only if two hashes are equal.

        Returns:
            The number of surplus texts, and up to `MOST_COMPARED` repeated texts with how often
            each occurs.
        """
        suspects = self.suspects()
        wanted = set(np.unique(suspects)[:MOST_COMPARED].tolist())
        if not wanted:
            return 0, {}
        found = Counter(text for texts in again for text in texts if hash(text) in wanted)
        repeated = {text: count for text, count in found.items() if count > 1}
        beyond = int(np.count_nonzero(~np.isin(suspects, list(wanted))))
        return beyond + sum(repeated.values()) - len(repeated), repeated
