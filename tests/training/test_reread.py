"""A published model behind another preprocessing."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest
from images import png, radiograph
from surroundings import on_plate

from model_store import Store
from service.inference import open_network
from training.export.reread import add_command

MODEL = "swift/1.0.0"


def reread(folder: Path, store: Path, *words: str) -> None:
    """The command, as `python -m training` runs it."""
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    given = ["reread", MODEL, "--manifest", str(folder / "manifest.csv"), "--images", str(folder)]
    options = parser.parse_args([*given, "--version", "1.9.0", "--store", str(store), *words])
    options.command_line = "python -m training reread"
    options.run_command(options)


def labelled(folder: Path, pictures: list[np.ndarray]) -> None:
    """A folder of images with their manifest."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("file", "view", "patient_id", "source"))
        writer.writeheader()
        for number, pixels in enumerate(pictures):
            (folder / f"{number}.png").write_bytes(png(pixels << 4))
            view = ("frontal", "lateral")[number % 2]
            row = {"file": f"{number}.png", "view": view, "patient_id": str(number)}
            writer.writerow(row | {"source": "made"})


def test_weights_and_cutoffs_stay(tmp_path, capsys):
    """The new version serves, says what it comes from, and on which images nothing changed."""
    labelled(tmp_path, [radiograph(300, 260, seed=seed) for seed in range(3)])
    reread(tmp_path, tmp_path / "store", "--preprocess", "2")
    old, new = Store().load(MODEL), Store(tmp_path / "store").load("swift/1.9.0")
    assert (new.model, new.probe) == (old.model, old.probe)
    open_network(new)  # replays the probe
    changed = {"version", "created", "preprocess", "limitations", "derived_from", "publish_command"}
    same = old.card.model_dump(exclude=changed | {"probe_pfi"})
    assert new.card.model_dump(exclude=changed | {"probe_pfi"}) == same
    assert (old.card.preprocess.version, new.card.preprocess.version) == (1, 2)
    assert new.card.derived_from == MODEL
    assert new.card.limitations[:-1] == old.card.limitations
    assert "no answer to 3 ordinary radiographs of made changed" in new.card.limitations[-1]
    assert "answers that change: 0" in capsys.readouterr().out


def test_other_answers_are_another_model(tmp_path):
    """Nothing is published where a PFI moves, and the images are named."""
    labelled(tmp_path, [radiograph(300, 260), on_plate(radiograph(300, 260), 3, 0)])
    with pytest.raises(ValueError, match=r"not the same\n2 images of made(.|\n)*1\.png"):
        reread(tmp_path, tmp_path / "store", "--preprocess", "2")
    assert not (tmp_path / "store").exists()
