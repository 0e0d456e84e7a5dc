"""Records of a study: the flow of its images, its data's hashes, its environment, its speed."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from hashlib import file_digest, sha256
from importlib.metadata import version as version_of
from pathlib import Path

import torch

from training.augmentation.augmented_views import CHILDREN
from training.data.manifest import Part, Row
from training.data.readers import Agreement
from training.study.assess import Tested
from training.study.candidates import Trained
from training.study.config import Study
from training.study.data import Radiographs
from training.study.results import FlowStep, Speed
from training.train import processes

PACKAGES = ("cxrview", "torch", "onnx", "onnxruntime", "numpy", "pillow", "scikit-learn", "scipy")
PARTS: tuple[Part, ...] = ("train", "validation", "test")


def flow(study: Study, radiographs: Radiographs) -> list[FlowStep]:
    """Each step's images, and those that the manifest's preparation left out."""
    rows, excluded = radiographs.rows, _excluded(study.data.exclusions)
    whole = _step("read", rows)
    listed = FlowStep(name="listed", images=len(rows) + sum(excluded.values()))
    steps = [listed, whole.model_copy(update={"excluded": excluded})]
    steps += [_step(part, radiographs.rows_at(radiographs.of(part))) for part in PARTS]
    made: dict[Part, int] = {"train": len(CHILDREN), "validation": study.finetune.children}
    for part, each in made.items():
        images = len(radiographs.of(part)) * each
        steps.append(FlowStep(name=f"{part} with children", images=images))
    return steps


def _excluded(exclusions: Path | None) -> dict[str, int]:
    if exclusions is None:
        return {}
    with exclusions.open(newline="", encoding="utf-8") as file:
        return dict(Counter(record["reason"] for record in csv.DictReader(file)))


def _step(name: str, rows: Sequence[Row]) -> FlowStep:
    return FlowStep(
        name=name,
        images=len(rows),
        patients=len({row.patient_id for row in rows}),
        frontal=sum(row.view == "frontal" for row in rows),
        lateral=sum(row.view == "lateral" for row in rows),
    )


def agreement(study: Study) -> str | None:
    """How far two readers of the views agreed, in words; None where there was one."""
    if study.data.agreement is None:
        return None
    found = Agreement(**json.loads(study.data.agreement.read_text(encoding="utf-8")))
    kappa = "not defined" if found.kappa is None else f"{found.kappa:.4f}"
    return (
        f"Cohen's kappa {kappa} (n = {found.n}); the readers agreed on {found.agreement:.2%}, "
        f"and {found.conflicts} conflicts were adjudicated"
    )


def hashes(study: Study, radiographs: Radiographs) -> dict[str, str]:
    """SHA-256 of every file the study read; of a folder of radiographs, of all tensors."""
    found = {}
    for name, path in study.data:
        if isinstance(path, Path) and path.is_file():
            with path.open("rb") as file:
                found[f"{name}: {path.name}"] = file_digest(file, "sha256").hexdigest()
    found["tensors"] = sha256(radiographs.images.tensors.tobytes()).hexdigest()
    return found


def environment() -> dict[str, str]:
    """What the study ran on."""
    device = processes.pick_device()
    cuda = {"GPU": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU cores": str(len(os.sched_getaffinity(0))),
        **cuda,
        "processes": str(processes.count()),
        **{package: version_of(package) for package in PACKAGES},
    }


def speed(trained: Sequence[Trained], tested: Tested) -> Speed:
    """The slowest candidate of all layers; the test's ONNX Runtime."""
    deep = [each for each in trained if each.found.method == "all-augmented"]
    return Speed(
        training_images_per_second=min((e.found.images_per_second for e in deep), default=0.0),
        loading_share=max((each.loading_share for each in deep), default=0.0),
        test_images_per_second=tested.images_per_second,
        device=processes.pick_device().type,
        world_size=processes.count(),
    )
