from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.backfill.sources.gate import OffPeak
from service.backfill.sources.multipart import MultipartError, only_part

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
