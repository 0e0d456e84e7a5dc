"""What the machine has, that ONNX Runtime reaches the GPU, and that no start goes on without it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime
import psutil
import torch

from gpu_stages.plan import Plan
from gpu_stages.record import Found, Record
from gpu_stages.sessions import opened, version_in
from service.inference import usable_cpus

PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "triton")
START_SECONDS = 60


def run(plan: Plan, record: Record, data: Path | None) -> None:
    """Three parts, in the order in which they are needed."""
    record.part("machine", lambda: _machine(plan))
    record.part("network", lambda: _network(plan, data))
    for name in HIDDEN:
        record.part(f"start {name}", partial(_refused, name))


def _machine(plan: Plan) -> Found:
    return {
        "device": plan.device,
        "accelerators": [
            str(torch.cuda.get_device_properties(number))
            for number in range(torch.cuda.device_count())
        ],
        "driver": _driver(),
        "cores": usable_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "cuda_of_torch": torch.version.cuda,
        "packages": {name: _version(name) for name in PACKAGES},
        "providers": onnxruntime.get_available_providers(),
        "onnxruntime_from": str(Path(onnxruntime.__file__).parent),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    file = Path("/proc/driver/nvidia/version")
    if file.exists():
        return file.read_text().splitlines()[0]
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:  # no driver
        return None


def _network(plan: Plan, data: Path | None) -> Found:
    """The first answer of each model, on the device."""
    del data
    found = {}
    for model in plan.models:
        network = opened(version_in(model, "fp32"), plan.device, {})
        network.replay_probe()
        found[model] = network.provider
    return found


def _without_device(folder: Path) -> dict[str, str]:
    del folder
    return {"CUDA_VISIBLE_DEVICES": "-1"}


def _without_libraries(folder: Path) -> dict[str, str]:
    """ONNX Runtime looks for them beside itself, and where LD_LIBRARY_PATH says."""
    (folder / "onnxruntime").symlink_to(Path(onnxruntime.__file__).parent)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {"LD_LIBRARY_PATH": "", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


HIDDEN = {"without a device": _without_device, "without libraries": _without_libraries}


def _refused(name: str) -> Found:
    """Start the service for a GPU that it cannot use: it must end and say why.

    Raises:
        RuntimeError: It started, or ended without a reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        changes = HIDDEN[name](Path(folder)) | {"CXRVIEW_PROVIDER": "cuda"}
        ran = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", "--port", "0"],
            env=os.environ | changes,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    said = [line for line in ran.stderr.splitlines() if "CUDAExecutionProvider" in line]
    if not ran.returncode or not said:
        raise RuntimeError(f"it ended with {ran.returncode} and said {ran.stderr[-300:]}")
    return {"exit": ran.returncode, "said": said[-1][:300]}
