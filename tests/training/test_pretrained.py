"""The published weights of GoogLeNet become the file that training starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.__main__ import main
from training.networks import pretrained


def published(folder: Path, values: np.ndarray) -> dict[str, np.ndarray]:
    """Write files as they are published, and return what they hold."""
    arrays = {}
    for name, shape in pretrained.shapes().items():
        path = folder / pretrained.file_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays[name] = values[: np.prod(shape)].reshape(shape)
        path.write_bytes(arrays[name].tobytes())
    return arrays


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(1_024_000).astype("<f4")


def test_other_values_are_refused(
    tmp_path: Path, values: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written from files of the right sizes that hold something else."""
    published(tmp_path / "files", values)
    assert main(["weights", str(tmp_path / "files"), str(tmp_path / "out.npz")]) == 1
    assert "does not hold the published weights" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_a_file_that_is_cut_is_named(
    tmp_path: Path, values: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has its name and both sizes."""
    published(tmp_path, values)
    (tmp_path / "conv2/3x3_bias.bin").write_bytes(bytes(400))
    assert main(["weights", str(tmp_path), str(tmp_path / "out.npz")]) == 1
    assert "conv2/3x3_bias.bin has 100 values, not 192" in capsys.readouterr().err


def test_the_published_weights_are_taken(tmp_path: Path, shared: Path) -> None:
    """Written layer by layer, and converted, they are the array they were."""
    with np.load(shared / "data/weights/bvlc_googlenet.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert {name: array.shape for name, array in arrays.items()} == pretrained.shapes()
    for name, array in arrays.items():
        path = tmp_path / pretrained.file_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(array.tobytes())
    assert main(["weights", str(tmp_path), str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as file:
        assert {name: file[name].tobytes() for name in file.files} == {
            name: array.tobytes() for name, array in arrays.items()
        }
