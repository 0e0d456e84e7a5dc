"""Where headers contradict the pixels, and in which order a person reviews it."""

from __future__ import annotations

import csv
import math
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results import CHEST, done, not_chest, published, refused

from service.backfill.report.header_audit import WORKLIST_COLUMNS, HeaderAudit
from service.backfill.report.write import audit
from service.backfill.results.columns import as_table


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def audited(rows, folder: Path, run_rows: int = 1000) -> list[dict[str, str]]:
    """The worklist of some rows, in batches of three."""
    with closing(HeaderAudit(folder, run_rows)) as headers:
        for batch in as_table(rows).to_batches(max_chunksize=3):
            headers.add(batch)
        headers.write(folder)
    return table(folder / "worklist.csv")


def disagreeing(number: int, pfi: float, review: bool = False, **others):
    view = "frontal" if pfi >= 0.5 else "lateral"
    values = {"view_position": "LL", "view_position_agrees": False} | others
    return done(number, pfi=pfi, view=view, review=review, **values)


def test_the_most_certain_come_first_and_reviews_last(tmp_path: Path) -> None:
    """By the distance from the threshold in logits, on both sides of it."""
    rows = [
        disagreeing(1, 0.6),
        disagreeing(2, 0.001),
        disagreeing(3, 0.9999, review=True),
        disagreeing(4, 0.99999),
        disagreeing(5, 0.5, review=True),
        done(6, view_position="PA", view_position_agrees=True),
        done(7),
        refused(8),
    ]
    found = audited(rows, tmp_path)
    assert [row["locator"] for row in found] == [f"images/{n}.dcm" for n in (4, 2, 1, 3, 5)]
    assert float(found[0]["certainty"]) == pytest.approx(math.log(0.99999 / 0.00001), rel=1e-4)
    assert tuple(found[0]) == WORKLIST_COLUMNS
    assert found[0]["disagrees"] == "view_position"
    assert (found[0]["view"], found[0]["review"], found[0]["study_instance_uid"]) == (
        "frontal", "false", "",
    )  # fmt: skip


@given(pfis=st.lists(st.floats(0, 1), max_size=40), run_rows=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_sorting_in_files_is_sorting(tmp_path_factory, pfis, run_rows) -> None:
    """However small the pieces that memory holds, the list is the same."""
    rows = [disagreeing(n, pfi, review=n % 3 == 0) for n, pfi in enumerate(pfis)]
    folder = tmp_path_factory.mktemp("audit")
    one = audited(rows, folder, run_rows)
    assert one == audited(rows, folder)
    assert len(one) == len(rows)
    order = [(row["review"] == "true", -float(row["certainty"])) for row in one]
    assert order == sorted(order)


def test_which_attributes_disagree_is_said(tmp_path: Path) -> None:
    """One image is one line, whatever its header says wrong."""
    row = disagreeing(
        1, 0.99, patient_orientation=r"A\F", patient_orientation_agrees=False,
        view_code="SCT:399067008", view_code_agrees=True,
    )  # fmt: skip
    (found,) = audited([row], tmp_path)
    assert found["disagrees"] == "view_position patient_orientation"
    assert found["patient_orientation"] == r"A\F"
    assert found["view_code"] == "SCT:399067008"


def test_wrong_body_parts_are_listed(tmp_path: Path) -> None:
    """Both ways, by the certainty of `chest`; an image without a view gets none proposed."""
    rows = [
        not_chest(1, view_position="PA", body_part_examined="CHEST", body_part_agrees=False),
        done(2, **CHEST, body_part_examined="HAND", body_part_agrees=False),
        not_chest(3, view_position="LL", body_part_examined="HAND", body_part_agrees=True),
        not_chest(4, body_part_examined="ZEBRA"),
        disagreeing(5, 0.6, **CHEST | {"chest": 0.9999}, body_part_agrees=False),
    ]
    first, second, third = audited(rows, tmp_path)
    told = ("locator", "view", "body_part_examined")
    assert [first[name] for name in told] == ["images/1.dcm", "not_chest", "CHEST"]
    assert [second[name] for name in told] == ["images/2.dcm", "frontal", "HAND"]
    assert float(first["certainty"]) == pytest.approx(math.log(0.98 / 0.02), rel=1e-4)
    assert (first["disagrees"], first["chest"]) == ("body_part_examined", "0.02")
    assert third["disagrees"] == "view_position body_part_examined"
    assert float(third["certainty"]) == pytest.approx(math.log(0.6 / 0.4), rel=1e-4)
    groups = {row["attribute"]: row for row in table(tmp_path / "header-audit.csv")}
    assert list(groups["body_part_examined"].values())[3:] == ["1", "3", "1", "0.75"]
    assert list(groups["view_position"].values())[3:] == ["0", "1", "4", "1"]


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "'"])
def test_a_worklist_has_no_formulas(begin, tmp_path: Path) -> None:
    """What headers hold is text, also in a spreadsheet; an apostrophe stands before it."""
    (found,) = audited([disagreeing(1, 0.9, station=f"{begin}cmd|' /C calc'!A0")], tmp_path)
    assert found["station"] == f"'{begin}cmd|' /C calc'!A0"
    assert table(tmp_path / "header-audit.csv")[0]["station"] == found["station"]


def test_stations_and_months_are_counted(tmp_path: Path) -> None:
    """Per attribute: agrees, disagrees, silent, and the share of those that claim a view."""
    rows = [
        disagreeing(1, 0.9),
        disagreeing(2, 0.9, view_position_agrees=True),
        disagreeing(3, 0.9, view_position_agrees=True, view_code_agrees=False),
        done(4),
        disagreeing(5, 0.9, month="2024-01"),
        disagreeing(6, 0.9, station=None),
        refused(7),
    ]
    audited(rows, tmp_path)
    found = {
        (row["station"], row["month"], row["attribute"]): tuple(row.values())[3:]
        for row in table(tmp_path / "header-audit.csv")
    }
    assert len(found) == 12
    assert found["XRAY1", "2025-11", "view_position"] == ("2", "1", "1", "0.333333")
    assert found["XRAY1", "2025-11", "view_code"] == ("0", "1", "3", "1")
    assert found["XRAY1", "2025-11", "patient_orientation"] == ("0", "0", "4", "")
    assert found["XRAY1", "2024-01", "view_position"] == ("0", "1", "0", "1")
    assert found["", "2025-11", "view_position"] == ("0", "1", "0", "1")


def test_nothing_is_left_of_the_sorting(tmp_path: Path) -> None:
    """Identifiers of patients are in the results, and in no forgotten file."""
    published([disagreeing(n, 0.9) for n in range(5)], tmp_path)
    audit(tmp_path / "results", tmp_path)
    names = sorted(path.name for path in (tmp_path / "audit").iterdir())
    assert names == ["header-audit.csv", "header-audit.html", "worklist.csv"]
