"""What a network says of one image."""

from __future__ import annotations

from typing import NamedTuple


class Prediction(NamedTuple):
    """What a network says of one image, before any cutoff. None: the network has no such head."""

    pfi: float  # probability of a frontal image
    chest: float | None = None  # probability of a chest radiograph
    rotation: tuple[float, float, float, float] | None = None  # in the order of ROTATIONS
    inverted: float | None = None  # probability that bone is dark
    mirrored: float | None = None  # probability that left is on the right, if it is frontal

    @property
    def valid(self) -> bool:
        """Whether each value is a probability, within 0..1; NaN is not."""
        values = (self.pfi, self.chest, self.inverted, self.mirrored, *(self.rotation or ()))
        return all(value is None or 0 <= value <= 1 for value in values)
