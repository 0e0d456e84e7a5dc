"""Sources of images: folders, lists, archive files, buckets, PACS."""

from service.backfill.sources.opening import open_source
from service.backfill.sources.options import OptionsError

__all__ = ["OptionsError", "open_source"]
