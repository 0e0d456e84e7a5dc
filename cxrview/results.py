"""Results of many images, one by one or as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.inference import Classification

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Columns of a table, with their types in pandas
COLUMNS = {
    "name": "string",
    "view": "string",
    "pfi": "float64",
    "threshold": "float64",
    "chest": "float64",
    "chest_threshold": "float64",
    "review": "boolean",
    "rotation_degrees": "Int64",
    "rotation_probability": "float64",
    "inverted": "boolean",
    "inverted_probability": "float64",
    "mirrored": "boolean",
    "mirrored_probability": "float64",
    "view_position": "string",
    "header_agrees": "boolean",
    "body_part_examined": "string",
    "body_part_agrees": "boolean",
    "sop_instance_uid": "string",
    "model": "string",
    "warnings": "string",
    "error": "string",
    "detail": "string",
}


@dataclass(frozen=True)
class Result:
    """One image: its answer, or the error."""

    name: str
    classification: Classification | None = None
    error: Exception | None = None

    @property
    def error_code(self) -> str | None:
        """The stable code of docs/problems.md; None if the image has an answer."""
        return None if self.error is None else getattr(self.error, "code", "internal_error")

    def row(self) -> dict[str, Any]:
        """The values by column; None if a column does not apply."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row["name"] = self.name
        if (found := self.classification) is None:
            return row | {"error": self.error_code, "detail": str(self.error)}
        if found.orientation is not None:
            row |= found.orientation.model_dump()
        if (header := found.header) is not None:
            row |= {
                "view_position": header.view_position,
                "header_agrees": header.agrees,
                "body_part_examined": header.body_part_examined,
                "body_part_agrees": header.body_part_agrees,
            }
        return row | {
            "view": found.view,
            "pfi": found.pfi,
            "threshold": found.threshold,
            "chest": found.chest,
            "chest_threshold": found.chest_threshold,
            "review": found.review,
            "sop_instance_uid": found.sop_instance_uid,
            "model": f"{found.model.name}/{found.model.version}",
            "warnings": " ".join(found.warnings),
        }


class Results(Iterator[Result]):
    """An iterator of results in the order of the images; it can be used once.

    Args:
        results: Yields the results.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = iter(results)

    def __next__(self) -> Result:
        return next(self._results)

    def to_frame(self) -> pd.DataFrame:
        """The remaining results as a pandas DataFrame with the columns of COLUMNS.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd

        frame = pd.DataFrame([each.row() for each in self], columns=list(COLUMNS))
        return frame.astype(COLUMNS)

    def to_arrow(self) -> pa.Table:
        """The remaining results as an Arrow table with the columns of COLUMNS.

        Raises:
            ImportError: pyarrow is not installed.
        """
        return as_table(self)


def as_table(results: Iterable[Result]) -> pa.Table:
    """An Arrow table with the columns of COLUMNS.

    Raises:
        ImportError: pyarrow is not installed.
    """
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "float64": pa.float64(),
        "boolean": pa.bool_(),
        "Int64": pa.int64(),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    return pa.Table.from_pylist([each.row() for each in results], schema)
