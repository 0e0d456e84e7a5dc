"""Words for the chest and other parts in headers. Add a site's own words here, in upper case.

The Defined Terms of Body Part Examined are those of PS3.16 Annex L, Table L-1. In practice headers
also hold free words with any separators: public archives hold CHEST_TO_PELVIS, CHEST/ABD, THORAXABD
and CHEST (THORAX), see the curated columns of NCI's Imaging Data Commons.
"""

from __future__ import annotations

import re
from itertools import pairwise

# English, German, French, Spanish, Portuguese, Italian, Dutch
CHEST = (
    "CHESTS?|TH?[OÓ]RAX|TORACE|BRUSTKORB|BORSTKAS|POITRINE|PECHO|LUNG(?:S|EN?)?|LONGEN|POUMONS?"
    "|PULM[OÓ]N(?:ES)?|PULMÃO|PULMÕES|POLMON[EI]|CXR|MEDIASTIN(?:UM|O)?|HEART|BRONCHUS"
)
# What stands beside the chest in one word: CHESTABDPELVIS, NECKCHEST, CHESTPALAT, THORAXORGANE
BESIDE = (
    "ABD(?:OM(?:EN)?)?|PELV(?:IS)?|NECK|HEAD|SPINE|TO|AND|XRAY|XR|CR|DX|DR|RX|AP|PA|LAT(?:ERAL)?"
    "|FRONTAL|VIEWS?|PORT(?:ABLE)?|BEDSIDE|PEDS?|ADULT|ROUTINE|WALL|RIBS?|ORGANE"
)
NAMES_CHEST = re.compile(f"(?:{BESIDE})*(?:{CHEST})(?:{CHEST}|{BESIDE})*")
# Texts with these words name no part: NO CHEST, CHEST PHANTOM
DENIALS = frozenset({
    "NO", "NON", "NOT", "PHANTOM", "PHANTOMS", "PHANTOME", "FANTOM", "FANTOMA", "FANTOME",
})  # fmt: skip
# Pictures of these show much of the chest without being chest radiographs, so they claim nothing.
# T: T-SPINE, T/L SPINE
SHOW_CHEST = frozenset({
    "ACJOINT", "CLAVICLE", "CLAVICLES", "CTSPINE", "ESOPHAGUS", "RIB", "RIBS", "SCAPULA",
    "SHOULDER", "SHOULDERS", "STERNUM", "T", "THORACIC", "TLSPINE", "TRACHEA", "TSPINE",
    "WHOLEBODY",
})  # fmt: skip
# The other parts of Table L-1 that are imaged in radiography (CID 4009 DX Anatomy Imaged), also as
# plurals and as two words (L-SPINE)
OTHERS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ANKLES", "ARM", "BILE DUCT", "BILEDUCT", "BLADDER",
    "BRAIN", "BREAST", "BREASTS", "C SPINE", "CALCANEUS", "CERVICAL", "COCCYX", "COLON", "CSPINE",
    "DUODENUM", "ELBOW", "ELBOWS", "EXTREMITY", "EYE", "FACE", "FEET", "FEMUR", "FIBULA", "FINGER",
    "FINGERS", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HANDS", "HEAD", "HEADNECK", "HIP", "HIPS",
    "HUMERUS", "IAC", "ILIUM", "JAW", "KIDNEY", "KNEE", "KNEES", "L SPINE", "LARGE INTESTINE",
    "LARGEINTESTINE", "LARYNX", "LEG", "LEGS", "LS SPINE", "LSPINE", "LSSPINE", "LUMBAR",
    "MANDIBLE", "MASTOID", "MAXILLA", "NECK", "NOSE", "OPTIC CANAL", "OPTICCANAL", "ORBIT",
    "ORBITS", "PAROTID", "PATELLA", "PELVIS", "PROSTATE", "RADIUS", "RADIUSULNA", "RECTUM",
    "S SPINE", "SACRUM", "SELLA", "SESAMOID", "SI JOINT", "SIJOINT", "SINUS", "SINUSES", "SKULL",
    "SMALL INTESTINE", "SMALLINTESTINE", "SSPINE", "STOMACH", "SUBMANDIBULAR", "TEETH", "THIGH",
    "THUMB", "TIBIA", "TIBIAFIBULA", "TMJ", "TOE", "TOES", "ULNA", "UPRURINARYTRACT", "URETER",
    "URETHRA", "WRIST", "WRISTS", "ZYGOMA",
})  # fmt: skip
WORD = re.compile(r"[^\W\d_]+")


def is_chest_named(text: str | None) -> bool | None:
    """Whether a text names the chest, alone or among others; None if it names no known part."""
    words = WORD.findall((text or "").upper())
    if DENIALS.intersection(words):
        return None
    if any(map(NAMES_CHEST.fullmatch, words)):
        return True
    if SHOW_CHEST.intersection(words):
        return None
    named = {*words, *(f"{one} {next_}" for one, next_ in pairwise(words))}
    return False if named & OTHERS else None
