"""Data for a study in miniature: two sources of pictures, weights, photographs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from images import png, radiograph

from training.networks.googlenet import GoogLeNet
from training.study.config import Study, read_study

PATIENTS = 12  # of each view and source, with two images each
SMOKE = Path(__file__).parent.parent / "training/study/configs/smoke.toml"


def build(folder: Path) -> list[str]:
    """Write everything into `folder`; returns the --set options that name it.

    'Frontals' are the synthetic thorax, 'laterals' a half of it.
    """
    rows = [
        row
        for number, source in enumerate(("one", "two"))
        for patient in range(PATIENTS)
        for row in _images(folder / "images", source, patient, seed=100 * number + patient)
    ]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "view", "patient_id", "source", "licence", "source_repo"))
        writer.writerows(rows)
    torch.manual_seed(0)
    state = GoogLeNet().state_dict()
    arrays = {name: value.numpy() for name, value in state.items() if "aux" not in name}
    np.savez(folder / "weights.npz", **arrays)
    photographs(folder / "photographs")
    (folder / "subset.txt").write_text("class0\nclass1\n")
    return changes(folder)


def changes(folder: Path) -> list[str]:
    """The --set values of a folder that `build` made."""
    return [
        f"data.manifest={folder / 'manifest.csv'}",
        f"data.images={folder / 'images'}",
        f"data.weights={folder / 'weights.npz'}",
        f"data.photographs={folder / 'photographs'}",
        f"data.subset_classes={folder / 'subset.txt'}",
    ]


def smoke(folder: Path, *more: str) -> Study:
    """The smoke study on this folder's data."""
    return read_study(SMOKE, [*changes(folder), *more])


def photographs(folder: Path, each: int = 40) -> None:
    """Three classes of noise, brighter and brighter."""
    random = np.random.default_rng(0)
    for number in range(3):
        own = folder / f"class{number}"
        own.mkdir(parents=True, exist_ok=True)
        for photo in range(each):
            pixels = random.integers(0, 80 * (number + 1), (70, 66)).astype(np.uint8)
            (own / f"{photo}.png").write_bytes(png(pixels))


def _images(folder: Path, source: str, patient: int, seed: int) -> list[tuple[str, ...]]:
    folder.mkdir(exist_ok=True)
    picture = radiograph(100, 96, bits=8, seed=seed).astype(np.uint8)
    rows = []
    for view, pixels in (("frontal", picture), ("lateral", picture[:, :48])):
        for take in range(2):
            name = f"{source}-{view}-{patient}-{take}.png"
            moved = np.ascontiguousarray(np.roll(pixels, 5 * take, axis=0))
            (folder / name).write_bytes(png(moved))
            rows.append((name, view, f"{source}-{view}-{patient}", source, "CC0", "here"))
    return rows
