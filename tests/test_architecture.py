"""Which package imports which, what is loaded where, and how long a module is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

OWN = ("model_store", "cxrview", "service", "training")
# Each imports from itself and from those before it, and from nothing else of ours
LAYERS = (
    "model_store",
    "service.imaging",
    "service.inference",
    "service.uploads",
    "cxrview",
    "service.database",
    "service.backfill",
    "service.dicom",
    "service.ui",
    "service.api",
    "service.cli",
)
TRAINING_LAYERS = (
    "model_store",
    "service.imaging",
    "service.inference",
    "training.networks",
    "training.data",
    "training.augmentation",
    "training.evaluate",
    "training.train",
    "training.export",
    "training.study",
    "training.commands",
    "training.__main__",
)

# Besides the standard library; what is not listed does not belong into this package
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
    "service.database": {"service.database", "sqlalchemy", "alembic"},
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
            found |= {submodule(f"{node.module}.{alias.name}") for alias in node.names}
    return found


def submodule(name: str) -> str:
    """The module itself, or the one that a name is imported from."""
    is_module = (ROOT / name.replace(".", "/")).is_dir() or (
        ROOT / f"{name.replace('.', '/')}.py"
    ).is_file()
    return name if is_module else name.rpartition(".")[0]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def upward(name: str, path: Path, layers: tuple[str, ...]) -> list[str]:
    """What a module imports from packages that are not below its own."""

    def number(module: str) -> int:
        return next((n for n, layer in enumerate(layers) if within(module, layer)), len(layers))

    own = {module for module in imports_of(path) if within(module, *OWN)} - {"service"}
    return [module for module in own if number(module) > number(name)]


ALL = list(modules())


@pytest.mark.parametrize(("name", "path"), ALL, ids=str)
def test_a_package_imports_what_lies_below_it(name: str, path: Path) -> None:
    """In the order of its layers; the service knows nothing of training."""
    assert not upward(name, path, TRAINING_LAYERS if within(name, "training") else LAYERS)


@pytest.mark.parametrize(("name", "path"), ALL, ids=str)
def test_the_lower_packages_need_few_libraries(name: str, path: Path) -> None:
    """What reads and runs images must stay small: it is loaded in every process."""
    for package, allowed in MAY_IMPORT.items():
        if within(name, package):
            assert not {
                module
                for module in imports_of(path)
                if module.split(".")[0] not in sys.stdlib_module_names
                and not within(module, *allowed)
            }
    if within(name, "service.imaging", "service.inference") and name != "service.inference.batcher":
        assert "asyncio" not in imports_of(path)


def test_no_modules_import_each_other() -> None:
    """Neither directly nor in a circle, not even for types."""
    names = {name for name, _ in ALL}
    graph = {
        name: {module for module in imports_of(path) if module in names - {name}}
        for name, path in ALL
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {error.args[1]}")


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
    assert not loaded_by(module, "minio", "pyarrow")


@pytest.mark.parametrize("module", ["service.api.app", "service.cli"])
def test_only_dicom_loads_what_its_network_and_reports_need(module: str) -> None:
    """A service that answers HTTP starts without the `dicom` extra."""
    assert not loaded_by(module, "pynetdicom", "highdicom", "fhir")


def test_a_backfill_needs_no_web_framework() -> None:
    """Sources share the checks of uploads, not their server."""
    assert not loaded_by("service.backfill.sources", "fastapi", "starlette", "uvicorn")


def test_a_decode_worker_loads_what_decodes_only() -> None:
    """Each is a process of its own: it must stay small, and has nothing else to be attacked."""
    module = "service.inference.fork_server"
    assert not loaded_by(module, "onnxruntime", "fastapi", "asyncio", "service.api", "pyarrow")


def test_publishing_never_loads_the_web(tmp_path: Path) -> None:
    """Training needs none of it."""
    assert not loaded_by(
        "training.export.publish", "fastapi", "uvicorn", "starlette", "service.api"
    )


def test_calibration_never_loads_torch() -> None:
    """A site calibrates where the service runs, and torch is many times the size of the service."""
    assert not loaded_by("training.export.recalibrate", "torch", "onnx", "fastapi")


@pytest.mark.parametrize("module", ["service.cli", "training.export.publish"])
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


@pytest.mark.parametrize(("name", "path"), ALL, ids=str)
def test_a_module_is_a_few_pages_at_most(name: str, path: Path) -> None:
    """Beyond 320 lines a module has two subjects."""
    assert len(path.read_text().splitlines()) <= 320
