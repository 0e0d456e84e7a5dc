"""A decoder as the worst files would make it, for the workers of tests."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from model_store import PreprocessSpec
from service.imaging import Radiograph, read_radiograph

SEGFAULT, LOOP, ALLOCATE, SLEEP = b"segfault", b"loop", b"allocate", b"sleep"
EXIT, RAISE, LIE, NONSENSE = b"exit", b"raise", b"lie", b"nonsense"


def decode(data: memoryview, spec: PreprocessSpec) -> Radiograph:
    """As `read_radiograph`, but a file that is one of the words above does what it says."""
    word = bytes(data[:32])
    if word == SEGFAULT:
        ctypes.string_at(0)
    elif word == LOOP:
        while True:
            np.sort(np.arange(10**6))
    elif word == ALLOCATE:
        held = []
        while True:
            held.append(np.ones(2**24, np.uint8))
    elif word == SLEEP:
        while True:
            os.read(os.pipe()[0], 1)
    elif word == EXIT:
        os._exit(0)
    elif word == RAISE:
        raise ZeroDivisionError("what this file holds")
    return read_radiograph(data, spec)
