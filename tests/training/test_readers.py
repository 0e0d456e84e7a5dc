"""Two readers' labels: merged, compared, adjudicated."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from training.data.manifest import ManifestError, read_manifest
from training.data.readers import add_command, merge, read_labels

FIRST = {"a": "frontal", "b": "lateral", "c": "frontal", "d": "exclude", "e": "lateral"}
SECOND = FIRST | {"c": "lateral"}


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["merge-readers", *map(str, words)])
    options.run_command(options)


def labels(folder: Path, name: str, given: Mapping[str, str]) -> str:
    path = folder / name
    path.write_text("\n".join(["file,view", *(f"{f},{v}" for f, v in given.items())]))
    return str(path)


def read(folder: Path, given: Mapping[str, str]):
    return read_labels(Path(labels(folder, "labels.csv", given)))


def test_agreement_is_of_the_readers_alone(tmp_path: Path) -> None:
    """Kappa as Cohen computed it, before the adjudicator; his labels count where they differ."""
    first = {f"{n}": "frontal" if n < 25 else "lateral" for n in range(50)}
    second = {f"{n}": "frontal" if n < 20 or n >= 40 else "lateral" for n in range(50)}
    third = {f"{n}": "exclude" for n in (*range(20, 25), *range(40, 50))} | {"0": "lateral"}
    merged = merge(read(tmp_path, first), read(tmp_path, second), read(tmp_path, third))
    # observed (20 + 15) / 50 = 0.7, expected (25 * 30 + 25 * 20) / 2500 = 0.5
    assert merged.agreement.kappa == pytest.approx(0.4)
    assert merged.agreement.agreement == pytest.approx(0.7)
    assert (merged.agreement.n, merged.agreement.conflicts) == (50, 15)
    assert merged.labels["0"] == "frontal"  # no conflict: not the adjudicator's
    assert list(merged.labels.values()).count("exclude") == 15


def test_one_label_throughout_has_no_kappa(tmp_path: Path) -> None:
    """Agreement that chance alone explains says nothing."""
    only = read(tmp_path, {"a": "frontal", "b": "frontal"})
    assert merge(only, only).agreement.kappa is None


@pytest.mark.parametrize(
    ("second", "third", "problems"),
    [
        (SECOND | {"a": "exclude"}, {"b": "lateral"}, [
            "a is frontal to one reader, exclude to the other",
            "c is frontal to one reader, lateral to the other",
        ]),
        (SECOND | {"a": "lateral"}, {"a": "lateral"}, [
            "c is frontal to one reader, lateral to the other"
        ]),
        (FIRST | {"z": "lateral"}, {}, ["z was read by one reader only"]),
        ({"a": "lateral"}, {}, [
            *(f"{file} was read by one reader only" for file in "bcde"),
            "a is frontal to one reader, lateral to the other",
        ]),
    ],
)  # fmt: skip
def test_all_that_is_unresolved_is_told(
    tmp_path: Path, second: dict[str, str], third: dict[str, str], problems: list[str]
) -> None:
    """No reader's label is preferred silently."""
    readers = [read(tmp_path, given) for given in (FIRST, second, third)]
    with pytest.raises(ManifestError) as found:
        merge(*readers)
    assert list(found.value.problems) == problems


def test_nothing_read_is_an_error(tmp_path: Path) -> None:
    """Two empty tables have no agreement."""
    with pytest.raises(ManifestError, match="no image was read"):
        merge({}, {})


def test_a_label_is_one_of_three_words(tmp_path: Path) -> None:
    """All lines with another are told, and files that were read twice."""
    path = Path(labels(tmp_path, "one.csv", {"a": "PA", "b": "lateral", "c": ""}))
    path.write_text(path.read_text() + "\nb,lateral\n")
    with pytest.raises(ManifestError) as found:
        read_labels(path)
    assert found.value.problems == (
        "one.csv: view of a is 'PA', not frontal, lateral, not_chest or exclude",
        "one.csv: view of c is '', not frontal, lateral, not_chest or exclude",
        "one.csv: b is in it twice",
    )


def test_the_command_writes_what_was_agreed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest with merged views and all its columns, its exclusions, and the agreement."""
    lines = [f"{file},?,p-{file},x,LL,kept" for file in FIRST]
    base = tmp_path / "base.csv"
    head = "file,view,patient_id,source,header_view_position,own"
    base.write_text("\n".join([head, *lines]))
    out = tmp_path / "merged.csv"
    command = [labels(tmp_path, "1.csv", FIRST), labels(tmp_path, "2.csv", SECOND)]
    command += ["--manifest", str(base), "--out", str(out)]
    with pytest.raises(ManifestError, match="c is frontal to one reader"):
        run(*command)
    assert not out.exists()
    run(*command, "--adjudicated", labels(tmp_path, "3.csv", {"c": "exclude"}))
    assert [(row.file, row.view) for row in read_manifest(out)] == [
        ("a", "frontal"), ("b", "lateral"), ("e", "lateral"),
    ]  # fmt: skip
    assert out.read_text().splitlines()[1] == "a,frontal,p-a,x,LL,kept"
    assert (tmp_path / "merged-exclusions.csv").read_text().splitlines()[1:] == [
        "c,excluded by the adjudicator",
        "d,excluded by both readers",
    ]
    agreement = json.loads((tmp_path / "merged-agreement.json").read_text())
    assert agreement.keys() == {"kappa", "n", "agreement", "conflicts"}
    assert (agreement["n"], agreement["conflicts"], agreement["agreement"]) == (5, 1, 0.8)
    assert json.loads(capsys.readouterr().out).items() >= agreement.items()


def test_manifest_and_readers_must_be_of_the_same_images(tmp_path: Path) -> None:
    """What only one of them has is told, all of it."""
    base = tmp_path / "base.csv"
    base.write_text("file,view\n" + "".join(f"{file},\n" for file in "abcdf"))
    reader = labels(tmp_path, "1.csv", FIRST)
    with pytest.raises(ManifestError) as found:
        run(reader, reader, "--manifest", base, "--out", base)
    assert found.value.problems == (
        "e is in no line of the manifest",
        "f has no label of any reader",
    )
