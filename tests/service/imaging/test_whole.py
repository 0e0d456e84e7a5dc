"""JPEG that is cut off and closed with an end marker: libjpeg answers it, and only warns."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hostile import marker
from images import CODECS, dicom, jpeg, radiograph
from PIL import Image
from pydicom import uid

from model_store import PreprocessSpec
from service.imaging import CorruptImageError, read_radiograph
from service.imaging.decoders import decode_frame
from service.imaging.jpeg import LOST_BYTES, has_lost_bytes, with_more, without_zero
from service.imaging.raster import read_raster
from service.imaging.whole import MORE

FULL_SIZE = 2**31
TWELVE = radiograph(96, 83)
EIGHT = (TWELVE >> 4).astype(np.uint8)
COLOUR = np.stack([EIGHT] * 3, axis=2)
END = b"\xff\xd9"
DATA = Path(__file__).parents[2] / "data"


def saved(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


STREAMS = {
    "baseline": jpeg(EIGHT),
    "optimised": saved(EIGHT, optimize=True),
    "restarts": saved(EIGHT, restart_marker_blocks=5),
    "progressive": saved(EIGHT, progressive=True),
    "progressive with restarts": saved(EIGHT, progressive=True, restart_marker_rows=1),
    "colour": saved(COLOUR),
    "colour, restarts": saved(COLOUR, restart_marker_blocks=2),
    "colour, not subsampled": saved(COLOUR, subsampling=0),
    "colour, progressive": saved(COLOUR, progressive=True),
    "extended": bytes(CODECS[uid.JPEGExtended12Bit](TWELVE, 12)),
    **{
        f"lossless, predictor {number}": bytes(
            imagecodecs.jpeg_encode(TWELVE, lossless=True, predictor=number, bitspersample=12)
        )
        for number in range(1, 8)
    },
    "lossless, 8 bits": bytes(imagecodecs.jpeg_encode(EIGHT, lossless=True, predictor=1)),
    "lossless, 16 bits": bytes(
        imagecodecs.jpeg_encode(TWELVE << 4, lossless=True, bitspersample=16)
    ),
}

BIG = radiograph(400, 350)
LARGE = {
    "extended": bytes(CODECS[uid.JPEGExtended12Bit](BIG, 12)),
    "lossless, predictor 1": bytes(CODECS[uid.JPEGLosslessSV1](BIG, 12)),
    "lossless, 16 bits": bytes(imagecodecs.jpeg_encode(BIG << 4, lossless=True, bitspersample=16)),
}
FILES = [name for name in STREAMS if "lossless" not in name and name != "extended"]


def cut(stream: bytes, share: float) -> bytes:
    """So much of the data of the last scan, and the end marker of a whole image."""
    start = stream.rindex(b"\xff\xda") + 2
    start += struct.unpack_from(">H", stream, start)[0]
    kept = stream[: start + int(share * (len(stream) - 2 - start))]
    return kept.rstrip(b"\xff") + END


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("name", STREAMS)
def test_data_that_end_before_the_picture_are_refused(name, share):
    """In any process, with an end marker or without; the whole is read."""
    stream = STREAMS[name]
    assert decode_frame(stream, FULL_SIZE).samples.shape[:2] == TWELVE.shape
    half = cut(stream, share)
    for data in (half, half[:-2]):
        with pytest.raises(CorruptImageError, match="cut off"):
            decode_frame(data, FULL_SIZE)


@pytest.mark.parametrize("min_side", [8, 16, FULL_SIZE])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_held_to_the_same(name, min_side):
    """At every size at which it is decoded."""
    stream = STREAMS[name]
    assert min(read_raster(stream, "jpeg", min_side).picture.pixels.shape) <= TWELVE.shape[1]
    with pytest.raises(CorruptImageError, match="cut off"):
        read_raster(cut(stream, 0.5), "jpeg", min_side)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.jpg")), ids=lambda path: path.stem)
def test_a_real_radiograph_is_whole_or_refused(path):
    """As it is answered, and as half of it with an end marker is not."""
    data, spec = path.read_bytes(), PreprocessSpec(size=64)
    assert read_radiograph(data, spec).warnings == ()
    with pytest.raises(CorruptImageError, match="cut off"):
        read_radiograph(cut(data, 0.5), spec)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("name", ["extended", "lossless, predictor 1", "lossless, 16 bits"])
def test_bytes_that_a_disk_has_lost_are_missed(name, share):
    """Zeros are codes of other pixels, so the picture ends before or behind its data."""
    stream = bytearray(LARGE[name])
    place = int(len(stream) * share)
    stream[place : place + 512] = bytes(512)
    with pytest.raises(CorruptImageError, match=r"cut off|damaged|decoded"):
        decode_frame(bytes(stream), FULL_SIZE)


def test_zeros_that_are_a_flat_picture_are_read():
    """A border of lossless JPEG may be coded in zeros, and zeros may fill up its end."""
    flat = np.zeros((300, 300), np.uint8)
    flat[100:200, 100:200] = radiograph(100, 100) >> 4
    stream = bytes(imagecodecs.jpeg_encode(flat, lossless=True, predictor=1))
    assert has_lost_bytes(stream)
    for data in (stream, stream[:-2] + b"\0" + END):
        np.testing.assert_array_equal(decode_frame(data, FULL_SIZE).samples, flat)


@pytest.mark.parametrize("offset", range(8))
def test_a_stretch_of_zeros_counts_wherever_it_begins_in_the_scan(offset):
    """But not before the scan, as in a profile, and not behind the end of the image."""
    scan = STREAMS["baseline"]
    place = len(scan) // 2 + offset
    assert not has_lost_bytes(scan)
    assert has_lost_bytes(scan[:place] + bytes(LOST_BYTES) + scan[place:])
    assert not has_lost_bytes(scan[:place] + bytes(LOST_BYTES - 16) + b"\1" + scan[place:])
    profile = marker(0xFFE1, bytes(offset + 2 * LOST_BYTES))
    assert not has_lost_bytes(scan[:2] + profile + scan[2:] + bytes(2 * LOST_BYTES))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_corner_is_no_cut(value):
    """Whatever its value: also that of half the range, which missing data look like."""
    flat = EIGHT.copy()
    flat[40:] = value
    for data in (saved(flat), saved(flat, progressive=True)):
        found = read_raster(data, "jpeg", FULL_SIZE).picture.pixels
        np.testing.assert_allclose(found[56:], value, atol=1)
    lossless = bytes(imagecodecs.jpeg_encode(flat, lossless=True, predictor=1))
    np.testing.assert_array_equal(decode_frame(lossless, FULL_SIZE).samples, flat)
    with pytest.raises(CorruptImageError, match="cut off"):
        decode_frame(cut(lossless, 0.3), FULL_SIZE)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("fill", [b"", b"\xff", b"\xff\xff"])
def test_bytes_behind_the_data_change_nothing(stream, fill):
    """This is what tells a whole picture; fill bytes before the end marker do not disturb it."""
    filled = stream[:-2] + fill + END
    changed = imagecodecs.jpeg8_decode(with_more(filled, MORE))
    np.testing.assert_array_equal(changed, imagecodecs.jpeg8_decode(stream))
    assert decode_frame(filled, FULL_SIZE).samples.shape[:2] == TWELVE.shape


def test_a_thumbnail_does_not_end_its_picture():
    """The end marker within a comment, EXIF or another segment is not the frame's own."""
    thumbnail = saved(EIGHT[:32, :32])
    for code in (0xFFE1, 0xFFED, 0xFFFE):
        stream = jpeg(EIGHT)
        whole = stream[:2] + marker(code, b"Exif\0\0" + thumbnail) + stream[2:]
        found = decode_frame(whole, FULL_SIZE).samples
        np.testing.assert_array_equal(found, decode_frame(stream, FULL_SIZE).samples)
        half = whole[: len(whole) - len(stream) // 3]
        for data in (half, dicom(EIGHT, uid.JPEGBaseline8Bit).replace(stream, half)):
            with pytest.raises(CorruptImageError):
                read_radiograph(data, PreprocessSpec(size=32))


def test_restart_markers_that_are_missing_are_missed():
    """A part between two of them is lost, and nothing else is damaged."""
    stream = STREAMS["restarts"]
    first = stream.index(b"\xff\xd2")
    second = stream.index(b"\xff\xd3")
    with pytest.raises(CorruptImageError, match="restart markers"):
        decode_frame(stream[:first] + stream[second:], FULL_SIZE)


def test_a_component_without_a_scan_is_missed():
    """A picture in several scans, of which most are gone."""
    stream = saved(COLOUR, progressive=True)
    one = marker(0xFFDA, bytes([1, 1, 0, 0, 0, 1])) + b"\0\0"  # the means of the first
    first = stream.index(b"\xff\xda")
    with pytest.raises(CorruptImageError, match="lacks its scan"):
        decode_frame(stream[:first] + one + END, FULL_SIZE)


@pytest.mark.parametrize("near", [0, 2])
def test_a_zero_byte_before_the_end_of_jpeg_ls_is_left_out(near):
    """Some encoders pad there; cut off, the stream is refused all the same."""
    stream = bytes(imagecodecs.jpegls_encode(TWELVE, near))
    expected = imagecodecs.jpegls_decode(stream)
    padded = stream[:-2] + b"\0" + END
    np.testing.assert_array_equal(decode_frame(padded, FULL_SIZE).samples, expected)
    np.testing.assert_array_equal(decode_frame(stream, FULL_SIZE).samples, expected)
    assert without_zero(padded) == stream
    for data in (stream[:-2] + bytes(9) + END, cut(padded, 0.5), cut(stream, 0.9)):
        with pytest.raises(CorruptImageError, match="damaged or cut off"):
            decode_frame(data, FULL_SIZE)


def tile_parts(stream: bytes, shares: list[float], promised: int, kept: int) -> bytes:
    """The one tile of a stream in parts of its data, of which the first are kept."""
    sot = stream.index(b"\xff\x90")
    sod = stream.index(b"\xff\x93", sot)
    head, data = stream[sot + 12 : sod], stream[sod + 2 : -2]
    cuts = [0, *(int(share * len(data)) for share in shares), len(data)]
    parts = b""
    for number in range(kept):
        piece = (b"" if number else head) + b"\xff\x93" + data[cuts[number] : cuts[number + 1]]
        parts += struct.pack(">HHHIBB", 0xFF90, 10, 0, 12 + len(piece), number, promised) + piece
    return stream[:sot] + parts + END


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless])
@pytest.mark.parametrize("min_side", [16, FULL_SIZE])
def test_a_tile_that_lacks_parts_is_cut_off(syntax, min_side):
    """Each tile-part says how many there are; without one, what its packets hold is not there."""
    stream = bytes(CODECS[syntax](TWELVE, 12))
    expected = decode_frame(stream, min_side).samples
    for promised in (0, 3):
        whole = tile_parts(stream, [0.1, 0.4], promised, kept=3)
        np.testing.assert_array_equal(decode_frame(whole, min_side).samples, expected)
    with pytest.raises(CorruptImageError, match="lacks tile-parts"):
        decode_frame(tile_parts(stream, [0.1, 0.4], 3, kept=2), min_side)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("min_side", [16, FULL_SIZE])
def test_a_tile_part_is_as_long_as_it_says(syntax, share, min_side):
    """Psot counts its bytes, or is 0 and then the end marker has the say."""
    stream = bytes(CODECS[syntax](TWELVE, 12))
    at = stream.index(b"\xff\x90") + 6
    for data in (stream, stream[:at] + bytes(4) + stream[at + 4 :]):
        assert decode_frame(data, min_side).samples.size
        short = data[: int(share * len(data))]
        for half in (short, short + END):
            with pytest.raises(CorruptImageError, match="cut off"):
                decode_frame(half, min_side)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("min_side", [32, 128, FULL_SIZE])
def test_zeros_in_metadata_are_no_loss(progressive, min_side):
    """Cameras and editors pad EXIF; and of a small size the last bytes may not be needed."""
    data = saved((BIG >> 4).astype(np.uint8), progressive=progressive)
    padded = data[:2] + b"\xff\xe1\x01\x02Exif\0\0" + bytes(250) + data[2:]
    expected = read_raster(data, "jpeg", min_side).picture.pixels
    np.testing.assert_array_equal(read_raster(padded, "jpeg", min_side).picture.pixels, expected)
