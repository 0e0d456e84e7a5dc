from __future__ import annotations

import pytest

from service.imaging import ViewHeader


@pytest.mark.parametrize(
    ("term", "view"),
    [
        *((term, "frontal") for term in ("AP", "PA", "LLD", "RLD")),
        *((term, "lateral") for term in ("LL", "RL")),
        *((term, None) for term in ("RLO", "LLO", "LATERAL", "", None)),
    ],
)
def test_a_view_position_claims_one_view_or_none(term, view):
    """Only the Standard's own terms count; obliques and inventions compare to nothing."""
    header = ViewHeader(term)
    assert header.view == view
    assert header.agrees("frontal") == (None if view is None else view == "frontal")
