"""The gallery shows every wrong answer, and nothing else."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from heads import SIZE, Mark, marked
from images import png
from PIL import Image

from model_store import Store
from training.__main__ import main
from training.export.gallery import FRONTAL, LATERAL, overlaid, write_gallery


def manifest(folder: Path, lines: Sequence[tuple[str, str, tuple[Mark, ...], str]]) -> Path:
    """Images made of two bundled radiographs: (name, view, marks, upright)."""
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "view", "patient_id", "source", "upright"))
        for number, (name, view, marks, upright) in enumerate(lines):
            bundled = DATA / ("lateral-0010.jpg" if "lateral" in name else "frontal-0003.jpg")
            pixels = np.asarray(Image.open(bundled).convert("L").resize((SIZE, SIZE)))
            pixels = np.roll(pixels, number, axis=0)  # no image occurs twice
            (folder / name).write_bytes(png(marked(pixels, *marks)))
            writer.writerow((name, view, name, "bundled", upright))
    return folder / "manifest.csv"


def test_each_head_has_its_section(headed_store: Path, tmp_path: Path) -> None:
    """A right answer is not shown; orientation is judged where the image is known to be upright."""
    path = manifest(
        tmp_path,
        [
            ("frontal-right.png", "frontal", (), ""),
            ("lateral-right.png", "lateral", (), ""),
            ("frontal-hand.png", "not_chest", ("no_chest",), ""),
            ("frontal-lost.png", "frontal", ("no_chest",), ""),
            ("frontal-let-in.png", "not_chest", (), ""),
            ("frontal-mislabelled.png", "lateral", (), ""),
            ("frontal-lying.png", "frontal", ("turn_90", "inverted", "mirrored"), "no"),
            ("frontal-turned.png", "frontal", ("turn_90",), ""),
            ("frontal-negative.png", "frontal", ("inverted",), ""),
            ("frontal-swapped.png", "frontal", ("mirrored",), "yes"),
        ],
    )
    version = Store(headed_store).load("swift/2.0.0")
    counts = write_gallery(version, path, tmp_path, tmp_path / "gallery.html")
    assert counts == dict.fromkeys(
        (
            "called a chest radiograph",
            "called frontal",
            "called inverted",
            "called mirrored",
            "called no chest radiograph",
            "called turned",
        ),
        1,
    )
    text = (tmp_path / "gallery.html").read_text()
    named = re.findall(r"(frontal-\S+|lateral-\S+)</figcaption>", text)
    assert sorted(named) == sorted(
        f"frontal-{name}.png"
        for name in ("let-in", "mislabelled", "negative", "swapped", "lost", "turned")
    )
    assert text.count("the image with the evidence in colour") == len(named)


def test_a_model_with_one_head_has_views_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no map of evidence."""
    path = manifest(
        tmp_path,
        [
            ("frontal-a.png", "frontal", (), ""),
            ("frontal-b.png", "lateral", (), ""),
            ("lateral-a.png", "lateral", (), ""),
        ],
    )
    command = ["gallery", "swift/1.1.0", "--manifest", str(path), "--images", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path / "gallery.html")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1 called frontal"
    text = (tmp_path / "gallery.html").read_text()
    assert text.count("<figure>") == 1
    assert "evidence in colour" not in text


def test_evidence_is_coloured_where_it_speaks() -> None:
    """Strong evidence for frontal in its colour, for lateral in the other; none leaves the grey."""
    picture = np.full((64, 64), 100, dtype=np.uint8)
    evidence = np.zeros((8, 8), dtype=np.float32)
    assert (overlaid(picture, evidence) == 100).all()
    evidence[:, :3], evidence[:, 5:] = 50, -50
    found = overlaid(picture, evidence).astype(float)
    for place, colour in ((0, FRONTAL), (63, LATERAL)):
        expected = 0.4 * 100 + 0.6 * np.array(colour)
        np.testing.assert_allclose(found[32, place], expected, atol=1)
