"""A decoder as the worst files would make it, for the workers of tests."""

from __future__ import annotations

import ctypes
import os
import stat
import time
from collections.abc import Callable

import numpy as np

from model_store import PreprocessSpec
from service.imaging import Radiograph, read_radiograph

PNG = b"\x89PNG\r\n\x1a\n"


def decode(data: memoryview, spec: PreprocessSpec, *, displayed: bool = False) -> Radiograph:
    """As `read_radiograph`, but a file that is the name of a harm, as a PNG or not, does it."""
    harm = HARMS.get(bytes(data[:32]).removeprefix(PNG))
    if harm is not None:
        harm()
    return read_radiograph(data, spec, displayed=displayed)


def _segfault() -> None:
    ctypes.string_at(0)


def _loop() -> None:
    while True:
        pass


def _loop_in_c() -> None:
    10 ** (10**9)  # which looks at no signal before it ends


def _allocate() -> None:
    held = []
    while True:
        held.append(np.ones(2**24, np.uint8))


def _allocate_in_c() -> None:
    allocate = ctypes.CDLL(None).malloc
    allocate.restype = ctypes.c_void_p
    while address := allocate(ctypes.c_size_t(2**24)):
        ctypes.memset(address, 1, 2**24)
    os.abort()  # as C++ does without memory


def _wait() -> None:
    time.sleep(3600)


def _leave() -> None:
    os._exit(0)


def _fail() -> None:
    raise ZeroDivisionError("what this file holds")


def _say(message: bytes) -> None:
    """To whatever is at the other end, as a worker does that is in the hands of its file."""
    for descriptor in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, message)
        except OSError:
            continue


def _cut_memory() -> None:
    for descriptor in range(3, 64):
        try:
            os.ftruncate(descriptor, 0)
        except OSError:
            continue
    raise ZeroDivisionError


READ = b'{"read":{"format":"png","header":null,"origin":null,"sop_instance_uid":null,'
HARMS: dict[bytes, Callable[[], object]] = {
    b"segfault": _segfault,
    b"loop": _loop,
    b"loop in C": _loop_in_c,
    b"allocate": _allocate,
    b"allocate in C": _allocate_in_c,
    b"wait": _wait,
    b"leave": _leave,
    b"fail": _fail,
    b"cut memory": _cut_memory,
    b"nonsense": lambda: _say(b"\x80\x04nonsense"),
    b"nothing": lambda: _say(b"{}"),
    b"unknown error": lambda: _say(b'{"refusal":{"code":"of_mine","text":""}}'),
    b"unknown decoder": lambda: _say(
        READ + b'"transfer_syntax":null,"warnings":[],"fallbacks":["mine"]}}'
    ),
    b"words as a warning": lambda: _say(
        READ + b'"transfer_syntax":null,"warnings":["Doe^Jane"],"fallbacks":[]}}'
    ),
    b"words for the log": lambda: _say(b'{"failed":{"reason":"crashed","where":"Doe^Jane"}}'),
    b"too long": lambda: _say(b" " * 2**17 + b"{}"),
}
