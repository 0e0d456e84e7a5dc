"""The rooms of the house: who may import whom, and how large they are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

OWN = ("model_store", "service", "training")
CORE = ("service.imaging", "service.inference")
SHELL = ("service.api", "service.cli")

# Besides the standard library; what is not listed here is not for this room
MAY_IMPORT = {
    "model_store": {"model_store", "pydantic"},
    "service.imaging": {
        "model_store", "service.imaging", "numpy", "PIL", "pydicom", "imagecodecs",
    },
    "service.inference": {
        "model_store", "service.imaging", "service.inference", "numpy", "onnxruntime", "pydantic",
    },
    "service.uploads": {
        "model_store", "service.imaging", "service.inference", "service.uploads",
        "python_multipart",
    },
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    for package in OWN:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def within(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=str)
def test_a_module_imports_only_what_its_room_may(name: str, path: Path) -> None:
    """model_store knows nobody; the core knows it; the shell knows both; nobody knows training."""
    for room, allowed in MAY_IMPORT.items():
        if within(name, room):
            foreign = {
                module
                for module in imports_of(path)
                if module.split(".")[0] not in sys.stdlib_module_names
                and not within(module, *allowed)
            }
            assert not foreign
    if not within(name, "training"):
        assert not [module for module in imports_of(path) if within(module, "training", "torch")]
    else:
        assert not [module for module in imports_of(path) if within(module, *SHELL)]
    if within(name, *CORE) and name != "service.inference.batcher":
        assert "asyncio" not in imports_of(path)


def loaded_by(module: str, *watched: str) -> list[str]:
    program = f"import sys, {module}; print(*[m for m in {watched!r} if m in sys.modules], end='')"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return run.stdout.split()


@pytest.mark.parametrize("module", ["service.api.app", "service.cli"])
def test_the_service_never_loads_torch(module: str) -> None:
    """What runs in production needs no training package."""
    assert not loaded_by(module, "torch", "training", "sklearn", "scipy", "onnx")


@pytest.mark.parametrize("module", ["service.api.app", "service.cli", "service.backfill.sources"])
def test_only_a_backfill_loads_what_its_sources_need(module: str) -> None:
    """A service starts without the `backfill` extra, and each source loads its own part of it."""
    assert not loaded_by(module, "minio", "httpx2", "pyarrow")


def test_a_backfill_needs_no_web_framework() -> None:
    """Sources share the checks of uploads, not their server."""
    assert not loaded_by("service.backfill.sources", "fastapi", "starlette", "uvicorn")


def test_a_decode_worker_loads_what_decodes_only() -> None:
    """Each is a process of its own: it must stay small, and has nothing else to be attacked."""
    module = "service.inference.fork_server"
    assert not loaded_by(module, "onnxruntime", "fastapi", "asyncio", "service.api", "pyarrow")


def test_publishing_never_loads_the_web(tmp_path: Path) -> None:
    """Training stands on the core alone."""
    assert not loaded_by("training.publish", "fastapi", "uvicorn", "starlette", "service.api")


@pytest.mark.parametrize("module", ["service.cli", "training.publish"])
def test_nothing_is_left_in_a_home(module: str, tmp_path: Path) -> None:
    """ONNX Runtime would keep a database of its uses there, with an identifier of the machine."""
    uses = "onnxruntime.InferenceSession('model_store/swift/1.0.0/model.onnx')"

    def left_by(first: str) -> list[Path]:
        home = tmp_path / first
        home.mkdir()
        program = f"import {first}, onnxruntime; {uses}"
        environment = {"HOME": str(home), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, cwd=ROOT)
        return [path for path in home.rglob("*") if path.is_file()]

    assert left_by("sys")
    assert not left_by(module)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=str)
def test_a_module_is_a_few_pages_at_most(name: str, path: Path) -> None:
    """Beyond 320 lines a module has two subjects."""
    assert len(path.read_text().splitlines()) <= 320
