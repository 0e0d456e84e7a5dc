"""What the images are made of; that they are built and answer is for deploy/image.sh."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_hadolint_has_nothing_to_say() -> None:
    """Of good practice with Dockerfiles."""
    hadolint = Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, ROOT / "Dockerfile"], check=True)


def test_both_images_exist_and_run_without_root() -> None:
    """The targets, and a user that is a number, which Kubernetes can compare with 0."""
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert {"cpu", "gpu", "backfill", "dicom", "ray"} <= set(targets)
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_all_that_is_copied_is_let_through() -> None:
    """.dockerignore names what an image is made of, and nothing else."""
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert {name for names in copied for name in names.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_versions_for_a_gpu_are_beside_the_others() -> None:
    """No package is pinned twice; PyTorch chooses its own of NVIDIA's, but not its binding."""
    gpu, others = pins("constraints-gpu.txt"), pins("constraints.txt")
    assert not gpu.keys() & others.keys()
    assert not any(name.startswith("nvidia") for name in others.keys() - {"nvidia-ml-py"})
    assert "onnxruntime-gpu" in gpu


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    """Before anything is built."""
    run = subprocess.run(
        [ROOT / "deploy/image.sh", tmp_path / "folder", "tpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (2, "no target tpu: cpu, gpu, backfill, dicom or ray\n")
    assert not (tmp_path / "folder").exists()
