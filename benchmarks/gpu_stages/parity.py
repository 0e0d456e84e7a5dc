"""Whether the device answers as the CPU does."""

from __future__ import annotations

import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpu_stages.plan import Plan
from gpu_stages.record import Found, Record
from gpu_stages.sessions import FORMS, Form, opened, version_in
from model_store import PreprocessSpec
from service.imaging import image_to_tensor
from service.inference import Network, Provider

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from images import png, radiograph  # lies beside the tests, as above

DATA = Path(__file__).parents[2] / "tests" / "data"
MOST_AT_ONCE = 16  # images; also an odd rest, as batches of a service have
LIMITS: dict[Form, float] = {"fp32": 1e-3, "fp16": 5e-3}  # of |PFI difference|


def run(plan: Plan, record: Record, data: Path | None) -> None:
    """By model: the CPU's answers, then each provider and form against them."""
    del data
    for model in plan.models:
        tensors = images(version_in(model, "fp32").card.preprocess, plan.made_images)
        known = _pfi(opened(version_in(model, "fp32"), "cpu", {}), tensors)
        for provider, form in product(plan.providers, FORMS):
            compare = partial(_compared, model, provider, form, tensors, known)
            record.part(f"{model}, {provider}, {form}", compare)


def images(spec: PreprocessSpec, made: int) -> npt.NDArray[np.uint8]:
    """(N, 1, S, S): the bundled radiographs, then made ones, every second of them half hidden."""
    files = [path for path in sorted(DATA.iterdir()) if path.suffix != ".md"]
    bodies = [path.read_bytes() for path in files]
    for seed in range(made):
        picture = radiograph(320, 280, bits=12, seed=seed) * 16
        bodies.append(png(np.ascontiguousarray(picture[:, : 140 if seed % 2 else 280])))
    return np.stack([image_to_tensor(body, spec) for body in bodies])


def _pfi(network: Network, tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    starts = range(0, len(tensors), MOST_AT_ONCE)
    return np.concatenate([network.pfi(tensors[at : at + MOST_AT_ONCE]) for at in starts])


def _compared(
    model: str,
    provider: Provider,
    form: Form,
    tensors: npt.NDArray[np.uint8],
    known: npt.NDArray[np.float32],
) -> Found:
    version = version_in(model, form)
    found = _pfi(opened(version, provider, {}), tensors)
    cutoff = version.card.threshold
    most = float(np.abs(found - known).max())
    changed = int(((found >= cutoff) != (known >= cutoff)).sum())
    return {
        "images": len(tensors),
        "max_pfi_difference": most,
        "limit": LIMITS[form],
        "views_changed": changed,
        "met": most <= LIMITS[form] and not changed,  # also False of NaN
    }
