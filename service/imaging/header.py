"""What a DICOM header claims about the view. Compared with the answer, never used to decide."""

from __future__ import annotations

from dataclasses import dataclass

from model_store import View

# PS3.3 C.8.1.1 (CR Series) and C.8.11.1 (DX) Defined Terms. The decubitus positions LLD and RLD are
# taken with a horizontal beam along the patient's anterior-posterior axis: the image is a frontal.
# The obliques RLO and LLO are neither view.
FRONTAL_TERMS = frozenset({"AP", "PA", "LLD", "RLD"})
LATERAL_TERMS = frozenset({"LL", "RL"})


@dataclass(frozen=True)
class ViewHeader:
    """View Position (0018,5101) as it stands in the object; None where absent or empty."""

    view_position: str | None

    @property
    def view(self) -> View | None:
        """The view that the header claims; None for obliques, unknown terms and silence."""
        if self.view_position in FRONTAL_TERMS:
            return "frontal"
        if self.view_position in LATERAL_TERMS:
            return "lateral"
        return None

    def agrees(self, view: View) -> bool | None:
        """Whether the header claims this view; None where it claims none."""
        return None if self.view is None else self.view == view
