"""Words by which headers name the view. A site's own words go into these tables, in upper case.

Matched word by word, whatever stands between: "Chest PA", "THORAX_LAT.", "p.a." A text that names
both views, or another one, claims nothing.
"""

from __future__ import annotations

import re

from model_store import View

# English, German, French, Spanish, Portuguese, Italian, Dutch, Russian. XTABLE is the lateral with
# a horizontal beam through a lying patient
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
# Of these, the view that is named is not the image's: a decubitus is called lateral after the
# patient's position, and is a frontal; an oblique is neither; several views are no claim
SILENCING = re.compile(
    r"DECUB\w*|OBL\w*|SCHR(Ä|AE)G\w*|LAO|RAO|LPO|RPO|VIEWS|BOTH|EBENEN|INCIDENCES"
)
WORD = re.compile(r"[^\W\d_]+")
DOTTED = re.compile(r"\b([^\W\d_])\.\s?(?=[^\W\d_]\b)")  # p.a.


def view_named(text: str | None) -> View | None:
    """The one view that a text names; None where it names none, both, or another."""
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
