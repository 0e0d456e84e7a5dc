from __future__ import annotations

import numpy as np
import pytest
from images import dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from service.imaging.dicom import read_dicom
from service.imaging.errors import CorruptImageError
from service.imaging.lookup import Table, read_table

FULL_SIZE = 2**31
VALUES = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
TABLE = (np.arange(4096) // 16)[::-1]


def item(descriptor: list[int], data: bytes, *, vr: str = "OW") -> Sequence:
    """A Modality LUT Sequence."""
    entry = Dataset()
    entry.add_new("LUTDescriptor", "US", descriptor)
    entry.add_new("LUTData", vr, data)
    return Sequence([entry])


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([4096, 0, 16], TABLE.astype("<u2").tobytes()),
        ([4096, 0, 12], TABLE.astype("<u2").tobytes()),
        ([4096, 0, 8], TABLE.astype("<u2").tobytes()),
        ([4096, 0, 8], TABLE.astype("u1").tobytes()),
        ([4095, 1, 16], TABLE[1:].astype("<u2").tobytes()),
        ([0, 0, 16], np.resize(TABLE, 2**16).astype("<u2").tobytes()),
    ],
    ids=["16", "12", "8 in words", "8 packed", "from 1", "65536"],
)
def test_a_modality_lut_of_any_depth_is_applied(descriptor, data):
    """PS3.3 C.11.1.1.1: entries of 8 bits may be packed, and values beyond take the last entry."""
    found = read_dicom(dicom(VALUES, ModalityLUTSequence=item(descriptor, data)), FULL_SIZE)
    expected = TABLE[VALUES.clip(descriptor[1])]
    np.testing.assert_array_equal(found.picture.pixels, expected)


@pytest.mark.parametrize("data", [b"", bytes(4094), bytes(2**17 + 2)], ids=len)
def test_a_table_of_another_length_is_damaged(data):
    """Fewer entries than it says, or more than there are stored values."""
    sequence = item([4096, 0, 16], data)
    with pytest.raises(CorruptImageError):
        read_dicom(dicom(VALUES, ModalityLUTSequence=sequence), FULL_SIZE)


def test_a_sequence_without_items_is_no_table():
    """Some writers leave it empty."""
    found = read_dicom(dicom(VALUES, ModalityLUTSequence=Sequence([])), FULL_SIZE)
    np.testing.assert_array_equal(found.picture.pixels, VALUES)


def test_the_first_entry_may_stand_for_a_negative_value():
    """Where stored values are signed."""
    found = {"xDescriptor": np.array([4, 65534, 16], "<u2").tobytes(), "xData": bytes(range(8))}
    table = read_table(found, "x", signed=True, little=True)
    assert table.first == -2
    values = np.array([[-9, -2, -1, 0, 1, 2]], np.int16)
    np.testing.assert_array_equal(table.apply(values), table.entries[[[0, 0, 1, 2, 3, 3]]])


def test_a_large_picture_is_looked_up_in_parts():
    """The same, whatever their number."""
    values = np.arange(2**21, dtype=np.uint32).reshape(2**11, 2**10) % 300
    table = Table(np.arange(256, dtype=np.uint8)[::-1], 0)
    np.testing.assert_array_equal(table.apply(values), 255 - values.clip(max=255))
