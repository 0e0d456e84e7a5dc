"""Words that name the view in headers. Add a site's own words to these tables, in upper case.

Whole words are matched, with any separators: "Chest PA", "THORAX_LAT.", "p.a." A text that names
both views, or another view, claims no view.
"""

from __future__ import annotations

import re

from model_store import View

# English, German, French, Spanish, Portuguese, Italian, Dutch, Russian. XTABLE is a lateral view
# with a horizontal beam and a lying patient
FRONTAL_WORDS = frozenset({
    "AP", "PA", "FRONTAL", "FRONTALE", "ANTEROPOSTERIOR", "POSTEROANTERIOR", "ANTERIOPOSTERIOR",
    "FACE", "FRENTE", "DORSOVENTRAL", "VENTRODORSAL", "ПРЯМАЯ", "ФРОНТАЛЬНАЯ",
})  # fmt: skip
LATERAL_WORDS = frozenset({
    "LATERAL", "LAT", "LATERALE", "LATERAAL", "LATEROLATERAL", "LATEROLATERALE", "XTABLE",
    "SEITLICH", "SEITLICHE", "SEITL", "PROFIL", "PROFILO", "PERFIL", "DWARS", "БОКОВАЯ",
})  # fmt: skip
# Written without spaces
FRONTAL_SIGNS = ("正位", "正面", "정면")
LATERAL_SIGNS = ("侧位", "側位", "側面", "측면")
# With these words, no view is claimed: a lateral decubitus is a frontal view, named after the
# patient's position; an oblique is neither view; several views are ambiguous
SILENCING = re.compile(
    r"DECUB\w*|OBL\w*|SCHR(Ä|AE)G\w*|LAO|RAO|LPO|RPO|VIEWS|BOTH|EBENEN|INCIDENCES"
)
WORD = re.compile(r"[^\W\d_]+")
DOTTED = re.compile(r"\b([^\W\d_])\.\s?(?=[^\W\d_]\b)")  # p.a.


def view_named(text: str | None) -> View | None:
    """The view that a text names; None if it names none, both, or another view."""
    text = DOTTED.sub(r"\1", (text or "").upper())
    words = set(WORD.findall(text))
    if any(map(SILENCING.fullmatch, words)):
        return None
    frontal = bool(words & FRONTAL_WORDS) or any(sign in text for sign in FRONTAL_SIGNS)
    lateral = bool(words & LATERAL_WORDS) or any(sign in text for sign in LATERAL_SIGNS)
    if {"CROSS", "TABLE"} <= words:
        lateral = True
    if frontal == lateral:
        return None
    return "frontal" if frontal else "lateral"
