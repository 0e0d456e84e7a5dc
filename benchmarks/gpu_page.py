"""Write docs/gpu.md from what `gpu.py` found on a GPU.

python benchmarks/gpu_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu_stages.plan import FULL, LIMITS, Plan
from gpu_stages.record import FAILED, Found

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
PAGE = ROOT / "docs" / "gpu.md"
MISSING = "not measured yet"

GOALS = (
    ("network alone, fp16, googlenet, images/s", 20_000.0),
    ("training, googlenet, images/s", 6_000.0),
    ("end to end with 16 decode workers, of what they decode alone", 0.85),
)

HEAD = """# On a GPU

`python benchmarks/gpu_page.py` makes this page from `benchmarks/results/gpu.json`, which is the
`results.json` of `python benchmarks/gpu.py` on a machine with a GPU. With `--miniature`, each line
of that command runs on a CPU. [benchmarks/carry.md](../benchmarks/carry.md) says how to bring it to
a machine.

Whether the service answers on a GPU as on a CPU is checked at each start: it replays the model's
probe on the provider that will serve, and does not start if the answer differs.
"""

SETTINGS = """## Settings of a pod with a GPU

| value of the chart | default | reason |
| --- | --- | --- |
| `gpu.maxBatchImages` | 32 | {batch} |
| `config.decode_workers` | the cores of the pod | {workers} |
| `resources.limits.cpu` | 2; choose 4 to 8 | {cores} |

Decoding keeps the cores busy long before it keeps a GPU busy: [scaling](scaling.md) has the cores
that a syntax needs.
"""


def read(path: Path = RESULTS) -> Found:
    """The results; {} where there are none.

    Raises:
        ValueError: They are of the miniature, which measures nothing.
    """
    if not path.exists():
        return {}
    found: Found = json.loads(path.read_text())
    if found["plan"] != FULL.name:
        raise ValueError(f"{path} is of the plan {found['plan']}: it measures nothing")
    return found


def document(results: Found) -> str:
    """The whole page."""
    return "\n".join((HEAD, *_sections(results), _settings(results)))


def table(results: Found) -> str:
    """What the command prints at its end."""
    return "\n".join(_sections(results))


def _sections(results: Found) -> list[str]:
    stages = results.get("stages", {})
    parts = {stage: stages.get(stage, {}).get("parts", {}) for stage in LIMITS}
    return [
        _goals(parts),
        _states(stages),
        _section("Machine", _pairs(parts["environment"])),
        _section("Answers beside the CPU's", _rows("model, provider, form", parts["parity"])),
        _section("The network alone", _network(parts["network"])),
        _section("End to end over HTTP", _serving(parts["serving"])),
        _section("Training", _rows("part", parts["training"])),
        _section("A training run", _rows("part", parts["fit"])),
    ]


def goals(parts: dict[str, Found]) -> list[tuple[str, float, float | None]]:
    """Each goal, its limit, and what was found; None: not measured."""
    network = [
        part["images_s"]
        for name, part in parts["network"].items()
        if name.startswith("googlenet") and ", fp16, " in name and "images_s" in part
    ]
    training = [part["images_s"] for part in parts["training"].values() if "images_s" in part]
    found = (max(network, default=None), max(training, default=None), _slowest(parts["serving"]))
    return [(name, limit, value) for (name, limit), value in zip(GOALS, found, strict=True)]


def _slowest(serving: Found) -> float | None:
    """The syntax furthest from its decode limit, each in its best shape with most workers."""
    shapes = [(each, f", {each[0]} x {each[1]}") for each in FULL.shapes]
    most = max(processes * workers for processes, workers in FULL.shapes)
    full = tuple(end for (processes, workers), end in shapes if processes * workers == most)
    best: dict[str, float] = {}
    for name, part in serving.items():
        if name.endswith(full) and "of_decoding" in part:
            key = name.rpartition(", ")[0]
            best[key] = max(best.get(key, 0.0), part["of_decoding"])
    return min(best.values(), default=None)


def _goals(parts: dict[str, Found]) -> str:
    lines = ["## Goals", "", "| goal | at least | measured | met |", "| --- | --- | --- | --- |"]
    for name, limit, value in goals(parts):
        said = (MISSING, "") if value is None else (f"{value:g}", _yes(value >= limit))
        lines.append(f"| {name} | {limit:g} | {said[0]} | {said[1]} |")
    return "\n".join((*lines, ""))


def _states(stages: Found) -> str:
    lines = [
        "## Stages",
        "",
        "| stage | state | s | parts | failed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for stage in LIMITS:
        found = stages.get(stage, {"state": MISSING, "seconds": 0, "parts": {}})
        parts = found["parts"]
        failed = sum(FAILED in part for part in parts.values())
        state = MISSING if found["state"] == "new" else found["state"]
        lines.append(f"| {stage} | {state} | {found['seconds']:g} | {len(parts)} | {failed} |")
    for stage in LIMITS:
        for name, part in stages.get(stage, {}).get("parts", {}).items():
            if FAILED in part:
                lines += ["", f"Failed: {stage}, {name}: {part[FAILED]}"]
    return "\n".join((*lines, ""))


def _section(title: str, body: list[str]) -> str:
    return "\n".join((f"## {title}", "", *(body or [MISSING]), ""))


def _pairs(parts: Found) -> list[str]:
    """The environment's parts as they are, one line a value."""
    found = [
        f"| {name} | {key} | {_cell(value)} |"
        for name, part in parts.items()
        for key, value in part.items()
        if key != "took_s"
    ]
    return ["| part | value | |", "| --- | --- | --- |", *found] if found else []


def _rows(first: str, parts: Found) -> list[str]:
    """One row a part, one column for each value that any part has."""
    good = {
        name: part for name, part in parts.items() if FAILED not in part and "begun" not in part
    }
    columns = [key for key in dict.fromkeys(k for p in good.values() for k in p) if key != "took_s"]
    if not columns:
        return []
    lines = [_line(first, *columns), _line(*["---"] * (len(columns) + 1))]
    lines += [
        _line(name, *(_cell(part.get(key)) for key in columns)) for name, part in good.items()
    ]
    return lines


def _network(parts: Found) -> list[str]:
    if not parts:
        return []
    rest = {name: part for name, part in parts.items() if name != "roofline"}
    roof = parts.get("roofline", {})
    said = [f"{key} {_cell(value)}" for key, value in roof.items() if key != "took_s"]
    return [
        f"Measured on this device: {', '.join(said)}.",
        "",
        "`arithmetic_share` and `memory_share` are shares of these: of the operations of",
        "convolutions and matrix products, and of the bytes that layers read and write.",
        "",
        *_rows("model, form, way, batch", rest),
    ]


def _serving(parts: Found) -> list[str]:
    """Without the times of all stages, of which the longest is named."""
    rows = {
        name: {key: value for key, value in part.items() if key != "stage_ms"}
        for name, part in parts.items()
        if name != "inputs"
    }
    return _rows("model, syntax, processes x decode workers", rows)


def _settings(results: Found) -> str:
    parts = {s: results.get("stages", {}).get(s, {}).get("parts", {}) for s in LIMITS}
    batch = f"{MISSING}; the size that a backfill uses on a GPU"
    best = _best_batch(FULL, parts["network"])
    if best:
        batch = f"measured: the network alone is fastest with {best}"
    served = [name for name in parts["serving"] if not name.startswith(("decode", "inputs"))]
    workers = "measured above" if served else f"{MISSING}; one worker keeps one core busy"
    cores = "measured above" if served else f"{MISSING}; predicted in [scaling](scaling.md)"
    return SETTINGS.format(batch=batch, workers=workers, cores=cores)


def _best_batch(plan: Plan, parts: Found) -> int | None:
    """Of the first model as the service runs it, in fp32, which is what is published."""
    found = {
        batch: parts[name]["images_s"]
        for batch in plan.batches
        if "images_s" in parts.get(name := f"{plan.models[0]}, fp32, served, {batch}", {})
    }
    return max(found, key=found.__getitem__) if found else None


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "/")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    """Write the page."""
    PAGE.write_text(document(read()))


if __name__ == "__main__":
    main()
