"""On what, when and with what it was measured."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from service.inference import usable_cpus

ROOT = Path(__file__).parent.parent
PACKAGES = ("imagecodecs", "numpy", "onnxruntime", "pillow", "pydicom", "uvicorn")


def machine() -> dict[str, Any]:
    """The processor, its cores, the memory and the packages that decide."""
    return {
        "processor": _processor(),
        "cores": usable_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def moment() -> dict[str, Any]:
    """The date and the commit, with + where files differ from it, other than the results."""
    changed = _git("status", "-s", "--", ".", ":!benchmarks/results")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if changed else ""),
    }


def _processor() -> str:
    """With its family and model, where clouds call several generations by the same name."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {line[0].strip(): line[-1].strip() for line in lines}
    if "model name" not in found:
        return platform.processor()
    kinds = [kind for kind in ("cpu family", "model") if kind in found]
    generation = ", ".join(f"{kind.removeprefix('cpu ')} {found[kind]}" for kind in kinds)
    return f"{found['model name']} ({generation})" if kinds else found["model name"]


def _git(*words: str) -> str:
    git = shutil.which("git") or "git"
    ran = subprocess.run([git, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()
