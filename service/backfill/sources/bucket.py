"""A bucket of an S3-compatible object store as a source.

Uses `minio`, which does not change keys. fsspec's S3 file system turns keys into paths, which loses
`a/`, and holds a whole listing in memory before it returns the first name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import urllib3
from minio import Minio
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)
from minio.datatypes import Object
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name

from service.backfill.results.rows import ItemError, SourceError
from service.backfill.sources.bucket_options import BucketOptions
from service.backfill.sources.names import locator_of, name_of
from service.backfill.sources.options import OptionsError
from service.backfill.sources.retrying import Retry, TransientError
from service.inference import Buffer

PAGE = 1000  # the most keys of one S3 listing
ENDPOINT = "https://s3.amazonaws.com"

Answer = TypeVar("Answer")


class BucketSource:
    """The objects of a bucket whose keys begin with a prefix; the locator is the key.

    Left out, and counted in `left_out`: `folder`, an empty object whose key ends in a slash;
    `period`, an object outside `since` to `until`.

    Raises:
        OptionsError: The name of the bucket or the endpoint is invalid.
    """

    def __init__(self, bucket: str, prefix: str, options: BucketOptions) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._options = options
        self._connections = urllib3.PoolManager(
            timeout=urllib3.Timeout(options.timeout_seconds),
            maxsize=64,  # connections; our `Retry` retries, not urllib3
            retries=urllib3.Retry(0, raise_on_status=False),
        )
        try:
            self._client = _client(options, self._connections)
            check_bucket_name(bucket)
        except ValueError as error:
            raise OptionsError(str(error)) from error
        self._retry = Retry(options, self._alive)
        self.left_out: Counter[str] = Counter()

    def find(self) -> Iterator[str]:
        """The objects by key; holds one page of the listing in memory.

        Raises:
            SourceError: The store is away for longer than `patience_seconds`, or refuses to list.
        """
        self.left_out.clear()
        last = None
        while page := self._retry.of_archive(partial(self._page, last)):
            for found in page:
                if (reason := self._reason_against(found)) is not None:
                    self.left_out[reason] += 1
                else:
                    yield locator_of(str(found.object_name))
            last = page[-1].object_name

    def read(self, locator: str) -> Buffer:
        """The whole object.

        Raises:
            ItemError: `not_found`; `entry_too_large`; `unreadable_file`: the store answers, but
                does not return this object.
            SourceError: The store is away for longer than `patience_seconds`, or refuses every
                request.
        """
        key = name_of(locator)
        return self._retry.of_item(partial(self._translated, partial(self._get, key), of_item=True))

    def close(self) -> None:
        """Close the connections; calls that wait raise SourceError."""
        self._retry.close()
        self._connections.clear()

    def _reason_against(self, found: Object) -> str | None:
        if str(found.object_name).endswith("/") and not found.size:
            return "folder"
        written = found.last_modified
        return None if written is None or self._options.hold(written) else "period"

    def _page(self, last: str | None, count: int = PAGE) -> list[Object]:
        # Keys are sorted, so a listing continues after the last key, even if the bucket changed
        objects = self._client.list_objects(
            self._bucket, self._prefix or None, recursive=True, start_after=last
        )
        return self._translated(lambda: list(islice(objects, count)))

    def check(self) -> None:
        """See `RemoteSource`."""
        self._retry.check()

    def _alive(self) -> object:
        return self._page(None, 1)

    def _get(self, key: str) -> bytes:
        pieces, size = [], 0
        response = self._client.get_object(self._bucket, key)
        try:
            for piece in response.stream(2**20):
                pieces.append(piece)
                size += len(piece)
                if size > self._options.max_image_bytes:
                    response.close()  # the rest is unread, so the connection cannot be reused
                    raise ItemError(
                        "entry_too_large",
                        f"the object exceeds {self._options.max_image_bytes} bytes",
                    )
        finally:
            response.release_conn()
        return b"".join(pieces)

    def _translated(self, call: Callable[[], Answer], *, of_item: bool = False) -> Answer:
        try:
            return call()
        except S3Error as error:
            raise self._meaning(error, of_item) from error
        except (urllib3.exceptions.HTTPError, ET.ParseError, InvalidResponseError) as error:
            raise TransientError(f"the store does not answer ({type(error).__name__})") from error
        except ServerError as error:
            raise TransientError(f"the store answers {error.status_code}") from error
        except (MinioException, ValueError) as error:
            if of_item and self._retry.answers():
                raise ItemError("unreadable_file", "the store cannot be asked for it") from error
            raise SourceError(f"the store cannot be asked ({type(error).__name__})") from error

    def _meaning(self, error: S3Error, of_item: bool) -> Exception:
        status, code = error.response.status, error.code
        if status >= 500 or status == 429 or code in {"SlowDown", "RequestTimeout"}:
            return TransientError(f"the store answers {status} ({code})")
        if of_item and code in {"NoSuchKey", "ResourceNotFound", "NoSuchVersion"}:
            return ItemError("not_found", "the bucket has no such object")
        if of_item and self._retry.answers():  # archived, or with its own access rules
            return ItemError("unreadable_file", f"the store answers {status} ({code})")
        return SourceError(f"the bucket cannot be read: the store answers {status} ({code})")


def _client(options: BucketOptions, connections: urllib3.PoolManager) -> Minio:
    variables = os.environ
    address = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    endpoint = urlsplit(address or ENDPOINT)
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
    keys: Provider = ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider()])
    return Minio(
        endpoint.netloc,
        secure=endpoint.scheme == "https",
        region=region
        or ("us-east-1" if address else None),  # None: minio asks for the bucket's region
        credentials=None if options.anonymous else keys,
        http_client=connections,
    )
