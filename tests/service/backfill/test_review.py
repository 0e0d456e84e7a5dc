"""The review of a job: its worklist, its exports, and how far two readers agree."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.metrics import cohen_kappa_score

from service.backfill.ledger.jobs import Part, Settled
from service.backfill.ledger.ledger import Ledger
from service.backfill.ledger.readings import Decision, Entry, Readings
from service.backfill.results.rows import Row
from service.backfill.results.sinks import RESULTS, SINKS
from service.backfill.review.agreement import agreement, agreements
from service.backfill.review.exports import SCHEMAS, Tables, export
from service.backfill.review.worklist import FILE, Worklist, worklist_of
from training.data.manifest import read_manifest
from training.data.readers import merge

LABELS: tuple[Decision, ...] = get_args(Decision)
HEADED: dict[str, Any] = {"chest": 0.999, "chest_threshold": 0.5}
# By the name of each image, in the order of the worklist
LISTED: dict[str, dict[str, Any]] = {
    "sure-error": {"pfi": 0.999, "view_position": "LL", "view_position_agrees": False},
    "error": {"pfi": 0.9, "described_view_agrees": False, "described_view": "lateral"},
    "hand": {**HEADED, "view": "not_chest", "chest": 0.001, "pfi": 0.2},
    "doubtful-error": {"pfi": 0.55, "review": True, "view_position_agrees": False},
    "doubtful": {**HEADED, "pfi": 0.52, "review": True},
    "more-doubtful": {"pfi": 0.505, "review": True},
}
UNLISTED: dict[str, dict[str, Any]] = {
    "agrees": {"pfi": 0.99, "view_position_agrees": True},
    "silent": {**HEADED, "pfi": 0.99},
}


def row(name: str, **more: Any) -> Row:
    """Of an image that is done."""
    done = Row(
        name, "done", key=f"1.2.{name}", sop_instance_uid=f"1.2.{name}", view="frontal",
        pfi=0.9, threshold=0.5, review=False, model="m/1", model_sha256="0",
    )  # fmt: skip
    return replace(done, **more)


@pytest.fixture
def worked(ledger: Ledger, tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """Commits rows as the results of a new job; its id and folder."""

    def work(*rows: Row) -> tuple[str, Path]:
        job = ledger.open_job(str(len(ledger.jobs())), {}).id
        ledger.add(job, [each.locator for each in rows])
        lease = ledger.lease(job, len(rows), 60)
        assert lease is not None
        keys = {each.locator: each.key for each in rows}
        settled = [Settled(item.number, "done", key=keys[item.locator]) for item in lease.items]
        ledger.commit(lease, settled, Part("p", len(rows), 1, "0"))
        for number, some_rows in enumerate((rows[::2], rows[1::2])):
            if some_rows:
                path = tmp_path / job / RESULTS / f"part-{number}.parquet"
                SINKS["parquet"].write_part(some_rows, path)
                path.with_name(f".{path.name}.tmp").rename(path)
        return job, tmp_path / job

    return work


def opened(ledger: Ledger, job: str, out: Path, certificate: str = "c") -> Worklist:
    numbers = ledger.decisions.numbers
    return worklist_of(out / RESULTS, out / FILE, certificate, lambda keys: numbers(job, keys))


def names(worklist: Worklist) -> list[str]:
    return [each["locator"] for each in worklist.entries(list(range(len(worklist))))]


def test_the_most_certain_errors_come_first(ledger: Ledger, worked) -> None:
    """Then other images that are no chest, then the review band; others are not listed."""
    images = {**UNLISTED, **LISTED}
    rows = [row(name, **more) for name, more in sorted(images.items())]
    skipped = Row("notes.txt", "skipped", "unrecognised_format")
    job, out = worked(*rows, replace(skipped, key="x"))
    found = opened(ledger, job, out)
    assert names(found) == list(LISTED)
    assert found.first_reasons() == {"header": 3, "not_chest": 1, "review": 2}
    first = next(found.entries([0]))
    assert (first["disagrees"], first["reasons"]) == ("view_position", ["header"])
    assert next(found.entries([3]))["reasons"] == ["header", "review"]
    assert first["certainty"] == pytest.approx(6.907, abs=1e-3)
    for place, number in enumerate(found.places):
        entry = next(found.entries([place]))
        assert ledger.decisions.locator(job, number) == entry["locator"]


def test_a_worklist_is_made_once_for_a_certificate(ledger: Ledger, worked) -> None:
    """And again for another one, or where its file is damaged."""
    job, out = worked(row("a", view_position_agrees=False))
    assert names(opened(ledger, job, out)) == ["a"]
    SINKS["parquet"].write_part([row("b", review=True)], out / RESULTS / "part-9.parquet")
    (out / RESULTS / ".part-9.parquet.tmp").rename(out / RESULTS / "part-0.parquet")
    assert names(opened(ledger, job, out)) == ["a"]
    assert names(opened(ledger, job, out, "another")) == []  # the ledger has no image b
    (out / FILE).write_bytes(b"damaged")
    assert names(opened(ledger, job, out, "another")) == []


def test_a_job_without_doubt_has_an_empty_worklist(ledger: Ledger, worked) -> None:
    """In any format of its parts."""
    job, out = worked(row("a", view_position_agrees=True))
    assert len(opened(ledger, job, out)) == 0


def test_of_too_many_images_the_first_are_kept(ledger: Ledger, worked, monkeypatch) -> None:
    """So that a model that fails everywhere does not fill the memory."""
    monkeypatch.setattr("service.backfill.review.worklist.MOST", 2)
    job, out = worked(*(row(name, **more) for name, more in sorted(LISTED.items())))
    assert names(opened(ledger, job, out)) == list(LISTED)[:2]


def labelled(*entries: tuple[int, str, Decision]) -> tuple[list[Entry], dict[int, Readings]]:
    history = [Entry(item, name, "reader", what, 1e9) for item, name, what in entries]
    stand: dict[int, Readings] = {}
    for each in history:
        stand.setdefault(each.item, Readings()).add(each)
    return history, stand


def entry(instance: int, **more: Any) -> dict[str, Any]:
    """A row of the worklist."""
    plain = {
        "instance": instance,
        "locator": f"{instance}.dcm",
        "key": f"1.2.{instance}",
        "sop_instance_uid": f"1.2.{instance}",
        "study_instance_uid": None,
        "disagrees": "view_position",
    }
    return plain | more


def test_the_manifest_is_one_that_training_reads(tmp_path: Path) -> None:
    """With the names of the files as they are, and a study for a patient."""
    rows = [
        entry(1, locator='=a,"b\u00e9%0A%25.dcm', study_instance_uid="1.9"),
        entry(2),
        entry(3),
        entry(4),
        entry(5, locator="%E9.dcm"),
    ]
    history, stand = labelled(
        (1, "ann", "frontal"), (2, "ann", "lateral"), (3, "ann", "unsure"), (5, "ann", "not_chest")
    )  # fmt: skip
    of = Tables("/archive", rows, history, stand)
    path = tmp_path / "manifest.csv"
    path.write_bytes(export("manifest", "csv", of))
    found = read_manifest(path, negatives=True)
    assert [(each.file, each.view, each.patient_id, each.source) for each in found] == [
        ('=a,"b\u00e9\n%.dcm', "frontal", "1.9", "/archive"),
        ("2.dcm", "lateral", "1.2.2", "/archive"),
        ("\\udce9.dcm", "not_chest", "1.2.5", "/archive"),
    ]


@pytest.mark.parametrize("form", SCHEMAS)
def test_both_formats_hold_the_same(form: Any) -> None:
    """But for the marks of texts that would be formulas."""
    rows = [entry(1), entry(2, disagrees=""), entry(3, sop_instance_uid=None), entry(4)]
    decisions: list[tuple[int, str, Decision]] = [
        (number, "=ann", "frontal") for number in range(1, 4)
    ]
    of = Tables("/archive", rows, *labelled(*decisions, (4, "ann", "not_chest")))
    table = pq.read_table(io.BytesIO(export(form, "parquet", of))).to_pylist()
    text = export(form, "csv", of).decode()
    read = list(csv.DictReader(io.StringIO(text)))
    assert [*read[0]] == [*table[0]] == [*SCHEMAS[form]]
    assert len(read) == len(table) == {"manifest": 4, "corrections": 1, "history": 4}[form]
    if form == "corrections":
        assert read == table == [{"sop_instance_uid": "1.2.1", "decision": "frontal"}]
    if form == "history":
        assert (read[0]["reader"], table[0]["reader"]) == ("'=ann", "=ann")


@settings(deadline=None)
@given(some.lists(some.tuples(some.sampled_from(LABELS), some.sampled_from(LABELS)), min_size=1))
def test_kappa_is_that_of_the_study(labels: list[tuple[Decision, Decision]]) -> None:
    """By scikit-learn, and as `merge-readers` tells it; it is none where it would be 0 / 0."""
    found = agreement(("ann", "ben"), labels)
    one, other = ([pair[side] for pair in labels] for side in (0, 1))
    if len({*one, *other}) == 1:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
    # Readers of the study say `exclude` where those of a review are unsure
    study = [
        dict(enumerate("exclude" if each == "unsure" else each for each in side))
        for side in (one, other)
    ]
    told = merge(*study, study[0]).agreement  # type: ignore[arg-type]
    assert (found.n, found.conflicts) == (told.n, told.conflicts)
    assert found.agreement == pytest.approx(told.agreement)
    assert found.kappa == (None if told.kappa is None else pytest.approx(told.kappa, abs=1e-12))


def test_each_two_readers_have_their_own_agreement() -> None:
    """Whichever of them was first; images that one has read count for none."""
    _, stand = labelled(
        (1, "ann", "frontal"), (1, "ben", "frontal"),
        (2, "ben", "lateral"), (2, "ann", "frontal"),
        (3, "ben", "unsure"), (3, "eve", "unsure"),
        (4, "eve", "lateral"),
    )  # fmt: skip
    found = agreements(stand.values())
    assert [(each.readers, each.n, each.conflicts) for each in found] == [
        (("ann", "ben"), 2, 1),
        (("ben", "eve"), 1, 0),
    ]
