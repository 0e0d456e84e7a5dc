"""Parts of the measurement on a GPU: records, costs, the page, and what travels."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

from training.networks.googlenet import GoogLeNet
from training.networks.swift import Swift

sys.path.insert(0, str(ROOT / "benchmarks"))
import carry
import gpu_page
from gpu_stages.costs import cost_of
from gpu_stages.record import FAILED, Found, Record
from gpu_stages.sessions import version_in


def broken() -> Found:
    raise RuntimeError("no\nGPU")


def test_a_part_that_fails_is_kept_with_its_reason(tmp_path: Path) -> None:
    """The next part runs, and neither is measured twice."""
    record = Record(tmp_path, "stage")
    assert record.part("one", broken)[FAILED] == "RuntimeError: no GPU"
    assert record.part("two", lambda: {"value": 2})["value"] == 2
    again = Record(tmp_path, "stage")
    assert again.part("one", lambda: {"value": 1})[FAILED]
    assert again.part("two", broken)["value"] == 2


def test_a_part_that_ended_the_process_is_not_tried_again(tmp_path: Path) -> None:
    """It was begun and has no result; after a time limit it is measured again."""
    record = Record(tmp_path, "stage")
    with pytest.raises(SystemExit):
        record.part("crash", sys.exit)
    again = Record(tmp_path, "stage")
    assert again.part("crash", lambda: {"value": 1})[FAILED] == "it ended the process"
    again.out_of_time()
    assert again.part("crash", lambda: {"value": 1})["value"] == 1


@pytest.mark.parametrize(
    ("model", "network", "side"),
    [("googlenet/1.1.0", GoogLeNet(), 256), ("swift/1.1.0", Swift(), 128)],
    ids=["googlenet", "swift"],
)
def test_operations_are_those_that_torch_counts(
    model: str, network: torch.nn.Module, side: int
) -> None:
    """For both forms; half precision moves about half of the bytes."""
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network.eval()(torch.zeros(2, 1, side, side))
    full, half = (cost_of(version_in(model, form).model, 2) for form in ("fp32", "fp16"))
    assert full.operations == half.operations == counted.get_total_flops()
    assert half.moved_bytes == pytest.approx(full.moved_bytes / 2, rel=0.1)


def test_the_page_follows_from_the_results() -> None:
    """`python benchmarks/gpu_page.py` would change nothing."""
    assert gpu_page.document(gpu_page.read()) == gpu_page.PAGE.read_text()


def test_without_results_every_goal_is_not_measured() -> None:
    """No section is left out, and no goal is met."""
    empty = gpu_page.document({})
    assert empty.count("| not measured yet |  |") == len(gpu_page.GOALS)
    assert empty.count(gpu_page.MISSING) > 15


def test_goals_are_taken_from_the_parts_they_are_about() -> None:
    """The best of fp16, of all training steps; the worst syntax, in its best shape."""
    parts: dict[str, Found] = {
        "network": {
            "roofline": {},
            "googlenet/1.1.0, fp16, graph, 64": {"images_s": 21_000.0},
            "googlenet/1.1.0, fp16, graph, 128": {FAILED: "no memory"},
            "googlenet/1.1.0, fp32, graph, 64": {"images_s": 30_000.0},
            "swift/1.1.0, fp16, graph, 64": {"images_s": 90_000.0},
        },
        "training": {"children": {"equal": True}, "64, bf16": {"images_s": 5_000.0}},
        "serving": {
            "swift/1.1.0, png, 1 x 16": {"of_decoding": 0.9},
            "swift/1.1.0, rle, 1 x 16": {"of_decoding": 0.3},
            "swift/1.1.0, rle, 4 x 4": {"of_decoding": 0.8},
            "swift/1.1.0, png, 1 x 1": {"of_decoding": 0.1},
        },
    }
    assert [value for *_, value in gpu_page.goals(parts)] == [21_000.0, 5_000.0, 0.8]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Pieces of a file that is larger than any of them, and of a folder."""
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").write_text("text")
    out = tmp_path / "out"
    out.mkdir()
    pieces = carry.pack([tmp_path / "large", tmp_path / "some"], out, "sent", 300_000)
    assert len(pieces) == 4
    assert max(piece.stat().st_size for piece in pieces) == 300_000
    return out


def test_pieces_are_joined_wherever_they_arrived(packed: Path, tmp_path: Path) -> None:
    """Each in a folder of its own; other files beside them do not matter."""
    arrived = tmp_path / "arrived"
    for number, piece in enumerate(packed.iterdir()):
        (arrived / str(number)).mkdir(parents=True)
        shutil.move(piece, arrived / str(number))
    (arrived / "results.json").write_text('{"stages": {}}')
    assert carry.join(arrived, tmp_path / "there") == ["large", "some"]
    assert (tmp_path / "there" / "large").read_bytes() == (tmp_path / "large").read_bytes()
    assert (tmp_path / "there" / "some" / "file").read_text() == "text"


def test_a_damaged_or_missing_piece_is_named(packed: Path, tmp_path: Path) -> None:
    """Nothing is unpacked."""
    (packed / "sent.001").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"sent\.001 is not what was sent"):
        carry.join(packed, tmp_path / "there")
    (packed / "sent.001").unlink()
    with pytest.raises(ValueError, match=r"sent\.001 is missing"):
        carry.join(packed, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_smaller_archive_leaves_no_old_pieces(packed: Path, tmp_path: Path) -> None:
    """Or they would be taken for a part of it."""
    assert len(carry.pack([tmp_path / "some"], packed, "sent", 300_000)) == 1
    assert carry.join(packed, tmp_path / "there") == ["some"]


def test_the_folder_that_travels_holds_all_that_is_run(tmp_path: Path) -> None:
    """Tree, wheels and data; joined by the script in it, with Python alone."""
    wheels, data = tmp_path / "wheels", tmp_path / "data"
    for folder in (wheels, data):
        folder.mkdir()
        (folder / "file").write_bytes(bytes(1000))
    out = tmp_path / "out"
    carry.prepare(out, 10 * 2**20, wheels, data)
    words = [sys.executable, "-I", str(out / "carry.py"), "join", str(out), str(tmp_path / "there")]
    subprocess.run(words, check=True, capture_output=True)
    there = tmp_path / "there"
    assert sorted(path.name for path in there.iterdir()) == ["data", "tree", "wheels"]
    for name in ("benchmarks/gpu.py", "tests/images.py", "service/cli/__main__.py"):
        assert (there / "tree" / name).read_bytes() == (ROOT / name).read_bytes()
    models = {path.parent for path in (there / "tree" / "model_store").glob("*/*/model.onnx")}
    assert {f"{path.parent.name}/{path.name}" for path in models} == set(carry.MODELS)
    assert json.loads((there / "tree" / "commit.json").read_text())["commit"]
    subprocess.run(["sh", "-n", str(out / "start.sh")], check=True)


def test_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    """Its names stay below the folder."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "file").write_text("")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "file", "../escaped")
    data = (tmp_path / "evil.tar").read_bytes()
    (out / "sent.000").write_bytes(data)
    (out / "sent.json").write_text(json.dumps({"sent.000": carry.hashlib.sha256(data).hexdigest()}))
    with pytest.raises(tarfile.OutsideDestinationError):
        carry.join(out, tmp_path / "there")
    assert not (tmp_path / "escaped").exists()


def test_what_the_other_machine_has_is_left_out() -> None:
    """With what only that needs."""
    whole = carry.needed(set(), "3.12")
    assert {"fastapi", "torch", "numpy", "psutil"} <= set(whole)
    assert "onnxruntime" not in whole
    less = carry.needed({"torch", "FastAPI"}, "3.12")
    assert not {"torch", "fastapi"} & set(less)
    assert less.items() < whole.items()
