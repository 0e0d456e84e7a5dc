from __future__ import annotations

import io
import struct

import imagecodecs
import needs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import CODECS, dicom, radiograph
from pydicom import uid
from pydicom.encaps import get_frame

from service.imaging import decoders, jpeg
from service.imaging.codestream import read_frame_header
from service.imaging.decoders import decode_frame, decode_rle
from service.imaging.errors import (
    CorruptImageError,
    ImageTooLargeError,
    UnsupportedPixelFormatError,
    UnsupportedTransferSyntaxError,
)
from service.imaging.openjpeg import OPENJPEG, load

FULL_SIZE = 2**31
WAVELETS = [
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
]
PIXELS = radiograph(72, 64)
EXACT = [
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
]


def stream(syntax: str, bits: int = 12) -> bytes:
    pixels = PIXELS if bits == 12 else (PIXELS >> 4).astype(np.uint8)
    return bytes(CODECS[syntax](pixels, bits))


def runs(values: np.ndarray) -> bytes:
    """One frame of RLE Lossless."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(values, uid.RLELossless)))
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def with_size(data: bytes, family: str, rows: int, columns: int) -> bytes:
    """The same frame, claiming another size."""
    changed = bytearray(data)
    if family == "jpeg-2000":
        struct.pack_into(">2I", changed, 8, columns, rows)
    else:
        at = data.index(struct.pack(">HH", *PIXELS.shape))
        struct.pack_into(">HH", changed, at, rows, columns)
    return bytes(changed)


@pytest.mark.parametrize("syntax", EXACT)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([12, 16]))
def test_lossless_means_lossless(syntax, seed, bits):
    """Whatever the values are, a lossless codec returns them."""
    pixels = np.random.default_rng(seed).integers(0, 2**bits, (33, 40)).astype(np.uint16)
    decoded = decode_frame(bytes(CODECS[syntax](pixels, bits)), FULL_SIZE)
    np.testing.assert_array_equal(decoded.samples, pixels)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), depth=st.sampled_from([np.uint8, np.uint16]))
def test_run_lengths_return_every_byte(seed, depth):
    """RLE keeps the order of bytes and rows in every word size."""
    values = np.random.default_rng(seed).integers(0, 4, (33, 41)).astype(depth) * 37
    frame = runs(values)
    np.testing.assert_array_equal(decode_rle(frame, (33, 41), values.itemsize), values)


@pytest.mark.parametrize("min_side", [8, 16, 32, 64])
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.HTJ2K])
def test_a_wavelet_is_decoded_no_finer_than_needed(syntax, min_side):
    """Both sides keep `min_side` pixels, and no more than twice as many."""
    assert min_side <= min(decode_frame(stream(syntax), min_side).samples.shape) < 2 * min_side


@pytest.mark.parametrize("shape", [(73, 67), (74, 70), (75, 71), (79, 65)])
@pytest.mark.parametrize("reversible", [True, False])
def test_any_remainder_of_a_side_is_decoded_small(shape, reversible):
    """Sides that are no multiple of 8 are rounded up, and the first decoder reads them."""
    pixels = radiograph(*shape)
    data = imagecodecs.jpeg2k_encode(pixels, 0, codecformat="j2k", reversible=reversible)
    found = decode_frame(bytes(data), 8)
    assert found.samples.shape == tuple(-(-side // 8) for side in shape)
    assert (found.wavelet, found.fallbacks) == ("5/3" if reversible else "9/7", ())


def test_a_frame_at_full_size_is_no_low_pass_band():
    """Its samples are pixels, whichever wavelet they came from."""
    assert decode_frame(stream(uid.JPEG2000Lossless), FULL_SIZE).wavelet is None


@pytest.mark.parametrize("min_side", [4, 8, 16, 32])
def test_a_grey_jpeg_is_decoded_at_twice_the_size(min_side):
    """Half, quarter or eighth of 72 x 64, as blocks of the full decode are on average."""
    data = stream(uid.JPEGBaseline8Bit, 8)
    found = decode_frame(data, min_side)
    step = 64 // (2 * min_side)
    assert found.samples.shape == (72 // step, 64 // step)
    full = decode_frame(data, FULL_SIZE).samples.astype(float)
    blocks = full.reshape(72 // step, step, 64 // step, step).mean(axis=(1, 3))
    np.testing.assert_allclose(found.samples, blocks, atol=8)
    assert np.abs(found.samples - blocks).mean() < 0.5
    assert (found.wavelet, found.fallbacks) == (None, ())


def test_samples_of_more_than_16_bits_are_read():
    """Some writers keep 20; imagecodecs reads them."""
    pixels = PIXELS.astype(np.uint32) << 8
    data = imagecodecs.jpeg2k_encode(
        pixels, 0, codecformat="j2k", reversible=True, bitspersample=20
    )
    found = decode_frame(bytes(data), FULL_SIZE)
    np.testing.assert_array_equal(found.samples, pixels)
    assert found.fallbacks == ()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("syntax", CODECS)
def test_a_frame_is_read_from_any_buffer(syntax, kind):
    """A view of the request's body serves as well as bytes."""
    data = stream(syntax, 8 if syntax == uid.JPEGBaseline8Bit else 12)
    expected = decode_frame(data, FULL_SIZE).samples
    np.testing.assert_array_equal(decode_frame(kind(data), FULL_SIZE).samples, expected)


def test_an_endless_header_is_refused_at_once():
    """Millions of fill bytes or empty segments would keep a loop busy for minutes."""
    for filling in (b"\xff" * 2**24, b"\xff\xe0\x00\x02" * 2**22):
        with pytest.raises(CorruptImageError, match="segments"):
            read_frame_header(b"\xff\xd8" + filling)
    wavelet = stream(uid.JPEG2000Lossless)
    at = wavelet.index(b"\xff\x52")
    with pytest.raises(CorruptImageError, match="segments"):
        read_frame_header(wavelet[:at] + b"\xff\x64\x00\x02" * 2**22)


def test_a_frame_of_many_tiles_is_refused():
    """OpenJPEG allocates for each tile, whether it is there or not."""
    data = bytearray(stream(uid.JPEG2000Lossless))
    struct.pack_into(">6I", data, 8, 6400, 6400, 0, 0, 26, 26)
    with pytest.raises(CorruptImageError, match="61009 tiles"):
        decode_frame(bytes(data), 32)


def test_a_stream_with_few_levels_is_decoded_finer():
    """Without wavelet levels there is only the full size."""
    flat = imagecodecs.jpeg2k_encode(
        PIXELS, 0, codecformat="j2k", reversible=True, bitspersample=12, resolutions=1
    )
    np.testing.assert_array_equal(decode_frame(bytes(flat), 8).samples, PIXELS)


def test_signed_samples_keep_their_sign():
    """JPEG 2000 may say that samples are signed, and Pillow shifts those."""
    signed = PIXELS.astype(np.int16) - 2000
    data = imagecodecs.jpeg2k_encode(signed, 0, codecformat="j2k", reversible=True)
    np.testing.assert_array_equal(decode_frame(bytes(data), FULL_SIZE).samples, signed)


@pytest.mark.skipif(OPENJPEG is None, reason=needs.OPENJPEG)
@pytest.mark.parametrize("syntax", WAVELETS)
@settings(deadline=None, max_examples=10)
@given(
    rows=st.integers(32, 90),
    columns=st.integers(32, 90),
    signed=st.booleans(),
    min_side=st.sampled_from([4, 8, 16, 32]),
)
def test_openjpeg_and_pillow_agree(syntax, rows, columns, signed, min_side):
    """Called directly or by Pillow, it is the same decoder: sample for sample, at every size."""
    pixels = radiograph(rows, columns)
    pixels = pixels.astype(np.int16) - 2000 if signed else pixels
    data = bytes(CODECS[syntax](pixels, 12))
    found = decode_frame(data, min_side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "OPENJPEG", None)
        by_pillow = decode_frame(data, min_side)
    np.testing.assert_array_equal(found.samples, by_pillow.samples)
    assert found.fallbacks == by_pillow.fallbacks == ()


def test_without_the_wheel_there_is_no_library(tmp_path):
    """A Pillow that was built from source keeps none: then Pillow itself decodes."""
    assert load(tmp_path / "PIL") is None


def test_a_coarser_component_is_refused():
    """XRsiz 2 would make the picture half as wide as the header that was checked says."""
    data = bytearray(stream(uid.JPEG2000Lossless))
    data[43] = 2
    with pytest.raises(UnsupportedPixelFormatError):
        decode_frame(bytes(data), FULL_SIZE)


def test_a_jp2_file_in_a_frame_is_read():
    """PS3.5 forbids the JP2 wrapper, but some encoders leave it on."""
    wrapped = imagecodecs.jpeg2k_encode(PIXELS, 0, codecformat="jp2", reversible=True)
    np.testing.assert_array_equal(decode_frame(bytes(wrapped), FULL_SIZE).samples, PIXELS)


def test_the_wrapper_of_a_jp2_file_has_no_say():
    """It declares another size: the codestream's own is checked, and decoded."""
    wrapped = bytearray(imagecodecs.jpeg2k_encode(PIXELS, 0, codecformat="jp2", reversible=True))
    struct.pack_into(">II", wrapped, wrapped.index(b"ihdr") + 4, 50000, 50000)
    np.testing.assert_array_equal(decode_frame(bytes(wrapped), FULL_SIZE).samples, PIXELS)


@pytest.mark.parametrize("fill", [0, 1, 3])
def test_fill_bytes_before_a_marker_are_skipped(fill):
    """T.81 B.1.1.2 allows any number of them."""
    data = stream(uid.JPEGBaseline8Bit, 8)
    frame = read_frame_header(data[:2] + b"\xff" * fill + data[2:])
    assert (frame.rows, frame.columns, frame.precision) == (*PIXELS.shape, 8)


@pytest.mark.parametrize("syntax", CODECS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_half_a_frame_is_no_image(syntax, share):
    """A frame that is cut off is refused, never answered with what there is."""
    data = stream(syntax, 8 if syntax == uid.JPEGBaseline8Bit else 12)
    with pytest.raises(CorruptImageError, match="cut off"):
        decode_frame(data[: int(share * len(data))], FULL_SIZE)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_giant_is_refused_by_its_header(syntax):
    """The size in the codestream is checked before a decoder allocates it."""
    data = stream(syntax)
    giant = with_size(data, read_frame_header(data).family, 65535, 65535)
    with pytest.raises(ImageTooLargeError, match="65535 x 65535"):
        decode_frame(giant, 32)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", UnsupportedTransferSyntaxError, "neither JPEG"),
        (b"GIF89a", UnsupportedTransferSyntaxError, "neither JPEG"),
        (jpeg.START, CorruptImageError, "cut off within its header"),
        (b"\xff\xd8\xff\xd8\xff\xd8", CorruptImageError, "cut off within its header"),
        (b"\xff\xd8\xff\xda\x00\x02", CorruptImageError, "cut off within its header"),
        (b"\xff\x4f\xff\x51", CorruptImageError, "cut off within its header"),
        (b"\x00\x00\x00\x0cjP  ", CorruptImageError, "cut off within its header"),
    ],
)
def test_an_unknown_stream_is_refused(data, error, says):
    """What is no codestream, or only the start of one, is told apart."""
    with pytest.raises(error, match=says):
        read_frame_header(data)


@pytest.mark.parametrize("size", [0, 10, 64, 500])
def test_half_a_run_is_no_image(size):
    """RLE that ends early is refused."""
    with pytest.raises(CorruptImageError, match="RLE"):
        decode_rle(runs(PIXELS)[:size], PIXELS.shape, 2)


def test_runs_beyond_the_header_are_refused():
    """RLE that expands to more than the header says stops there."""
    with pytest.raises(CorruptImageError, match="RLE"):
        decode_rle(runs(PIXELS), (36, 64), 2)


@pytest.mark.parametrize(
    ("count", "offsets"),
    [
        (2, [64, 2**32 - 1]),
        (2, [64, 63]),
        (2, [0, 64]),
        (1, [64]),
        (15, [64] * 15),
        (2**31, [64, 80]),
    ],
)
def test_segments_that_lie_elsewhere_are_refused(count, offsets):
    """Where offsets point, imagecodecs reads, even if that is not the frame's memory."""
    frame = runs(PIXELS)
    head = struct.pack(f"<L{len(offsets)}L", count, *offsets).ljust(64, b"\0")
    with pytest.raises(CorruptImageError, match="RLE"):
        decode_rle(head + frame[64:], PIXELS.shape, 2)
