"""Words for the chest and other parts in headers. Add a site's own words here, in upper case.

The Defined Terms of Body Part Examined are those of PS3.16 Annex L, Table L-1. In practice headers
also hold free words with any separators: public archives hold CHEST_TO_PELVIS, CHEST/ABD, THORAXABD
and CHEST (THORAX), see the curated columns of NCI's Imaging Data Commons.
"""

from __future__ import annotations

import re

# Within a word: CHESTABDOMEN, CHESTABDPELVIS, NECKCHEST, CHEST2VIEWS. English, German, French,
# Spanish, Portuguese, Italian, Dutch
CHEST = re.compile(
    r"CHEST|TH?[OÓ]RAX|TORACE|BRUSTKORB|BORSTKAS|POITRINE|PECHO"
    r"|LUNG|LONGEN|POUMON|PULM[OÓ]N|PULMÃO|POLMON|CXR|MEDIASTIN|HEART|BRONCHUS"
)
# Table L-1: the parts that are imaged in radiography (CID 4009 DX Anatomy Imaged), and plurals. Not
# those whose pictures show most of the chest without being chest radiographs: RIB, STERNUM, SPINE,
# TSPINE, CTSPINE, TLSPINE, ESOPHAGUS, TRACHEA, WHOLEBODY
OTHERS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ACJOINT", "ANKLE", "ANKLES", "ARM", "BILEDUCT", "BLADDER", "BRAIN",
    "BREAST", "BREASTS", "CALCANEUS", "CERVICAL", "CLAVICLE", "COCCYX", "COLON", "CSPINE",
    "DUODENUM", "ELBOW", "ELBOWS", "EXTREMITY", "EYE", "FACE", "FEMUR", "FIBULA", "FINGER",
    "FINGERS", "FOOT", "FEET", "FOREARM", "GALLBLADDER", "HAND", "HANDS", "HEAD", "HEADNECK", "HIP",
    "HIPS", "HUMERUS", "IAC", "ILIUM", "JAW", "KIDNEY", "KNEE", "KNEES", "LARGEINTESTINE", "LARYNX",
    "LEG", "LEGS", "LSPINE", "LSSPINE", "LUMBAR", "MANDIBLE", "MASTOID", "MAXILLA", "NECK", "NOSE",
    "OPTICCANAL", "ORBIT", "ORBITS", "PAROTID", "PATELLA", "PELVIS", "PROSTATE", "RADIUS",
    "RADIUSULNA", "RECTUM", "SACRUM", "SCAPULA", "SELLA", "SESAMOID", "SHOULDER", "SHOULDERS",
    "SIJOINT", "SINUS", "SINUSES", "SKULL", "SMALLINTESTINE", "SSPINE", "STOMACH", "SUBMANDIBULAR",
    "TEETH", "THIGH", "THUMB", "TIBIA", "TIBIAFIBULA", "TMJ", "TOE", "TOES", "ULNA",
    "UPRURINARYTRACT", "URETER", "URETHRA", "WRIST", "WRISTS", "ZYGOMA",
})  # fmt: skip
WORD = re.compile(r"[^\W\d_]+")


def is_chest_named(text: str | None) -> bool | None:
    """Whether a text names the chest, alone or among others; None if it names no known part."""
    words = WORD.findall((text or "").upper())
    named = {*words, "".join(words)}  # L-SPINE, ABDOMEN PELVIS
    if any(map(CHEST.search, named)):
        return True
    return False if named & OTHERS else None
