"""Words that name a view, as public archives and scanners write them."""

from __future__ import annotations

import pytest

from service.imaging.view_terms import FRONTAL_WORDS, LATERAL_WORDS, view_named

FRONTAL = [
    "PA", "pa", "CHEST PA", "THORAX PA", "Chest,PA", "W033 Chest p.a.", "Thorax a.p. liegend",
    "CHEST AP PORTABLE", "CHEST_PA_1", "AP SUPINE", "AP LORDOTIC", "Torax PA", "Tórax frente",
    "RX THORAX DE FACE", "TORACE PA", "Frontal chest", "胸部正面", "胸部 正位片", "ОГК прямая",
    "P. A.", "posteroanterior",
]  # fmt: skip
LATERAL = [
    "LATERAL", "LAT", "CHEST LAT", "Chest Lat.", "XTABLE", "X-ray cross table lateral",
    "CROSS TABLE", "Thorax seitlich", "Thorax seitl.", "RX THORAX PROFIL", "Tórax perfil",
    "TORACE LATERALE", "L LAT", "LEFT LATERAL", "W034 Chest lat", "LAT1", "胸部侧位", "胸部側面",
    "ОГК боковая", "latero-lateral",
]  # fmt: skip
SILENT = [
    None, "", " ", "CHEST", "CHEST PA AND LATERAL", "PA/LAT", "PA_LAT", "CHEST 2 VIEWS",
    "LATERAL 2VIEWS", "XR CHEST (2 VIEWS PA)", "THORAX IN 2 EBENEN", "胸部正侧位 正位 侧位",
    "LATERAL DECUBITUS", "CHEST LAT DECUB", "LEFT LAT DECUBITUS AP", "PA OBLIQUE", "LATERAL OBL",
    "LLO", "RAO", "BILATERAL RIBS", "LATE PHASE", "SPAIN", "MAP", "PALATE", "COLLATERAL", "APICAL",
    "Thorax schräg lat", "P", "L", "7",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "view"),
    [
        *((text, "frontal") for text in FRONTAL),
        *((text, "lateral") for text in LATERAL),
        *((text, None) for text in SILENT),
    ],
)
def test_a_text_names_one_view_or_none(text, view):
    """Word by word, in any case; both views, several, and others name none."""
    assert view_named(text) == view


def test_the_words_are_such_as_can_be_found():
    """In upper case, one word each, and no word for both."""
    for word in FRONTAL_WORDS | LATERAL_WORDS:
        assert view_named(f"1 {word.lower()}.") is not None
    assert not FRONTAL_WORDS & LATERAL_WORDS
