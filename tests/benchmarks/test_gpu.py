"""The measurement on a GPU, whole, on the CPU: no line of it runs there for the first time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import carry
import gpu_page
from gpu_stages.plan import LIMITS, MINIATURE
from gpu_stages.record import FAILED

COMMAND = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--miniature", "--piece-mb", "1"]


def run(folder: Path, *words: str) -> str:
    ran = subprocess.run(
        [*COMMAND, "--results", str(folder), *words], capture_output=True, text=True, check=True
    )
    return ran.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one call."""
    made = tmp_path_factory.mktemp("gpu")
    (made / "said").write_text(run(made))
    return made


@pytest.fixture(scope="module")
def stages(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "back" / "results.json").read_text())
    return dict(content["stages"])


def test_every_stage_is_done_and_nothing_failed(stages: dict[str, Any]) -> None:
    """With at least the parts that its plan asks for."""
    assert list(stages) == list(LIMITS)
    for stage, found in stages.items():
        assert found["state"] == "done", stage
        assert found["parts"], stage
        assert not [part for part in found["parts"].values() if FAILED in part or "begun" in part]


def test_the_same_path_refuses_a_hidden_device(stages: dict[str, Any]) -> None:
    """The service ends, and names the provider."""
    parts = stages["environment"]["parts"]
    for hidden in ("start without a device", "start without libraries"):
        assert parts[hidden]["exit"]
        assert "CUDAExecutionProvider" in parts[hidden]["said"]


def test_the_cpu_answers_as_the_cpu(stages: dict[str, Any]) -> None:
    """In fp32 to the last digit; in fp16 within the limit, with no view changed."""
    parts = stages["parity"]["parts"]
    assert len(parts) == 2 * len(MINIATURE.models)
    assert all(part["met"] for part in parts.values())
    assert all(part["max_pfi_difference"] == 0 for name, part in parts.items() if "fp32" in name)


def test_all_ways_and_batches_are_measured(stages: dict[str, Any]) -> None:
    """Of each model and precision, with shares of what the device can."""
    parts = stages["network"]["parts"]
    ways = sum(
        len(MINIATURE.batches if "graph" in way or way == "served" else MINIATURE.few_batches)
        for way, _ in MINIATURE.ways
    )
    assert len(parts) == 1 + 2 * len(MINIATURE.models) * ways
    for name, part in parts.items():
        if name != "roofline":
            assert part["images_s"] > 0
            assert part["arithmetic_share"] > 0
            assert part["p50_ms"] <= part["p99_ms"]


def test_a_syntax_is_compared_with_decoding_alone(stages: dict[str, Any]) -> None:
    """Each load was answered, and says which stage was the longest."""
    parts = stages["serving"]["parts"]
    served = {name: part for name, part in parts.items() if name.startswith(MINIATURE.models)}
    assert len(served) == len(MINIATURE.models) * (2 * len(MINIATURE.syntaxes) + 1)
    for part in served.values():
        assert part["images_s"] > 0
        assert part["errors"] == 0
        assert part["of_decoding"] > 0
        assert part["longest_stage"] in part["stage_ms"]


def test_training_is_checked_measured_and_finished(stages: dict[str, Any]) -> None:
    """The children are equal, each step was timed, and the run reached its end."""
    parts = stages["training"]["parts"]
    assert parts["children"]["equal"]
    assert {step.name for step in MINIATURE.steps} < set(parts)
    fit = stages["fit"]["parts"]["fit"]
    assert fit["finished"]
    assert fit["step"] == 4


def test_what_is_brought_back_is_whole(folder: Path, tmp_path: Path) -> None:
    """The weights travel in pieces and are joined to the same bytes."""
    assert carry.join(folder / "back", tmp_path) == [
        "best.pt", "log.csv", "settings.json", "cutoff.json",
    ]  # fmt: skip
    best = folder / "run" / "best.pt"
    assert (tmp_path / "best.pt").read_bytes() == best.read_bytes()


def test_the_table_says_all_and_the_page_refuses_a_miniature(folder: Path) -> None:
    """The table is printed at the end; no page is written of figures that measure nothing."""
    said = (folder / "said").read_text()
    assert (folder / "back" / "table.md").read_text() in said
    assert said.count("\n## ") >= len(LIMITS)
    with pytest.raises(ValueError, match="measures nothing"):
        gpu_page.read(folder / "back" / "results.json")


def test_a_repeated_call_measures_only_what_is_missing(folder: Path) -> None:
    """Finished stages are skipped; a part that was lost is measured again, and only that."""
    parity = folder / "parity.json"
    content = json.loads(parity.read_text())
    content["state"] = "out of time"
    lost = next(iter(content["parts"]))
    kept = {name: part for name, part in content["parts"].items() if name != lost}
    parity.write_text(json.dumps(content | {"parts": kept}))
    said = run(folder, "--stages", "environment", "parity")
    assert "environment: done before" in said
    assert said.count("\n  ") == 1
    assert set(json.loads(parity.read_text())["parts"]) == {lost, *kept}
