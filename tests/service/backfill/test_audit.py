"""The certificate: valid where every image has exactly one outcome, and nowhere else."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from results import CHEST, NOON, done, not_chest, published, refused

from service.backfill.report import bounded_counter
from service.backfill.report.bounded_counter import BoundedCounter, Repetitions
from service.backfill.report.certificate import Certificate
from service.backfill.report.write import Known, audit
from service.backfill.results.atomic_files import temporary
from service.backfill.results.columns import as_table
from service.backfill.results.sinks import SINKS, Parquet
from service.cli import main

MIXED = [
    done(1, view_position="PA", view_position_agrees=True),
    done(2, view_position="LL", view_position_agrees=False, station="XRAY2", month=None),
    done(3, view="lateral", pfi=0.4, review=True, modality="CR", station=None),
    refused(4, "skipped", "duplicate"),
    refused(5),
    refused(6),
]


def of(rows, out: Path, known: Known | None = None) -> Certificate:
    if rows:
        published(rows, out)
    return audit(out / "results", out, known)


def test_everything_is_counted(tmp_path: Path) -> None:
    """Outcomes of all; views, headers, stations and months of what is done."""
    found = of(MIXED, tmp_path)
    assert found.valid, found.errors
    assert (found.found, found.found_by) == (6, "rows")
    assert found.outcomes == {"done": 3, "skipped": 1, "failed": 2}
    assert found.codes == {"duplicate": 1, "corrupt_image": 2}
    assert found.views == {"frontal": 2, "lateral": 1}
    assert found.review == 1
    assert found.inputs == {"stored": 3, "rendered": 0}
    assert vars(found.header["view_position"]) == {"agrees": 1, "disagrees": 1, "silent": 1}
    assert vars(found.header["view_code"]) == {"agrees": 0, "disagrees": 0, "silent": 3}
    assert {each.value: each.images for each in found.stations.largest} == {
        "XRAY1": 1, "XRAY2": 1, None: 1,
    }  # fmt: skip
    assert {each.value: each.images for each in found.modalities.largest} == {"DX": 2, "CR": 1}
    assert found.months == {"": 1, "2025-11": 2}
    assert [vars(model) for model in found.models] == [
        {"name": "googlenet/1.0.0", "sha256": "ab" * 32, "images": 3}
    ]
    # The first was finished a second after noon, and had taken half of it; what was refused says
    # no duration, and was finished at noon
    assert found.started == NOON
    assert found.ended == NOON + timedelta(seconds=3)
    assert found.images_per_second == pytest.approx(2)


@pytest.mark.parametrize(
    ("inputs", "counted", "said"),
    [
        (["stored"] * 3, (3, 0), "images as they are stored"),
        (["rendered"] * 3, (0, 3), "pictures that the archive rendered, not what it stores"),
        (
            ["stored", "rendered", "stored"],
            (2, 1),
            "2 images as they are stored, 1 as the archive rendered them",
        ),
    ],
)
def test_what_the_model_saw_is_certified(inputs, counted, said, tmp_path: Path) -> None:
    """The page states both counts, so that stored and rendered images are not confused."""
    found = of([*(done(n, input=kind) for n, kind in enumerate(inputs)), refused(9)], tmp_path)
    assert tuple(found.inputs.values()) == counted
    assert said in (tmp_path / "certificate.html").read_text()


def test_results_of_two_jobs_say_that_they_differ(tmp_path: Path) -> None:
    """The same archive, once as it is stored and once rendered, is no archive of twice the size."""
    published([done(1), done(2)], tmp_path)
    pictures = [done(n, locator=f"{n}/rendered", input="rendered") for n in (1, 3)]
    published(pictures, tmp_path, "2")
    found = of([], tmp_path)
    assert found.inputs == {"stored": 2, "rendered": 2}
    assert found.errors == ("done rows that repeat the key of another: 1, as 1.2.3.1 (2 times)",)


NOT_MIRRORED = {"mirrored": None, "mirrored_probability": None}  # laterals are neither
HEADED = [
    done(1, **CHEST | {"rotation_degrees": 180}, body_part_agrees=True),
    done(2, **CHEST, body_part_agrees=False),
    done(3, view="lateral", pfi=0.1, **CHEST | NOT_MIRRORED | {"inverted": True}),
    not_chest(4, body_part_agrees=False),
    not_chest(5, pfi=0.2, review=True),
]


def test_what_is_no_chest_radiograph_is_certified_apart(tmp_path: Path) -> None:
    """It is done, it has no view, and its header's body part is compared."""
    found = of([*HEADED, refused(6)], tmp_path)
    assert found.valid, found.errors
    assert found.outcomes == {"done": 5, "skipped": 0, "failed": 1}
    assert found.views == {"frontal": 2, "lateral": 1, "not_chest": 2}
    assert vars(found.header["body_part_examined"]) == {"agrees": 1, "disagrees": 2, "silent": 2}
    assert found.review == 1


def test_a_body_part_is_silent_only_if_it_was_compared(tmp_path: Path) -> None:
    """Images of a model that cannot tell a chest are neither silent nor anything else."""
    headless = [done(n, body_part_examined="HAND") for n in (7, 8)]
    found = of([*HEADED, *headless], tmp_path)
    assert found.valid, found.errors
    assert vars(found.header["body_part_examined"]) == {"agrees": 1, "disagrees": 2, "silent": 2}
    with (tmp_path / "audit" / "header-audit.csv").open(newline="") as file:
        groups = [row for row in csv.DictReader(file) if row["attribute"] == "body_part_examined"]
    assert [int(groups[0][name]) for name in ("agrees", "disagrees", "silent")] == [1, 2, 2]


def test_how_images_lie_is_certified(tmp_path: Path) -> None:
    """Of those of which the model says it: no laterals where it is about mirroring."""
    found = of(HEADED, tmp_path).orientation
    assert found is not None
    assert found.rotation == {"0": 2, "90": 0, "180": 1, "270": 0}
    assert found.inverted == {"yes": 1, "no": 2}
    assert found.mirrored == {"yes": 0, "no": 2}


def test_what_the_model_cannot_say_is_not_certified(tmp_path: Path) -> None:
    """No zero stands for images that were never asked."""
    found = of([done(1, body_part_examined="HAND")], tmp_path)
    assert found.views == {"frontal": 1, "lateral": 0}
    assert found.orientation is None
    assert "body_part_examined" not in found.header
    assert found.valid


def test_a_certificate_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Without what models with heads have added."""
    written = json.loads(of(MIXED, tmp_path).model_dump_json())
    del written["orientation"]
    assert Certificate.model_validate(written).views == {"frontal": 2, "lateral": 1}


OF_HEADS = (
    "chest", "chest_threshold", "rotation_degrees", "rotation_probability", "inverted",
    "inverted_probability", "mirrored", "mirrored_probability", "body_part_examined",
    "body_part_agrees",
)  # fmt: skip
OF_DESCRIPTIONS = ("described_view", "claimed_by", "described_view_agrees")


@pytest.mark.parametrize(
    "lacking",
    [("input", *OF_DESCRIPTIONS, *OF_HEADS), (*OF_DESCRIPTIONS, *OF_HEADS), OF_HEADS],
    ids=["input", "descriptions", "heads"],
)
@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
def test_parts_of_earlier_versions_are_counted(sink, lacking, tmp_path: Path) -> None:
    """They lack columns: then images were stored ones, and descriptions silent; the job goes on."""
    filled = {"warnings": "w", "model": "m", "model_sha256": "0"}  # no empty texts, which csv loses
    part = published([done(1, **filled), refused(2, **filled)], tmp_path, sink=sink)
    path = tmp_path / "results" / part.name
    if sink.suffix == ".parquet":
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(list(lacking)), path)
    elif sink.suffix == ".csv":
        with path.open(newline="") as file:
            lines = list(csv.reader(file))
        left = [at for at, name in enumerate(lines[0]) if name not in lacking]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([line[at] for at in left] for line in lines)
    else:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            for name in lacking:
                del record[name]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = of([], tmp_path)
    assert found.inputs == {"stored": 1, "rendered": 0}
    assert found.outcomes == {"done": 1, "skipped": 0, "failed": 1}
    assert vars(found.header["described_view"]) == {"agrees": 0, "disagrees": 0, "silent": 1}
    assert (found.valid, found.views, found.orientation) == (
        True,
        {"frontal": 1, "lateral": 0},
        None,
    )
    table = tmp_path / "all.ndjson"
    assert main(["export", str(tmp_path), f"--out={table}"]) == 0
    (first, _) = map(json.loads, table.read_text().splitlines())
    assert (first["view"], first["chest"], first["body_part_agrees"]) == ("frontal", None, None)


def test_the_file_is_the_certificate(tmp_path: Path) -> None:
    """certificate.json is read back as what was returned."""
    found = of(MIXED, tmp_path)
    assert Certificate.model_validate_json((tmp_path / "certificate.json").read_text()) == found


def test_the_parts_of_all_formats_are_one_result(tmp_path: Path) -> None:
    """A job may go on in another format."""
    for at, sink in enumerate(SINKS.values()):
        published([done(at)], tmp_path, str(at), sink)
    found = of([], tmp_path)
    assert (found.valid, found.found, len(found.parts)) == (True, 3, 3)


def test_sha256sum_checks_the_parts(tmp_path: Path) -> None:
    """results.sha256 is what the usual tool reads, and says when a part has changed."""
    part = published(MIXED[:3], tmp_path)
    published(MIXED[3:], tmp_path, "2")
    of([], tmp_path)
    command = ["sha256sum", "--check", "--strict", tmp_path / "results.sha256"]
    run = subprocess.run(command, cwd=tmp_path / "results", capture_output=True, check=True)
    assert run.stdout.count(b": OK") == 2
    (tmp_path / "results" / part.name).write_bytes(b"other")
    run = subprocess.run(command, cwd=tmp_path / "results", capture_output=True, check=False)
    assert run.returncode == 1


@given(
    rows=st.lists(
        st.builds(
            lambda locator, key, good: (
                done(locator, key=str(key)) if good else refused(locator, "skipped", "duplicate")
            ),
            st.integers(0, 12),
            st.integers(0, 12),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_valid_is_unique(rows) -> None:
    """No locator comes twice, and no key among those that are done: exactly then it is valid."""
    locators = Counter(row.locator for row in rows)
    keys = Counter(row.key for row in rows if row.outcome == "done")
    with tempfile.TemporaryDirectory() as folder:
        found = of(rows, Path(folder))
    assert found.valid == (max([*locators.values(), *keys.values()]) == 1)
    assert ("locator" in " ".join(found.errors)) == (max(locators.values()) > 1)
    assert ("key" in " ".join(found.errors)) == (max(keys.values(), default=0) > 1)


def test_a_repetition_is_named(tmp_path: Path) -> None:
    """Also where the two are in parts of different days."""
    published([done(1), done(2)], tmp_path)
    published([done(3, key="1.2.3.1")], tmp_path, "2", day=NOON.date().replace(day=9))
    found = of([], tmp_path)
    assert not found.valid
    assert found.errors == ("done rows that repeat the key of another: 1, as 1.2.3.1 (2 times)",)


class SameHash(str):
    """A text whose hash is another's."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def test_equal_hashes_are_no_repetition() -> None:
    """Where two texts have one hash, the texts decide."""
    texts = [SameHash("a"), SameHash("b"), SameHash("c")]
    repetitions = Repetitions()
    repetitions.add(texts)
    assert len(repetitions.suspects()) == 2
    assert repetitions.find(iter([[texts[0]], texts[1:]])) == (0, {})


@pytest.mark.parametrize("times", [2, 3])
def test_more_repetitions_than_are_named_are_counted(times) -> None:
    """A job that was written twice is one number, not a million names."""
    texts = [str(n) for n in range(3 * bounded_counter.MOST_COMPARED)]
    repetitions = Repetitions()
    for _ in range(times):
        repetitions.add(texts)
    count, named = repetitions.find(iter([texts] * times))
    assert count == (times - 1) * len(texts)
    assert len(named) == bounded_counter.MOST_COMPARED
    assert set(named.values()) == {times}


def test_nothing_is_repeated_in_nothing() -> None:
    """No rows, no suspicion."""
    assert Repetitions().find(iter([])) == (0, {})


def test_values_that_are_all_different_do_not_fill_the_memory() -> None:
    """The frequent ones keep their counts, and the rest adds up."""
    counts = BoundedCounter(most=10)
    for at in range(100):
        counts.add(pa.array(["often"] * 5 + [f"once {at} {n}" for n in range(9)] + [None]))
    largest, others = counts.largest(2)
    assert largest == {"often": 500, None: 100}
    assert others == 900
    assert len(counts.counts) <= 20 + 11


NO_PROBABILITIES = (math.nan, -0.1, 1.1, math.inf)
HOW_IT_LIES = [name for name in CHEST if not name.startswith("chest")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (done(1, pfi=None), "without an answer"),
        (done(1, key=None), "without an answer"),
        (done(1, view=None), "without an answer"),
        (done(1, code="blank_image"), "with a code"),
        (done(1, pfi=0.2), "contradict"),
        (done(1, view="lateral"), "contradict"),
        (done(1, view="not_chest"), "contradict"),
        (not_chest(1, view="frontal"), "contradict"),
        (not_chest(1, chest=0.5), "contradict"),
        (not_chest(1, chest_threshold=None), "contradict"),
        (not_chest(1, pfi=None), "without an answer"),
        (done(1, key=""), "without an answer"),
        (done(1, model="", model_sha256=""), "without an answer"),
        *((done(1, pfi=number), "within 0 to 1") for number in NO_PROBABILITIES),
        *((done(1, threshold=number), "within 0 to 1") for number in NO_PROBABILITIES),
        *((done(1, **CHEST | {"chest": number}), "within 0 to 1") for number in NO_PROBABILITIES),
        *((not_chest(1, chest_threshold=n), "within 0 to 1") for n in NO_PROBABILITIES),
        (not_chest(1, pfi=math.nan), "within 0 to 1"),
        *(
            (done(1, **CHEST | {name: number}), "within 0 to 1")
            for name in ("rotation_probability", "inverted_probability", "mirrored_probability")
            for number in NO_PROBABILITIES
        ),
        (done(1, **CHEST | {"chest": None}), "only one of chest"),
        (done(1, **CHEST | {"chest_threshold": None}), "only one of chest"),
        (done(1, **CHEST | {"rotation_degrees": 45}), "none of 0, 90, 180, 270"),
        (done(1, **CHEST | {"rotation_degrees": -90}), "none of 0, 90, 180, 270"),
        *((not_chest(1, **{name: CHEST[name]}), "how an image lies") for name in HOW_IT_LIES),
        *(
            (done(1, view="lateral", pfi=0.1, **CHEST | {"mirrored": answer}), "laterals")
            for answer in (True, False)
        ),
        *((done(1, **CHEST | {name: None}), "without its probability") for name in HOW_IT_LIES),
        (done(1, body_part_agrees=True), "body_part_agrees without chest"),
        (done(1, view="oblique"), "unknown view"),
        (done(1, input="guessed"), "unknown input"),
        (refused(1, "later"), "unknown outcome"),
        (refused(1, code=None), "without a code"),
        (refused(1, code=""), "without a code"),
        (refused(1, code="bad_weather"), "unknown code"),
        (refused(1, "skipped", None), "without a code"),
    ],
)
def test_a_row_that_contradicts_itself_is_an_error(row, said, tmp_path: Path) -> None:
    """An outcome is one only if it is whole."""
    found = of([done(2), row, done(3)], tmp_path)
    assert not found.valid
    named = [error for error in found.errors if error.endswith(": 1, as images/1.dcm")]
    assert any(said in error for error in named), found.errors


def test_broken_rows_are_counted(tmp_path: Path) -> None:
    """Over all parts, with the first as the example."""
    published([done(1), done(2, pfi=math.nan)], tmp_path)
    published([done(3, pfi=math.nan), refused(4, code="")], tmp_path, "2")
    errors = of([], tmp_path).errors
    assert any(error.endswith("within 0 to 1: 2, as images/2.dcm") for error in errors)


def test_rows_of_a_later_version_are_an_error_and_no_crash(tmp_path: Path) -> None:
    """What is known of them is counted."""
    rows = [done(1, view="oblique"), done(2, input="guessed"), refused(3, "later"), done(4)]
    published(rows, tmp_path)
    assert main(["audit", str(tmp_path), f"--out={tmp_path}"]) == 1
    found = json.loads((tmp_path / "certificate.json").read_text())
    assert found["views"] == {"frontal": 2, "lateral": 0}
    assert found["inputs"] == {"stored": 2, "rendered": 0}
    assert found["outcomes"] == {"done": 3, "skipped": 0, "failed": 0}
    assert (found["found"], found["valid"]) == (4, False)


def test_what_the_job_knows_must_be_there(tmp_path: Path) -> None:
    """The parts it wrote, no others, unchanged, and as many rows as images were found."""
    wanted = [published([done(n)], tmp_path, str(n)) for n in range(3)]
    known = Known(3, wanted, NOON - timedelta(seconds=10), NOON)
    found = of([], tmp_path, known)
    assert found.valid, found.errors
    assert (found.found_by, found.images_per_second) == ("source", pytest.approx(0.3))

    results = tmp_path / "results"
    (results / wanted[0].name).rename(temporary(results / wanted[0].name))
    shutil.copy(results / wanted[1].name, results / "day=2026-03-04" / "part-9.parquet")
    path = Parquet().path(tmp_path, NOON.date(), "2")
    Parquet().write_part([done(7)], path)
    temporary(path).replace(path)
    errors = of([], tmp_path, known).errors
    assert any("part-0.parquet: the part is missing" in error for error in errors)
    assert any("part-9.parquet: no part of this job" in error for error in errors)
    assert any("part-2.parquet: not the file that was written" in error for error in errors)
    assert any("rows that repeat the locator" in error for error in errors)


def test_images_without_an_outcome_make_it_invalid(tmp_path: Path) -> None:
    """A job that ends before its archive does is not certified."""
    part = published([done(1)], tmp_path)
    found = of([], tmp_path, Known(2, [part]))
    assert not found.valid
    assert found.errors == ("images found: 2; with an outcome: 1",)


def test_a_damaged_part_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """The others are counted; it is named."""
    published([done(1)], tmp_path)
    part = published([done(2)], tmp_path, "2")
    path = tmp_path / "results" / part.name
    path.write_bytes(path.read_bytes()[:-20])
    found = of([], tmp_path)
    assert not found.valid
    assert found.outcomes["done"] == 1
    assert part.name in found.errors[0]


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
def test_results_that_cannot_be_read_are_not_empty(
    sink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There were images once; the reason is told."""
    part = published([done(1)], tmp_path, sink=sink)
    path = tmp_path / "results" / part.name
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["audit", str(tmp_path), f"--out={tmp_path}"]) == 1
    assert part.name in "".join(capsys.readouterr().err.split())
    found = json.loads((tmp_path / "certificate.json").read_text())
    assert (found["empty"], found["valid"], len(found["parts"])) == (False, False, 1)


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
def test_a_part_without_rows_is_an_error(sink, tmp_path: Path) -> None:
    """No job writes one."""
    path = sink.path(tmp_path, NOON.date(), "1")
    path.parent.mkdir(parents=True)
    path.write_bytes(sink.encode(as_table([])))
    found = of([], tmp_path)
    assert (found.valid, found.empty) == (False, False)
    assert path.name in found.errors[0]


def test_an_archive_without_images_is_certified(tmp_path: Path) -> None:
    """None found, none done: that is right, if it was expected; a folder alone proves nothing."""
    (tmp_path / "results").mkdir()
    assert of([], tmp_path, Known(0, [], may_be_empty=True)).valid
    certificate = of([], tmp_path, Known(0, [], source="/archive", left_out={"hidden": 2}))
    assert certificate.errors == ("no image was found in /archive; left out: 2 hidden",)
    assert certificate.empty
    assert of([], tmp_path).errors == ("there are no parts",)
    with pytest.raises(NotADirectoryError):
        audit(tmp_path / "elsewhere", tmp_path)


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    """Who names the job's folder means its results; what was written beside them is no part."""
    published(MIXED, tmp_path)
    first = audit(tmp_path / "results", tmp_path)
    assert audit(tmp_path, tmp_path).parts == first.parts


def test_nothing_is_written_among_the_parts(tmp_path: Path) -> None:
    """A worklist.csv there would be read as a part the next time."""
    published(MIXED, tmp_path)
    for out in (tmp_path / "results", tmp_path / "results" / "audit"):
        with pytest.raises(ValueError, match="within"):
            audit(tmp_path / "results", out)


def test_serving_loads_none_of_it() -> None:
    """A pod that answers requests needs no Arrow."""
    watched = "('pyarrow', 'jinja2', 'sqlalchemy', 'service.cli.backfill_job')"
    program = f"import sys, service.cli; print(*[m for m in {watched} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not run.stdout.split()
