"""Open the source that a command line or a request names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from service.backfill.results.rows import Source
from service.backfill.sources import archive, manifest
from service.backfill.sources.archive import ArchiveOptions, ArchiveSource
from service.backfill.sources.folder import FolderOptions, FolderSource
from service.backfill.sources.manifest import ManifestOptions, ManifestSource
from service.backfill.sources.options import Options, OptionsError

NEEDS_EXTRA = "this source needs the extra `backfill`: pip install 'cxrview[backfill]'"

AnyOptions = TypeVar("AnyOptions", bound=Options)


def open_source(text: str, options: Mapping[str, Any] | None = None) -> Source:
    """The source that a text names.

    Args:
        text: `s3://bucket/prefix`, the `https://` address of DICOMweb, or the path of a folder, a
            `.csv` or `.parquet` list, a `.zip` or a `.tar`.
        options: By name, as texts or JSON values; each kind of source has its own.

    Raises:
        OptionsError: `text` is none of these, or an option is unknown or invalid.
        SourceError: There is no such folder or file.
    """
    given = dict(options or {})
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme == "s3":
        return _bucket(text, given)
    if scheme in {"http", "https"}:
        return _dicomweb(text, given)
    if scheme:
        raise OptionsError(f"no source begins with {scheme}://")
    return _local(Path(text), given)


def _local(path: Path, given: dict[str, Any]) -> Source:
    suffix = path.suffix.lower()
    if path.is_dir():
        return FolderSource(path, _checked(FolderOptions, given))
    if suffix in manifest.SUFFIXES:
        return ManifestSource(path, _checked(ManifestOptions, given))
    if suffix in archive.SUFFIXES:
        return ArchiveSource(path, _checked(ArchiveOptions, given))
    if path.name.lower().endswith((".tar.gz", ".tgz")):
        raise OptionsError("entries of a .tar.gz cannot be read one by one: gunzip it first")
    raise OptionsError("neither a folder, nor a .csv or .parquet list, nor a .zip or .tar")


def _bucket(text: str, given: dict[str, Any]) -> Source:
    try:
        from service.backfill.sources.bucket import BucketSource
        from service.backfill.sources.bucket_options import BucketOptions
    except ModuleNotFoundError as error:
        raise OptionsError(NEEDS_EXTRA) from error
    bucket, _, prefix = text.partition("://")[2].partition("/")
    return BucketSource(bucket, prefix, _checked(BucketOptions, given))


def _dicomweb(text: str, given: dict[str, Any]) -> Source:
    try:
        from service.backfill.sources.dicomweb import DicomwebSource
        from service.backfill.sources.dicomweb_options import DicomwebOptions

        urlsplit(text)
    except ModuleNotFoundError as error:
        raise OptionsError(NEEDS_EXTRA) from error
    except ValueError as error:
        raise OptionsError("not the address of a DICOMweb service") from error
    return DicomwebSource(text, _checked(DicomwebOptions, given))


def _checked(kind: type[AnyOptions], given: dict[str, Any]) -> AnyOptions:
    """The validated options; the error does not repeat a wrong value."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        reasons = (
            f"{'.'.join(map(str, found['loc'])) or 'options'}: {found['msg']}"
            for found in error.errors()
        )
        raise OptionsError("; ".join(reasons)) from error
