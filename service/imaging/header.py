"""What a DICOM header claims of an image; compared with the answer, never used for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from model_store import AnsweredView, View
from service.imaging.body_part_terms import is_chest_named
from service.imaging.view_terms import view_named

# PS3.3 C.8.1.1 (CR Series) and C.8.11.1 (DX) Defined Terms. The decubitus positions LLD and RLD are
# taken with a horizontal beam along the patient's anterior-posterior axis: the image is a frontal.
# The obliques RLO and LLO are neither view. Many archives use other words, see `view_terms`.
FRONTAL_TERMS = frozenset({"AP", "PA", "LLD", "RLD"})
LATERAL_TERMS = frozenset({"LL", "RL"})

# PS3.16 CID 4010 DX View: frontal, antero-posterior, postero-anterior; lateral, left and right
# lateral. Neither the obliques, nor what is said of limbs and breasts (medial-lateral), nor
# Sagittal, which may be the plane or the beam. R-10214 is the PA of its early editions.
FRONTAL_CODES = {
    "SCT": frozenset({"399033003", "399348003", "272479007"}),
    "SRT": frozenset({"R-10202", "R-10206", "R-40888", "R-10214"}),
}
LATERAL_CODES = {
    "SCT": frozenset({"399067008", "399173006", "399198007"}),
    "SRT": frozenset({"R-102CD", "R-10236", "R-10232"}),
}
SYNONYMS = {"SNM3": "SRT", "99SDM": "SRT"}  # PS3.16 8.3: retired, but to be recognised

# PS3.3 C.7.6.1.1.1: right, left; anterior, posterior; head, foot
AXES = {"R": "x", "L": "x", "A": "y", "P": "y", "H": "z", "F": "z"}
PLANES: dict[frozenset[str], View] = {frozenset("xz"): "frontal", frozenset("yz"): "lateral"}


# Free text attributes, in order: the nearest to the image comes first. They may hold names of
# patients, so only the view and the attribute's keyword leave the decoder
ClaimedBy = Literal[
    "SeriesDescription",  # (0008,103E)
    "ProtocolName",  # (0018,1030)
    "AcquisitionDeviceProcessingDescription",  # (0018,1400)
    "StudyDescription",  # (0008,1030)
]
DESCRIPTIONS: tuple[ClaimedBy, ...] = get_args(ClaimedBy)


@dataclass(frozen=True)
class ViewHeader:
    """The header's values, in upper case; None if absent or empty."""

    view_position: str | None  # (0018,5101)
    # Both for archives only, like Origin. (0020,0020) with its backslash; the first code of
    # (0054,0220) as scheme, colon, value
    patient_orientation: str | None = field(default=None, repr=False)
    view_code: str | None = field(default=None, repr=False)
    described_view: View | None = None  # the view that a description names
    claimed_by: ClaimedBy | None = None  # the description that names it
    body_part_examined: str | None = None  # (0018,0015)

    @property
    def view(self) -> View | None:
        """The view that View Position claims; None for obliques, unknown terms and no value."""
        if self.view_position in FRONTAL_TERMS:
            return "frontal"
        if self.view_position in LATERAL_TERMS:
            return "lateral"
        return view_named(self.view_position)

    @property
    def view_by_orientation(self) -> View | None:
        """The view whose plane Patient Orientation describes; None for others and no value."""
        directions = (self.patient_orientation or "").split("\\")
        axes = [_main_axis(direction) for direction in directions]
        return PLANES.get(frozenset(axes)) if len(axes) == 2 else None

    @property
    def view_by_code(self) -> View | None:
        """The view that View Code Sequence claims; None for obliques, other codes and no value."""
        scheme, _, value = (self.view_code or "").partition(":")
        scheme = SYNONYMS.get(scheme, scheme)
        if value in FRONTAL_CODES.get(scheme, ()):
            return "frontal"
        if value in LATERAL_CODES.get(scheme, ()):
            return "lateral"
        return None

    def agrees(self, view: AnsweredView) -> bool | None:
        """Whether View Position claims this view; None if it claims none.

        None as well for an image that is no chest radiograph, which has no view to compare; so do
        the other comparisons.
        """
        return _agrees(self.view, view)

    def patient_orientation_agrees(self, view: AnsweredView) -> bool | None:
        """Whether Patient Orientation claims this view; None if it claims none."""
        return _agrees(self.view_by_orientation, view)

    def view_code_agrees(self, view: AnsweredView) -> bool | None:
        """Whether View Code Sequence claims this view; None if it claims none."""
        return _agrees(self.view_by_code, view)

    def described_view_agrees(self, view: AnsweredView) -> bool | None:
        """Whether a description claims this view; None if no description claims a view."""
        return _agrees(self.described_view, view)

    def body_part_agrees(self, is_chest: bool | None) -> bool | None:
        """Whether Body Part Examined claims a chest, as the answer does, or another part.

        Args:
            is_chest: Whether the answer is a chest radiograph; None: the model does not say.

        Returns:
            None if the model does not say, or if the attribute is empty or names no known part.
        """
        claimed = is_chest_named(self.body_part_examined)
        return None if is_chest is None or claimed is None else claimed == is_chest


def _agrees(claimed: View | None, view: AnsweredView) -> bool | None:
    return None if claimed is None or view == "not_chest" else claimed == view


def _main_axis(direction: str) -> str:
    """The axis of a direction's first letter, which is the main one; "" if it is not valid.

    It is also "" for quadrupeds, whose directions have other letters.
    """
    axes = [AXES.get(letter, "") for letter in direction]
    return axes[0] if "" not in axes and axes and len(set(axes)) == len(axes) else ""
