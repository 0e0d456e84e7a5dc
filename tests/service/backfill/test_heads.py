"""An archive under a model with all heads: what is no chest radiograph, and how images lie."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from heads import marked, nan_where_dark, with_heads
from images import dicom, radiograph

from model_store import Store
from service.backfill.engines.local import LocalEngine
from service.backfill.job_folder import ledger_in
from service.backfill.ledger.ledger import Ledger
from service.backfill.results.columns import as_rows
from service.backfill.results.folder import Results
from service.backfill.results.rows import Row
from service.backfill.results.sinks import SINKS, read_rows
from service.backfill.sources.opening import open_source
from service.cli import main
from service.inference import open_pipeline

MODEL = "swift/2.0.0"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Hands whose headers say CHEST and HAND, a chest, and one that lies on its side."""
    folder = tmp_path / "archive"
    folder.mkdir()
    picture = radiograph()
    images = {
        "hand-says-chest": (marked(picture, "no_chest"), "CHEST"),
        "hand": (marked(picture, "no_chest"), "HAND"),
        "chest-says-hand": (marked(picture), "HAND"),
        "turned": (marked(picture, "turn_90", "inverted"), "CHEST"),
    }
    for number, (name, (pixels, part)) in enumerate(images.items()):
        data = dicom(pixels, SOPInstanceUID=f"1.2.{number}", BodyPartExamined=part)
        (folder / f"{name}.dcm").write_bytes(data)
    return folder


@pytest.mark.parametrize("head", ["pfi", "rotation"])
def test_an_image_without_a_valid_answer_fails_alone(
    head: str, archive: Path, tmp_path: Path
) -> None:
    """The job comes to its end, with a row for each image; the failed one is tried again."""
    store, out = tmp_path / "store", tmp_path / "out"
    Store(store).add(with_heads(edit=nan_where_dark(head)))
    words = [f"--out={out}", f"--model={MODEL}", f"--model-store={store}"]
    for more in ([str(archive)], ["--retry-failed"]):
        command = [sys.executable, "-m", "service.cli", "backfill", *more, *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr
        rows = rows_in(out)
        bad = dict.fromkeys(("hand-says-chest", "hand", "chest-says-hand"), "internal_error")
        assert {name: row.code for name, row in rows.items()} == bad | {"turned": None}
        assert rows["turned"].view == "frontal"
        assert rows["hand"].outcome == "failed"
        certificate = json.loads((out / "certificate.json").read_text())
        assert certificate["codes"] == {"internal_error": 3}


def rows_in(out: Path) -> dict[str, Row]:
    found = [row for batch in read_rows(out / "results") for row in as_rows(batch)]
    return {row.locator.removesuffix(".dcm"): row for row in found}


@pytest.mark.parametrize("form", SINKS)
def test_an_archive_is_told_apart(
    form: str, archive: Path, headed_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In rows, certificate, worklist and summary; `cxrview audit` counts the same."""
    out, again = tmp_path / "out", tmp_path / "again"
    words = [f"--model={MODEL}", f"--model-store={headed_store}", f"--format={form}"]
    assert main(["backfill", str(archive), f"--out={out}", *words]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "2 of the images that are done are no chest radiographs" in told
    rows = rows_in(out)
    assert {name: (row.view, row.body_part_agrees) for name, row in rows.items()} == {
        "hand-says-chest": ("not_chest", False),
        "hand": ("not_chest", True),
        "chest-says-hand": ("frontal", False),
        "turned": ("frontal", True),
    }
    turned, hand = rows["turned"], rows["hand"]
    assert (turned.rotation_degrees, turned.inverted, turned.mirrored) == (90, True, False)
    assert (hand.rotation_degrees, hand.view_position_agrees, hand.chest_threshold) == (
        None, None, 0.5,
    )  # fmt: skip
    certificate = json.loads((out / "certificate.json").read_text())
    assert certificate["views"] == {"frontal": 2, "lateral": 0, "not_chest": 2}
    assert certificate["orientation"]["rotation"]["90"] == 1
    assert certificate["header"]["body_part_examined"]["disagrees"] == 2
    with (out / "audit" / "worklist.csv").open(newline="") as file:
        listed = {row["locator"]: row["disagrees"] for row in csv.DictReader(file)}
    assert listed == dict.fromkeys(
        ("hand-says-chest.dcm", "chest-says-hand.dcm"), "body_part_examined"
    )
    assert main(["audit", str(out), f"--out={again}"]) == 0
    counted = json.loads((again / "certificate.json").read_text())
    for name in ("views", "orientation", "header"):
        assert counted[name] == certificate[name]


def test_the_progress_counts_what_is_no_chest_radiograph(
    archive: Path, headed_store: Path, tmp_path: Path
) -> None:
    """Apart from what is skipped or failed; of this run."""
    ledger = Ledger(ledger_in(tmp_path))
    version = Store(headed_store).load(MODEL)
    job = ledger.open_job("job", {}).id
    source = open_source(str(archive), {})
    with open_pipeline(version) as pipeline:
        results = Results(tmp_path, SINKS["parquet"])
        work = LocalEngine(ledger, job, source, pipeline.submit, version.card, results=results)
        work.run()
    ledger.close()
    assert (work.progress.images, work.progress.not_chest) == (4, 2)
    assert not work.progress.codes
