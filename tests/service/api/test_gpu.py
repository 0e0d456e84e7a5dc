"""The GPU's metrics, read by NVIDIA's own binding from a library that stands for the driver's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from conftest import ROOT

# What the binding calls, as <nvml.h> declares it. Handles are the numbers of the devices plus one;
# the device that is called MIG-1 is a part of one, which knows no utilisation
LIBRARY = """
#include <string.h>
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInitWithFlags(unsigned int flags) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = (void *)(index + 1UL);
    return index < 2 ? 0 : 2;  /* invalid argument */
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = (void *)(strcmp(uuid, "MIG-1") ? 2UL : 3UL);
    return strcmp(uuid, "GPU-none") ? 0 : 6;  /* not found */
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
    rates->gpu = 25 * (unsigned long)device;
    return device == (void *)3UL ? 3 : 0;  /* not supported */
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = 80000, memory->used = 1000 * (unsigned long)device;
    return 0;
}
const char *nvmlErrorString(int code) { return "failed"; }
"""
PROGRAM = """
import sys
from prometheus_client import generate_latest
from service.api.gpu import GPU
GPU.watch(sys.argv[1])
print("pynvml" in sys.modules)
print(generate_latest().decode())
"""


def scraped(provider: str, **environment: str) -> tuple[bool, dict[str, float]]:
    """Whether NVIDIA's binding was imported, and the GPU's series, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, provider],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment,
    )
    assert not run.stderr
    series = re.findall(r"^(cxrview_gpu\S+) (\S+)$", run.stdout, re.MULTILINE)
    return run.stdout.startswith("True"), {name: float(value) for name, value in series}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a driver of two GPUs."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(needs.COMPILER)
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(LIBRARY)
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "nvml.c")]
    subprocess.run(command, check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize(
    ("visible", "number"), [("", 1), ("1", 2), ("1,0", 2), ("GPU-5ca1ab1e", 2)]
)
def test_the_first_gpu_that_the_process_may_use(
    driver: dict[str, str], visible: str, number: int
) -> None:
    """Its utilisation within 0..1, and its memory in bytes."""
    _, series = scraped("cuda", CUDA_VISIBLE_DEVICES=visible, **driver)
    assert series == {
        "cxrview_gpu_utilization_ratio": 0.25 * number,
        'cxrview_gpu_memory_bytes{kind="used"}': 1000 * number,
        'cxrview_gpu_memory_bytes{kind="total"}': 80000,
    }


def test_what_a_gpu_does_not_know_is_absent(driver: dict[str, str]) -> None:
    """A slice of a GPU has memory, but no utilisation of its own; the scrape goes on."""
    _, series = scraped("tensorrt", CUDA_VISIBLE_DEVICES="MIG-1", **driver)
    assert {name.split("{")[0] for name in series} == {"cxrview_gpu_memory_bytes"}


@pytest.mark.parametrize("visible", ["7", "GPU-none"])
def test_no_such_gpu_is_no_error(driver: dict[str, str], visible: str) -> None:
    """No series, and the scrape goes on."""
    assert scraped("cuda", CUDA_VISIBLE_DEVICES=visible, **driver) == (True, {})


def test_no_driver_is_no_error(tmp_path: Path) -> None:
    """Where NVML is missing or is no library, there are no series."""
    (tmp_path / "libnvidia-ml.so.1").write_text("")
    assert scraped("cuda", LD_LIBRARY_PATH=str(tmp_path)) == (True, {})


def test_no_binding_is_no_error(driver: dict[str, str], tmp_path: Path) -> None:
    """Nor where NVIDIA's binding cannot be imported."""
    (tmp_path / "pynvml.py").write_text("raise ImportError")
    assert scraped("cuda", PYTHONPATH=f"{tmp_path}:{ROOT}", **driver) == (False, {})


def test_a_cpu_asks_for_no_driver(driver: dict[str, str]) -> None:
    """The binding is not even imported."""
    assert scraped("cpu", **driver) == (False, {})
