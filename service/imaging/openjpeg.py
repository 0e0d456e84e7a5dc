"""Decode JPEG 2000 and HTJ2K with the OpenJPEG library in Pillow's wheel, called by ctypes.

Pillow holds the GIL while it decodes JPEG 2000, so that two threads are no faster than one. Here
the GIL is held only while bytes are read: two threads decode twice as many images, and one thread 9
to 60 % more, most for HTJ2K.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from service.imaging.frame import Frame, Stream

BUFFER = 2**16  # bytes; OpenJPEG reads a tile-part directly, without it
PARAMETERS = 2**14  # bytes; larger than opj_dparameters_t, whose first field is `cp_reduce`
TO_BE_READ = 1
CODESTREAM = 0  # OPJ_CODEC_J2K, also for HTJ2K
NOTHING_LEFT = c_size_t(-1).value
VERSION = b"2."  # the major version of the structures below
WHEELS = ("../pillow.libs/libopenjp2*.so*", ".dylibs/libopenjp2*.dylib")  # Linux, macOS
MAX_BITS = 16

Read = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
Skip = ctypes.CFUNCTYPE(c_int64, c_int64, c_void_p)
Seek = ctypes.CFUNCTYPE(c_int, c_int64, c_void_p)


class Component(ctypes.Structure):
    """`opj_image_comp_t`."""

    _fields_ = (
        *((name, c_uint32) for name in ("dx", "dy", "columns", "rows", "x0", "y0")),
        *((name, c_uint32) for name in ("precision", "bpp", "signed", "resolutions", "factor")),
        ("data", POINTER(c_int32)),
        ("alpha", ctypes.c_uint16),
    )


class Image(ctypes.Structure):
    """`opj_image_t`."""

    _fields_ = (
        *((name, c_uint32) for name in ("x0", "y0", "x1", "y1", "components")),
        ("colour_space", c_int),
        ("component", POINTER(Component)),
        ("profile", c_void_p),
        ("profile_length", c_uint32),
    )


SIGNATURES: dict[str, tuple[Any, ...]] = {  # type of the result, then of the arguments
    "opj_version": (c_char_p,),
    "opj_set_default_decoder_parameters": (None, c_void_p),
    "opj_create_decompress": (c_void_p, c_int),
    "opj_setup_decoder": (c_int, c_void_p, c_void_p),
    "opj_read_header": (c_int, c_void_p, c_void_p, POINTER(POINTER(Image))),
    "opj_decode": (c_int, c_void_p, c_void_p, POINTER(Image)),
    "opj_end_decompress": (c_int, c_void_p, c_void_p),
    "opj_destroy_codec": (None, c_void_p),
    "opj_image_destroy": (None, POINTER(Image)),
    "opj_stream_create": (c_void_p, c_size_t, c_int),
    "opj_stream_set_read_function": (None, c_void_p, Read),
    "opj_stream_set_skip_function": (None, c_void_p, Skip),
    "opj_stream_set_seek_function": (None, c_void_p, Seek),
    "opj_stream_set_user_data_length": (None, c_void_p, ctypes.c_uint64),
    "opj_stream_destroy": (None, c_void_p),
    # From the C library; `ctypes.memmove` would hold the GIL while it copies megabytes
    "memmove": (None, c_void_p, c_void_p, c_size_t),
}


def load(package: Path = Path(PIL.__file__).parent) -> ctypes.CDLL | None:
    """Load the library from Pillow's wheel; None if Pillow was installed in another way."""
    path = next((path for wheel in WHEELS for path in package.glob(wheel)), None)
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    for name, (result, *arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library if library.opj_version().startswith(VERSION) else None


OPENJPEG = load()


def decode_openjpeg(
    openjpeg: ctypes.CDLL, stream: Stream, frame: Frame, reduce: int
) -> npt.NDArray[Any]:
    """Decode one grey frame.

    Args:
        openjpeg: The library.
        stream: The codestream, without a wrapper.
        frame: Its header: one component of at most MAX_BITS.
        reduce: How often to halve both sides; at most `frame.halvings`.

    Returns:
        (rows, columns) of the reduced size, int16 or uint16, as coded.

    Raises:
        ValueError: It is damaged, or OpenJPEG reads another size or depth from its header.
    """
    source = np.frombuffer(stream, np.uint8)
    image = POINTER(Image)()
    codec = openjpeg.opj_create_decompress(CODESTREAM)
    try:
        parameters = ctypes.create_string_buffer(PARAMETERS)
        openjpeg.opj_set_default_decoder_parameters(parameters)
        c_uint32.from_buffer(parameters).value = reduce
        with _reading(openjpeg, source) as reader:
            if not openjpeg.opj_setup_decoder(codec, parameters):
                raise ValueError("no such reduction")
            if not openjpeg.opj_read_header(reader, codec, ctypes.byref(image)):
                raise ValueError("the header is damaged")
            _check(image.contents, frame)
            if not openjpeg.opj_decode(codec, reader, image):
                raise ValueError("the data are damaged")
            if not openjpeg.opj_end_decompress(codec, reader):
                raise ValueError("the end is damaged")
        component = image.contents.component[0]
        if not component.data:
            raise ValueError("no data")
        samples = np.ctypeslib.as_array(component.data, (component.rows, component.columns))
        return samples.astype(np.int16 if frame.signed else np.uint16)
    finally:
        openjpeg.opj_image_destroy(image)
        openjpeg.opj_destroy_codec(codec)


def _check(image: Image, frame: Frame) -> None:
    """Check that OpenJPEG has read the size that was checked, before it allocates memory."""
    first = image.component[0]
    found = (image.components, image.y1 - image.y0, image.x1 - image.x0, first.dx, first.dy)
    if found != (1, frame.rows, frame.columns, 1, 1):
        raise ValueError("not of the size that it declares")
    if (first.precision, bool(first.signed)) != (frame.precision, frame.signed):
        raise ValueError("not of the depth that it declares")


@contextmanager
def _reading(openjpeg: ctypes.CDLL, source: npt.NDArray[np.uint8]) -> Iterator[int | None]:
    """An OpenJPEG stream of these bytes. Its callbacks hold the GIL; the decoder does not."""
    start, length, at = source.ctypes.data, len(source), 0

    def read(target: int, wanted: int, _: int | None) -> int:
        nonlocal at
        count = min(wanted, length - at)
        if not count:
            return NOTHING_LEFT
        openjpeg.memmove(target, start + at, count)
        at += count
        return count

    def skip(wanted: int, _: int | None) -> int:
        nonlocal at
        count = max(0, min(wanted, length - at))
        at += count
        return count

    def seek(target: int, _: int | None) -> int:
        nonlocal at
        at = max(0, min(target, length))
        return at == target

    functions = Read(read), Skip(skip), Seek(seek)  # references, while they may be called
    stream = openjpeg.opj_stream_create(BUFFER, TO_BE_READ)
    try:
        openjpeg.opj_stream_set_read_function(stream, functions[0])
        openjpeg.opj_stream_set_skip_function(stream, functions[1])
        openjpeg.opj_stream_set_seek_function(stream, functions[2])
        openjpeg.opj_stream_set_user_data_length(stream, length)
        yield stream
    finally:
        openjpeg.opj_stream_destroy(stream)
