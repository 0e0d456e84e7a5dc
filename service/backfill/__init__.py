"""Backfill jobs: classify every image of an archive exactly once, also after crashes."""
