"""A training run at its full length, or for as long as time is left: the same call goes on."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gpu_stages.plan import Plan
from gpu_stages.record import Found, Record

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from images import png, radiograph  # lies beside the tests, as above

STOP_SECONDS = 40  # for the step that runs, and the checkpoint
DEADLINE = "GPU_BENCHMARK_DEADLINE"  # by time.time(); set by the process that starts this one


def run(plan: Plan, record: Record, data: Path | None) -> None:
    """One part, which is measured again until it is finished."""
    part = record.parts.get("fit", {})
    if not part.get("finished"):
        record.parts.pop("fit", None)
    record.part("fit", lambda: _fit(plan, record.path.parent, data))


def _fit(plan: Plan, folder: Path, data: Path | None) -> Found:
    """Start or resume; at the deadline, Ctrl-C, which writes a checkpoint.

    Raises:
        RuntimeError: Training ended with an error.
    """
    source = data or made_data(folder / "made", plan)
    out = folder / "run"
    words = [sys.executable, "-m", "training", "fit", str(out)]
    words += ["--manifest", str(source / "manifest.csv"), "--images", str(_images(source))]
    if (source / "weights.npz").exists():
        words += ["--weights", str(source / "weights.npz")]
    seconds = float(os.environ[DEADLINE]) - time.time() - STOP_SECONDS
    with (folder / "fit.log").open("ab") as said:
        process = subprocess.Popen([*words, *plan.fit_words], stdout=said, stderr=said)
        try:
            code = process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            code = process.wait(STOP_SECONDS)
    if code not in {0, 130}:
        raise RuntimeError(f"it ended with {code}: {_end(folder / 'fit.log')}")
    return {"finished": code == 0, "data": "brought" if data else "made", **_progress(out)}


def _images(source: Path) -> Path:
    packed = source / "images.zip"
    return packed if packed.exists() else source / "images"


def _end(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-300:]


def _progress(out: Path) -> Found:
    """The last line of the run's log: step, losses and the loader's share."""
    log = out / "log.csv"
    if not log.exists():
        return {"step": 0}
    rows = list(csv.reader(log.open(newline="")))
    step, loss, validation, loading = rows[-1]
    best = min(float(row[2]) for row in rows)
    return {
        "step": int(step),
        "training_loss": float(loss),
        "validation_loss": float(validation),
        "best_validation_loss": best,
        "loading_share": float(loading),
        "checkpoint_mb": round((out / "checkpoint.pt").stat().st_size / 1e6),
    }


def made_data(folder: Path, plan: Plan) -> Path:
    """A manifest of made pictures, for machines to which no radiographs may travel."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = [("file", "view", "patient_id", "source", "licence", "source_repo")]
    side = plan.made_side
    for patient in range(plan.made_patients):
        whole = radiograph(side, side, bits=8, seed=patient).astype(np.uint8)
        for view, pixels in (("frontal", whole), ("lateral", whole[:, : side // 2])):
            name = f"{view}-{patient}.png"
            (images / name).write_bytes(png(np.ascontiguousarray(pixels)))
            rows.append((name, view, f"{view}-{patient}", "made", "CC0", "made"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder
