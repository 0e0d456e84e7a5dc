import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from conftest import ROOT
from hypothesis import assume, given
from hypothesis import strategies as st

from service.backfill.results.rows import ItemError
from service.backfill.sources.multipart import MultipartError, only_part
from service.backfill.sources.request_throttle import OffPeak
from service.backfill.sources.retrying import Retry, RetryOptions, TransientError

BOUNDARIES = st.from_regex(r"[A-Za-z0-9'()+_,./:=?-]{1,70}", fullmatch=True)


def body(boundary: str, headers: bytes, data: bytes, preamble: bytes = b"") -> bytes:
    mark = boundary.encode()
    return b"".join(
        (preamble, b"--", mark, b"\r\n", headers, b"\r\n", data, b"\r\n--", mark, b"--")
    )


@given(
    BOUNDARIES,
    st.sampled_from([b"", b"Content-Type: application/dicom\r\nContent-Length: 7\r\n"]),
    st.binary() | st.lists(st.sampled_from([b"\r\n", b"--", b"\r\n\r\n", b"DICM"])).map(b"".join),
    st.sampled_from([b"", b"\r\n", b"hello\r\n"]),
)
def test_the_one_part_comes_out_as_it_went_in(
    boundary: str, headers: bytes, data: bytes, preamble: bytes
) -> None:
    """Line breaks and dashes within an image are its own; cut off anywhere, it is refused."""
    assume(f"--{boundary}".encode() not in b"\r\n" + data + b"\r\n" + headers)
    kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
    whole = body(boundary, headers, data, preamble)
    assert only_part(kind, whole) == data
    for end in {0, len(whole) // 3, len(whole) // 2, len(whole) - 2, len(whole) - 1}:
        with pytest.raises(MultipartError):
            only_part(kind, whole[:end])


def test_an_answer_of_several_parts_is_refused() -> None:
    """An instance is one part; one that is sent without any multipart is itself."""
    two = b"--x\r\n\r\na\r\n--x\r\n\r\nb\r\n--x--"
    with pytest.raises(MultipartError):
        only_part("multipart/related; boundary=x", two)
    with pytest.raises(MultipartError, match="without a boundary"):
        only_part("multipart/related", two)
    assert only_part("application/dicom", b"a") == b"a"


@given(st.times(), st.times(), st.integers(0, 10 * 365 * 24 * 60))
def test_hours_open_when_they_say(start: object, end: object, minute: int) -> None:
    """Across midnight and the changes to and from summer, in a zone that has them."""
    assume(start != end)
    hours = OffPeak(start, end)  # type: ignore[arg-type]
    zone = ZoneInfo("Europe/Berlin")
    now = (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).astimezone(zone)
    seconds = hours.seconds_until_open(now)
    assert 0 <= seconds <= 25 * 3600
    if seconds > 1:
        opening = (now.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(zone)
        assert abs(
            opening.replace(tzinfo=None)
            - opening.replace(hour=hours.start.hour, minute=hours.start.minute, tzinfo=None)
        ) <= timedelta(hours=1, minutes=1)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("2024-05-01T18:59:00", 60),
        ("2024-05-01T19:00:00", 0),
        ("2024-05-01T23:59:00", 0),
        ("2024-05-01T05:59:59", 0),
        ("2024-05-01T06:00:00", 13 * 3600),
    ],
)
def test_hours_may_span_midnight(now: str, seconds: float) -> None:
    """From the evening to the morning, as a hospital sleeps."""
    hours = OffPeak.parse("19:00-06:00")
    assert hours.seconds_until_open(datetime.fromisoformat(now).replace(tzinfo=UTC)) == seconds


def test_patience_begins_with_the_first_failure() -> None:
    """Hours of waiting for the off-peak time do not count as patience."""
    retry = Retry(RetryOptions(patience_seconds=0.08, first_delay_seconds=0.01), lambda: None)
    failures = [TransientError("503")]

    def attempt() -> str:
        if failures:
            retry.wait(0.1)
            raise failures.pop()
        return "answer"

    assert retry.of_archive(attempt) == "answer"


def test_an_image_fails_only_while_its_archive_answers() -> None:
    """An archive that comes back just after the last try has not had its chance yet."""
    states = iter([False, True, False, True])  # of the archive, each time it is asked

    def alive() -> None:
        if not next(states):
            raise TransientError("away")

    def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries < 10:
            raise TransientError("away")
        return "answer"

    tries = 0
    options = RetryOptions(first_delay_seconds=0, max_tries=2, patience_seconds=60)
    assert Retry(options, alive).of_item(attempt) == "answer"


def test_failures_while_an_archive_is_away_are_not_an_images_own() -> None:
    """When it is back, an image has all its tries, however many there were before."""
    tries = 0

    def alive() -> None:
        if tries < 9:
            raise TransientError("away")

    def attempt() -> None:
        nonlocal tries
        tries += 1
        raise TransientError("503")

    options = RetryOptions(first_delay_seconds=0, max_tries=4, patience_seconds=60)
    with pytest.raises(ItemError):
        Retry(options, alive).of_item(attempt)
    assert tries == 16  # asked at 4, 8, 12 and 16, and answered at the last two


@pytest.mark.parametrize(
    ("module", "address", "options"),
    [("minio", "s3://archive", {}), ("httpx2", "https://pacs/", {"since": "2024-05-01"})],
)
def test_a_source_whose_library_is_missing_says_what_to_install(
    module: str, address: str, options: dict[str, str]
) -> None:
    """The `backfill` extra; folders, CSV and archive files need nothing."""
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from service.backfill.sources import open_source, OptionsError\n"
        f"try: open_source({address!r}, {options!r})\n"
        "except OptionsError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert "cxrview[backfill]" in run.stdout, run.stderr
