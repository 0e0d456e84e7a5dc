"""Why an image was answered so: what the network saw, and where it found evidence."""

from __future__ import annotations

import base64
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from service.imaging import Display, Radiograph, encoded
from service.inference.network import Network

LEVELS = 255

Share = Annotated[float, Field(ge=0, le=1)]


class Evidence(BaseModel):
    """The class activation map of the view, over the whole thumbnail, at 8 bits."""

    rows: int
    columns: int
    values: str = Field(
        description="base64 of rows x columns bytes, row by row: 0 is `min`, 255 is `max`"
    )
    min: float = Field(description="in logits; positive values speak for frontal")
    max: float = Field(description="in logits")

    @classmethod
    def of(cls, logits: npt.NDArray[np.float32]) -> Self:
        """From (h, w), in logits."""
        low, high = float(logits.min()), float(logits.max())
        levels = np.rint((logits - low) * (LEVELS / ((high - low) or 1))).astype(np.uint8)
        rows, columns = logits.shape
        values = _base64(levels.tobytes())
        return cls(rows=rows, columns=columns, values=values, min=low, max=high)

    def logits(self) -> npt.NDArray[np.float32]:
        """(rows, columns), in logits, to 1/510 of the range."""
        levels = np.frombuffer(base64.b64decode(self.values), np.uint8)
        logits = self.min + levels * np.float32((self.max - self.min) / LEVELS)
        return logits.reshape(self.rows, self.columns).astype(np.float32)


class Frame(BaseModel):
    """The whole frame, made small for display."""

    rows: int
    columns: int
    jpeg: str = Field(description="base64 of a JPEG file, in the window of the thumbnail")
    top: Share = Field(description="where the thumbnail begins, as a share of the rows")
    bottom: Share = Field(description="where it ends")
    left: Share = Field(description="where the thumbnail begins, as a share of the columns")
    right: Share = Field(description="where it ends")

    @classmethod
    def of(cls, display: Display) -> Self:
        """From a display."""
        rows, columns = display.pixels.shape
        jpeg = _base64(encoded(display.pixels, "JPEG"))
        return cls(rows=rows, columns=columns, jpeg=jpeg, **display.field._asdict())


class Explanation(BaseModel):
    """What the network saw in one image."""

    evidence: Evidence | None = Field(description="null: the model has no such output")
    thumbnail: str = Field(description="base64 of a PNG file: the network's input, S x S")
    frame: Frame | None

    @classmethod
    def of(cls, network: Network, radiograph: Radiograph) -> Self:
        """Run the network again for its map, if it has one, and encode the pictures.

        Raises:
            OutputError: The map is none.
        """
        has_map = network.version.card.heads.evidence
        return cls(
            evidence=Evidence.of(network.evidence(radiograph.tensor)) if has_map else None,
            thumbnail=_base64(encoded(radiograph.tensor[0], "PNG")),
            frame=None if radiograph.display is None else Frame.of(radiograph.display),
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
