from __future__ import annotations

import pytest

from service.dicom.callers import CallerError, is_allowed, parse_callers


@pytest.mark.parametrize(
    ("callers", "title", "address", "allowed"),
    [
        ((), "ANY", "127.0.0.1", True),
        ((), "ANY", "::1", True),
        ((), "ANY", "::ffff:127.0.0.1", True),
        ((), "ANY", "10.0.0.1", False),
        (("PACS",), "PACS", "10.0.0.1", True),
        (("PACS",), "PACS ", "10.0.0.1", True),
        (("PACS",), "pacs", "10.0.0.1", False),
        (("PACS",), "OTHER", "127.0.0.1", False),
        (("10.1.0.0/16",), "ANY", "10.1.2.3", True),
        (("10.1.0.0/16",), "ANY", "::ffff:10.1.2.3", True),
        (("10.1.0.0/16",), "ANY", "10.2.0.1", False),
        (("2001:db8::/32",), "ANY", "2001:db8::1", True),
        (("2001:db8::/32",), "ANY", "fe80::1%eth0", False),
        (("CT@10.1.0.0/16", "MR@10.2.0.7"), "MR", "10.2.0.7", True),
        (("CT@10.1.0.0/16", "MR@10.2.0.7"), "CT", "10.2.0.7", False),
    ],
)
def test_a_caller_needs_an_entry_with_its_title_and_network(callers, title, address, allowed):
    """Both must be of the same entry; without entries, only this machine calls."""
    assert is_allowed(parse_callers(callers), title, address) is allowed


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "@",
        "PACS@",
        "@10.0.0.0/8",
        "A" * 17,
        "A\\B",
        "PÄCS",
        " PACS",
        "PACS@10.0.0.1/8",
        "10.0.0/8",
        "300.1.1.1",
        "10.0.0.1/8",
        "fe80:::1",
        "@@",
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(entry):
    """A mistake in the allow-list must not allow more or less than was meant."""
    with pytest.raises(CallerError):
        parse_callers([entry])
