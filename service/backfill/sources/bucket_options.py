"""The options of a bucket."""

from __future__ import annotations

from service.backfill.sources.retrying import RetryOptions


class BucketOptions(RetryOptions):
    """Options of a bucket; `since` and `until` apply to the time an object was last written.

    The endpoint, region and keys come from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or
    AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, from the
    files of the AWS tools, or from the role of the machine or pod.
    """

    anonymous: bool = False
    """Send no keys: the bucket is public."""
