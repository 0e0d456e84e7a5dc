"""A PACS with DICOMweb as a source: QIDO-RS lists instances, WADO-RS returns or renders them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

from service.backfill.results.rows import ItemError, Names, Rendered, SourceError
from service.backfill.sources.dicomweb_options import DicomwebOptions
from service.backfill.sources.multipart import MultipartError, only_part
from service.backfill.sources.options import OptionsError
from service.backfill.sources.rendered import (
    LISTED,
    is_picture,
    is_squeezed,
    picture_of,
    value,
)
from service.backfill.sources.request_throttle import OffPeak, RequestThrottle
from service.backfill.sources.retrying import Retry, TransientError
from service.backfill.sources.web import Reply, TooLargeError, Web
from service.inference import Buffer

UID = r"[0-9](?:[0-9.]{0,62}[0-9])?"
LOCATOR = re.compile(
    f"studies/({UID})/series/({UID})/instances/({UID})(/rendered(?:\\?viewport=[0-9]+,[0-9]+)?)?"
)
STUDY_DATE, MODALITY = "00080020", "00080060"
UIDS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
# Without the last parameter an archive would decompress images, and send ten times as many bytes
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
MAX_LISTING_BYTES = 256 * 2**20
MAX_LISTINGS = 5  # tries to list the same days while the archive changes
# If a picture is refused before any was rendered, so many others are tried; later, after so many
# refusals in a row, an earlier picture is tried again
SAMPLE, MOST_REFUSED = 20, 100


class PictureRefusedError(ItemError):
    """The archive does not render this instance; it may still return the stored one."""


class DicomwebSource:
    """The instances of a PACS by Study Date and modality; the locator is the path.

    Args:
        address: The base URL of DICOMweb, without `/studies`.
        options: `since` is required.

    Raises:
        OptionsError: `since` is missing, or the address holds a user, a password or a query.
    """

    def __init__(self, address: str, options: DicomwebOptions) -> None:
        parts = urlsplit(address)
        if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
            raise OptionsError("a DICOMweb address has a host and a path, and nothing secret")
        if options.since is None:
            raise OptionsError("a DICOMweb source needs `since`, the first Study Date")
        self._since, self._options = options.since, options
        self._retry = Retry(options, self._alive)
        zone = ZoneInfo(options.time_zone) if options.time_zone else None
        throttle = RequestThrottle(
            options.concurrency,
            options.requests_per_second,
            OffPeak.parse(options.off_peak) if options.off_peak else None,
            zone,
            self._retry.wait,
        )
        self._listed = LISTED if options.rendered else ()
        self._shown: str | None = None  # the locator of the last rendered picture
        self._refused = 0  # refused pictures in a row
        self._web = Web(address.rstrip("/"), options.timeout_seconds, throttle)

    def find(self) -> Iterator[str]:
        """The instances by day, modality and UIDs; holds one partition in memory.

        Raises:
            SourceError: The archive is away, refuses, or does not answer as QIDO-RS requires.
        """
        first = self._since
        last = self._options.until or datetime.now(UTC).astimezone().date()
        while first <= last:
            end = min(first + timedelta(days=self._options.partition_days - 1), last)
            for modality in self._options.modalities:
                yield from sorted(self._partition(first, end, modality))
            first = end + timedelta(days=1)

    def read(self, locator: str) -> Buffer | Rendered:
        """One stored instance, or its picture if the locator names one that can be trusted.

        Raises:
            ItemError: `not_found`; `entry_too_large`; `unreadable_file`: only this one fails.
            SourceError: The archive is away for longer than `patience_seconds`, refuses every
                request, or renders no picture.
        """
        found = LOCATOR.fullmatch(locator)
        if not found:
            raise ItemError("not_found", "no instance of a PACS is named so")
        *uids, rendered = found.groups()
        if rendered is not None:
            with suppress(PictureRefusedError):  # then the stored instance is read
                picture = self.picture(locator)
                if not is_squeezed(picture):
                    return Rendered(picture, Names(*uids))
        stored = locator.removesuffix(rendered or "")
        return self._retry.of_item(partial(self._retrieve, stored, AS_STORED))

    def picture(self, locator: str) -> memoryview:
        """The rendered picture, without a check of its grey levels.

        Raises:
            PictureRefusedError: The archive renders other instances, but not this one.
            ItemError: `entry_too_large`.
            SourceError: As `read`.
        """
        try:
            picture = self._picture(locator)
        except ItemError as error:
            if error.code == "entry_too_large":
                raise
            self._refuse(locator)
            raise PictureRefusedError(error.code, str(error)) from error
        self._shown, self._refused = locator, 0
        return picture

    def close(self) -> None:
        """Close the connections; calls that wait raise SourceError."""
        self._retry.close()
        self._web.close()

    def check(self) -> None:
        """See `RemoteSource`; a source with off-peak hours may have to wait for them."""
        if not self._options.off_peak:
            self._retry.check()

    def _alive(self) -> object:
        return _found(self._query({"limit": "1"}, "studies"))

    def _query(self, parameters: dict[str, str], path: str = "instances") -> Reply:
        asked = urlencode(parameters, safe=",")  # Orthanc does not accept an encoded comma
        return self._web.get(f"{path}?{asked}", "application/dicom+json", MAX_LISTING_BYTES)

    def _picture(self, locator: str) -> memoryview:
        kind = f"image/{self._options.rendered_as}"  # Orthanc does not accept a list of types
        data = self._retry.of_item(partial(self._retrieve, locator, kind))
        if not is_picture(data):
            raise ItemError("unreadable_file", "the archive renders it as no PNG or JPEG")
        return data

    def _refuse(self, locator: str) -> None:
        """Count a refused picture, and check that the archive still renders others.

        Raises:
            SourceError: It renders none, so the image is not at fault.
        """
        self._refused += 1
        if self._shown is not None and self._refused % MOST_REFUSED:
            return
        others = [self._shown] if self._shown is not None else self._some(locator)
        for other in others:
            try:
                self._picture(other)
            except ItemError:
                continue
            self._shown = other
            return
        raise SourceError(
            f"the archive renders none of {len(others) + 1} images: it cannot, or not this kind; "
            "without the option `rendered` they are read as they are stored"
        )

    def _some(self, locator: str) -> list[str]:
        """Up to `SAMPLE` pictures of the period, without this one."""
        last = self._options.until or datetime.now(UTC).astimezone().date()
        days = f"{self._since:%Y%m%d}-{last:%Y%m%d}"
        found = [
            picture
            for modality in self._options.modalities
            for picture in map(self._locator, self._page(days, modality, 0, SAMPLE))
            if picture != locator and "/rendered" in picture
        ]
        return found[:SAMPLE]

    def _retrieve(self, locator: str, accept: str) -> memoryview:
        most = self._options.max_image_bytes
        try:
            reply = self._web.get(locator, accept, most)
        except TooLargeError as error:
            raise ItemError("entry_too_large", f"the instance exceeds {most} bytes") from error
        if reply.status in {204, 404, 410}:
            raise ItemError("not_found", "the archive has no such instance")
        if reply.status != 200:
            if reply.status != 401 and self._retry.answers():  # 403, 406, ...: only this one
                raise ItemError("unreadable_file", f"the archive answers {reply.status}")
            raise SourceError(f"the archive answers {reply.status}")
        try:
            instance = only_part(reply.content_type, reply.body)
        except MultipartError as error:
            raise TransientError(str(error)) from error
        if len(instance) > most:
            raise ItemError("entry_too_large", f"the instance exceeds {most} bytes")
        return instance

    def _partition(self, first: date, last: date, modality: str) -> set[str]:
        """All instances of some days, from a listing during which nothing changed."""
        days = f"{first:%Y%m%d}-{last:%Y%m%d}"
        for _ in range(MAX_LISTINGS):
            found = self._listing(days, modality)
            if found is not None:
                return found
        raise SourceError("the archive's order changes while it is paged, or it cannot page")

    def _listing(self, days: str, modality: str) -> set[str] | None:
        """The listed instances; None if one is listed twice, because another may be missing."""
        found: set[str] = set()
        offset, limit, first_page = 0, self._options.page_instances, None
        while page := self._page(days, modality, offset, limit):
            if page == first_page and len(page) != limit:
                return found  # it ignores `offset`, and returns all instances at once
            first_page = first_page or page
            names = {self._locator(instance) for instance in page}
            if len(names) < len(page) or not found.isdisjoint(names):
                return None
            found |= names
            offset += len(page)  # may be fewer than `limit`
        return found

    def _page(self, days: str, modality: str, offset: int, limit: int) -> list[dict[str, Any]]:
        parameters = {
            "StudyDate": days,
            "Modality": modality,
            "includefield": ",".join((STUDY_DATE, MODALITY, *self._listed)),
            "limit": str(limit),
            "offset": str(offset),
        }
        page = self._retry.of_archive(lambda: _found(self._query(parameters)))
        first, last = days.split("-")
        for instance in page:
            day, kind = value(instance, STUDY_DATE), value(instance, MODALITY)
            foreign_day = len(day) == 8 and not first <= day <= last  # ACR-NEMA dates have dots
            if foreign_day or (kind and kind.upper() != modality):
                raise SourceError("the archive does not select by Study Date and Modality")
        return page

    def _locator(self, instance: dict[str, Any]) -> str:
        stored = _locator(instance)
        side = self._options.rendered
        return stored if side is None else picture_of(stored, instance, side)


def _found(reply: Reply) -> list[dict[str, Any]]:
    """The datasets of a QIDO-RS answer, in the DICOM JSON model."""
    if reply.status == 204:
        return []
    if reply.status != 200:
        raise SourceError(f"the archive answers {reply.status} to a query")
    try:
        datasets = json.loads(reply.body or b"[]")
    except ValueError as error:  # for example the error page of a proxy
        raise TransientError("a query is not answered in JSON") from error
    if not isinstance(datasets, list) or not all(isinstance(found, dict) for found in datasets):
        raise SourceError("a query is answered with something that is no list of datasets")
    return datasets


def _locator(instance: dict[str, Any]) -> str:
    found = "/".join(f"{kind}/{value(instance, tag)}" for kind, tag in UIDS.items())
    if not LOCATOR.fullmatch(found):
        raise SourceError("the archive names an instance without its UIDs")
    return found
