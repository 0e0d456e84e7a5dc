"""The kinds of sources, each with its options: known without the extra `backfill`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from service.backfill.sources.archive import ArchiveOptions
from service.backfill.sources.bucket_options import BucketOptions
from service.backfill.sources.dicomweb_options import DicomwebOptions
from service.backfill.sources.folder import FolderOptions
from service.backfill.sources.manifest import ManifestOptions
from service.backfill.sources.options import Options

SourceKind = Literal["folder", "list", "archive", "bucket", "dicomweb"]
OPTIONS: Mapping[SourceKind, type[Options]] = dict(
    zip(
        get_args(SourceKind),
        (FolderOptions, ManifestOptions, ArchiveOptions, BucketOptions, DicomwebOptions),
        strict=True,
    )
)


def kinds_below(root: str) -> tuple[SourceKind, ...]:
    """The kinds of sources below a root from which jobs may read."""
    if "://" not in root:
        return ("folder", "list", "archive")
    return ("bucket",) if root.lower().startswith("s3:") else ("dicomweb",)


def option_schemas() -> list[dict[str, Any]]:
    """The JSON schema of the options of each kind; its title is the kind."""
    return [
        {**each.model_json_schema(), "title": kind, "description": _first_line(each)}
        for kind, each in OPTIONS.items()
    ]


def _first_line(options: type[Options]) -> str:
    return (options.__doc__ or "").partition("\n")[0]
