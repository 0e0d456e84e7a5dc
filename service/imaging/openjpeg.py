"""JPEG 2000 and HTJ2K by the OpenJPEG within Pillow's wheel, called without Pillow.

Pillow holds Python's lock while it decodes JPEG 2000, so that two threads do no more than one.
Here the lock is taken only to ask for the next bytes: two threads decode twice as many images, and
one 5 to 60 % more, the most of HTJ2K.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL

from service.imaging.codestream import Frame, Stream

BUFFER = 2**16  # bytes; what a tile part holds is read past it, at once
PARAMETERS = 2**14  # bytes; more than opj_dparameters_t has, whose first field is `cp_reduce`
TO_BE_READ = 1
CODESTREAM = 0  # OPJ_CODEC_J2K, which HTJ2K is as well
NOTHING_LEFT = c_size_t(-1).value
VERSION = b"2."  # of which the structures below are
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


class Functions(NamedTuple):
    """What is called of the library, without its prefix `opj_`, and of the C library."""

    set_default_decoder_parameters: Callable[..., None]
    create_decompress: Callable[..., int | None]
    setup_decoder: Callable[..., int]
    read_header: Callable[..., int]
    decode: Callable[..., int]
    end_decompress: Callable[..., int]
    destroy_codec: Callable[..., None]
    image_destroy: Callable[..., None]
    stream_create: Callable[..., int | None]
    stream_set_read_function: Callable[..., None]
    stream_set_skip_function: Callable[..., None]
    stream_set_seek_function: Callable[..., None]
    stream_set_user_data_length: Callable[..., None]
    stream_destroy: Callable[..., None]
    memmove: Callable[..., None]


SIGNATURES: dict[str, tuple[Any, ...]] = {  # what is returned, then the arguments
    "set_default_decoder_parameters": (None, c_void_p),
    "create_decompress": (c_void_p, c_int),
    "setup_decoder": (c_int, c_void_p, c_void_p),
    "read_header": (c_int, c_void_p, c_void_p, POINTER(POINTER(Image))),
    "decode": (c_int, c_void_p, c_void_p, POINTER(Image)),
    "end_decompress": (c_int, c_void_p, c_void_p),
    "destroy_codec": (None, c_void_p),
    "image_destroy": (None, POINTER(Image)),
    "stream_create": (c_void_p, c_size_t, c_int),
    "stream_set_read_function": (None, c_void_p, Read),
    "stream_set_skip_function": (None, c_void_p, Skip),
    "stream_set_seek_function": (None, c_void_p, Seek),
    "stream_set_user_data_length": (None, c_void_p, ctypes.c_uint64),
    "stream_destroy": (None, c_void_p),
}
MEMMOVE = (None, c_void_p, c_void_p, c_size_t)


def load(package: Path = Path(PIL.__file__).parent) -> Functions | None:
    """Find the library where Pillow's wheels keep it; None where Pillow was built otherwise."""
    path = next((path for wheel in WHEELS for path in package.glob(wheel)), None)
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    library.opj_version.restype = c_char_p
    if not library.opj_version().startswith(VERSION):
        return None
    functions = {name: library[f"opj_{name}"] for name in SIGNATURES}
    # `ctypes.memmove` would keep Python's lock; megabytes are copied at once
    functions["memmove"] = ctypes.CDLL(None).memmove
    for name, function in functions.items():
        function.restype, *function.argtypes = SIGNATURES.get(name, MEMMOVE)
    return Functions(**functions)


OPENJPEG = load()


def decode_openjpeg(
    openjpeg: Functions, stream: Stream, frame: Frame, reduce: int
) -> npt.NDArray[Any]:
    """Decode one grey frame.

    Args:
        openjpeg: The library.
        stream: The codestream, without a wrapper.
        frame: What it declares: one component of at most MAX_BITS.
        reduce: How often its sides are to be halved, at most `frame.halvings` times.

    Returns:
        (rows, columns) of the reduced size, int16 or uint16, as coded.

    Raises:
        ValueError: It is damaged, or its header says something else to OpenJPEG.
    """
    source = np.frombuffer(stream, np.uint8)
    image = POINTER(Image)()
    codec = openjpeg.create_decompress(CODESTREAM)
    try:
        parameters = ctypes.create_string_buffer(PARAMETERS)
        openjpeg.set_default_decoder_parameters(parameters)
        c_uint32.from_buffer(parameters).value = reduce
        with _reading(openjpeg, source) as reader:
            if not openjpeg.setup_decoder(codec, parameters):
                raise ValueError("no such reduction")
            if not openjpeg.read_header(reader, codec, ctypes.byref(image)):
                raise ValueError("the header is damaged")
            _check(image.contents, frame)
            if not openjpeg.decode(codec, reader, image):
                raise ValueError("the data are damaged")
            if not openjpeg.end_decompress(codec, reader):
                raise ValueError("the end is damaged")
        component = image.contents.component[0]
        if not component.data:
            raise ValueError("no data")
        samples = np.ctypeslib.as_array(component.data, (component.rows, component.columns))
        return samples.astype(np.int16 if frame.signed else np.uint16)
    finally:
        openjpeg.image_destroy(image)
        openjpeg.destroy_codec(codec)


def _check(image: Image, frame: Frame) -> None:
    """Refuse, before anything is allocated, what is not the frame whose size was checked."""
    first = image.component[0]
    found = (image.components, image.y1 - image.y0, image.x1 - image.x0, first.dx, first.dy)
    if found != (1, frame.rows, frame.columns, 1, 1):
        raise ValueError("not of the size that it declares")
    if (first.precision, bool(first.signed)) != (frame.precision, frame.signed):
        raise ValueError("not of the depth that it declares")


@contextmanager
def _reading(openjpeg: Functions, source: npt.NDArray[np.uint8]) -> Iterator[int | None]:
    """An OpenJPEG stream of these bytes. Its functions take Python's lock; the decoder does not."""
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

    functions = Read(read), Skip(skip), Seek(seek)  # kept here while they may be called
    stream = openjpeg.stream_create(BUFFER, TO_BE_READ)
    try:
        openjpeg.stream_set_read_function(stream, functions[0])
        openjpeg.stream_set_skip_function(stream, functions[1])
        openjpeg.stream_set_seek_function(stream, functions[2])
        openjpeg.stream_set_user_data_length(stream, length)
        yield stream
    finally:
        openjpeg.stream_destroy(stream)
