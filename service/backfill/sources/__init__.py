"""Where an archive's images are: folders, lists, archive files, buckets, PACS."""
