"""docs/throughput.md: the results as text and tables, from the JSON alone."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bars import against

Results = dict[str, Any]
Cells = Sequence[str]

HEAD = """# Throughput

`python benchmarks/plot.py` makes this page from
[benchmarks/results/throughput.json](../benchmarks/results/throughput.json), the results of
`python benchmarks/throughput.py`. [How it was measured](#how-it-was-measured) describes the images,
the other systems (*plain stack*, *LitServe*, *torchxrayvision*) and *efficiency*.

![Images a second by transfer syntax, of cxrview and of other systems](throughput.png)
"""
METHOD = """## How it was measured

The images are four radiographs in each syntax, made from the
[bundled ones](../tests/data/ATTRIBUTION.md). They are enlarged to 2828 x 2320 pixels of 12 bits,
with grain; PNGs have 1024 x 1024 pixels of 8 bits. Every figure is the median of the rounds. All
systems take turns within a round; the systems that are not measured are paused. A ratio compares
figures of the same round. CPU seconds cover all threads and system calls of a process. The load
generator is a process on the same machine; where its CPU time matters, the text says so. The kernel
sends bodies directly from the page cache: a copy would fill the caches that decoders need, which a
client on another machine would not do.

- **plain stack**: pydicom's default decoding with pylibjpeg-openjpeg, -libjpeg and -rle, Pillow's
  resize, FastAPI with a `def` endpoint that takes the raw body, ONNX Runtime, one image a call, all
  with default settings, and the same network
- **LitServe**: the same reading and network, batches of up to 8 within 10 ms, and the number of
  workers (1 or 2) that was faster here
- **torchxrayvision's way**: its reading, centre crop and skimage resize to 224, then a ResNet-50
  with random weights in torch, one image after another, in process, without a service
- **efficiency**: images/s divided by the images/s that the parts allow. The parts allow (cores less
  the load generator's CPU time) / (CPU seconds an image to receive, decode and run the network).
  Each part is measured alone in the same round:
    - Receiving is a bare ASGI application under the same uvicorn, with the kernel's interrupts for
      the packets, which no process is charged for.
    - Decoding is one thread.
    - The network runs one batch after another, as in a busy service: batches of 2 in one thread, or
      of 8 for a network as small as `swift`.
    - One thread, the event loop, receives all bodies of a process. Where images/s comes near to
      receiving alone, that thread is the limit, and a core may be idle: then more processes help.
- **limits**: throughput was measured with limits that refuse nothing
  (`CXRVIEW_LATENCY_BUDGET_SECONDS=120`, `CXRVIEW_MAX_HELD_BYTES` of 1 GiB), and defaults otherwise.
  Images/s counts from the first image sent to the last answer.
"""
GROUPS = {"service": "cxrview", "plain": "plain stack", "litserve": "LitServe"}


def read(path: Path) -> Results:
    """The results, and beside them those of `against.py`."""
    results: Results = json.loads(path.read_text())
    for name in ("against", "against-h11"):
        results[name] = json.loads(path.with_name(f"{name}.json").read_text())
    return results


def document(results: Results) -> str:
    """The whole page."""
    parts = [HEAD, *_machine(results), *_bars(results)]
    sections = {
        "syntaxes": (_speeds, _costs),
        "decode": (_decode,),
        "network": (_network,),
        "lanes": (_lanes,),
        "overload": (_overload,),
        "scaling": (_scaling,),
        "soak": (_soak,),
    }
    for section, writers in sections.items():
        if section in results:
            for write in writers:
                parts += write(results)
    return "\n".join([*parts, *_earlier(results), METHOD, *_end_to_end(results)])


def _earlier(results: Results) -> Iterator[str]:
    """The cost of the present server, compared with an earlier one."""
    before, stock = results["against"], results["against-h11"]
    machine = before["machine"]
    yield (
        "## What uvicorn's h11 and decoding in processes cost\n\n"
        "An earlier server read bodies past the HTTP parser, and decoded in threads. This section\n"
        "compares the present service with it, and with it under uvicorn's own h11. They took\n"
        "turns on another machine "
        f"({machine['processor']}, {machine['cores']} cores)\n"
        "at concurrency 8. The cost of h11 is copies: h11 and uvicorn copy a body five times, so\n"
        "large bodies cost most. `benchmarks/against.py` measures it.\n"
    )
    rows = []
    for model, syntaxes in before["models"].items():
        for name, row in syntaxes.items():
            beside = stock["models"].get(model, {}).get(name)
            rows.append(
                (
                    model,
                    name,
                    *(f"{row['images_s'][who]:.3g}" for who in ("there", "here")),
                    f"{row['ratio']:.2f}",
                    f"{beside['ratio']:.2f}" if beside else "not measured",
                )
            )
    heads = ("model", "syntax", "images/s before", "now", "ratio", "ratio to before under h11")
    yield table(heads, rows)


def _machine(results: Results) -> Iterator[str]:
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"Python {machine['python']}; {packages}.\n"
    )
    rows = []
    for section, parts in results["measured"].items():
        together = defaultdict(list)
        for name, each in parts.items():
            rounds = "one short round" if each["quick"] else "full"
            together[each["date"], each["commit"], rounds].append(name)
        for moment, names in together.items():
            rows.append((section, "all" if len(names) == len(parts) else ", ".join(names), *moment))
    yield table(("section", "of it", "measured on", "at commit", "rounds"), rows)


def _bars(results: Results) -> Iterator[str]:
    yield "## Targets\n"
    rows = []
    for row in results["bars"]:
        value = "not measured" if row["value"] is None else f"{row['value']:.3g}"
        found = f"{value} ({row['remark']})" if row["remark"] else value
        sign = "at least" if row["at_least"] else "at most"
        rows.append((row["name"], f"{sign} {row['limit']:g}", found, "yes" if row["met"] else "no"))
    yield table(("target", "limit", "measured", "met"), rows)


def _speeds(results: Results) -> Iterator[str]:
    yield "## Images a second, end to end over HTTP at concurrency 8\n"
    for model in _models(results):
        rows = []
        for name, syntax, row in _of_model(results, model):
            speeds = [_rate(row.get(who, {}).get("8")) for who in GROUPS]
            ratio = against(results, name, model, "plain", "8")
            rows.append((
                name, f"{syntax['megabytes']:.1f}", *speeds, f"{ratio:.1f}" if ratio else "",
                _one_way(results, name),
            ))  # fmt: skip
        heads = ("stored as", "MB", *GROUPS.values(), "times the plain stack", "torchxrayvision")
        yield f"`{model}`:\n"
        yield table(heads, rows)


def _one_way(results: Results, name: str) -> str:
    seconds = results.get("decode", {}).get(name, {}).get("xrv_wall_s")
    return f"{1 / middle(seconds):.2f}" if seconds else ""


def _costs(results: Results) -> Iterator[str]:
    yield "## CPU milliseconds an image, and efficiency\n"
    for model in _models(results):
        rows, efficiency = [], []
        for name, syntax, row in _of_model(results, model):
            parts = (
                syntax["receive"]["cpu_s"],
                syntax["receive"]["interrupts_s"],
                row["decode_cpu_s"],
                row["decode_on_all_cores_cpu_s"],
                row["network_cpu_s"],
            )
            whole = [row["service"][each]["cpu_s"] for each in row["service"]]
            receiving = f"{middle(syntax['receive']['images_s']):.0f}"
            shares = [f"{middle(each):.2f}" for each in row["efficiency"].values()]
            of_all = [f"{middle(each):.2f}" for each in row["efficiency_of_all_cores"].values()]
            rows.append((name, *map(ms, parts), *map(ms, whole)))
            efficiency.append((name, receiving, *shares, *of_all))
        at = next(row["service"].keys() for _, _, row in _of_model(results, model))
        heads = ["stored as", "receive", "its interrupts", "decode", "decode, all cores at once"]
        heads += ["network", *(f"end to end, at {each}" for each in at)]
        yield f"`{model}`, CPU milliseconds an image at concurrency {', '.join(at)}:\n"
        yield table(heads, rows)
        heads = ["stored as", "images/s, receiving alone", *(f"at {each}" for each in at)]
        yield f"`{model}`, efficiency:\n"
        yield table([*heads, *(f"of all cores, at {each}" for each in at)], efficiency)
    yield (
        "*Of all cores* adds the load generator's CPU time to the service's. All other processes\n"
        f"used {_others(results):.2f} cores (median).\n"
    )


def _others(results: Results) -> float:
    return middle([
        share
        for syntax in results["syntaxes"].values()
        for row in syntax["models"].values()
        for served in row["service"].values()
        for share in served["others_share"]
    ])  # fmt: skip


def _end_to_end(results: Results) -> Iterator[str]:
    yield "## All rows, end to end\n"
    for model in _models(results):
        rows = [
            (name, who, connections, _rate(row), ms1(row["p50_s"]), ms1(row["p99_s"]),
             f"{row['n']}", f"{middle(row['images_s']) * syntax['megabytes']:.0f}",
             f"{row['peak_rss_mb']}", f"{row['errors'] + row['refused']}")
            for name, syntax, systems in _of_model(results, model)
            for key, who in GROUPS.items()
            for connections, row in systems[key].items()
        ]  # fmt: skip
        heads = ("stored as", "system", "concurrency", "images/s", "p50 ms", "p99 ms", "n", "MB/s")
        yield f"`{model}`:\n"
        yield table((*heads, "peak MB", "unanswered"), rows)


def _decode(results: Results) -> Iterator[str]:
    yield "## Decoding alone, to a tensor of 256 x 256, one thread\n"
    rows = []
    for name, row in results["decode"].items():
        ratios = [
            theirs / ours
            for theirs, ours in zip(row["rival_cpu_s"], row["ours_cpu_s"], strict=True)
        ]
        cpu = ms(row["ours_cpu_s"]), ms(row["rival_cpu_s"])
        rows.append((name, *cpu, f"{middle(ratios):.1f}", f"{len(ratios)}"))
    heads = ("stored as", "cxrview, CPU ms", "pydicom and Pillow, CPU ms", "times", "rounds")
    yield table(heads, rows)
    yield (
        "RLE is compared with pydicom's own decoder. The last line compares it with\n"
        "pylibjpeg-rle, which the plain stack above uses too.\n"
    )


def _network(results: Results) -> Iterator[str]:
    yield "## The networks alone\n"
    rows = [
        (model, way, f"{middle(row['images_s']):.1f}", ms(row["cpu_s"]), f"{len(row['cpu_s'])}")
        for model, ways in results["network"].items()
        for way, row in ways.items()
    ]
    yield table(("model", "batch, and its cores", "images/s", "CPU ms an image", "rounds"), rows)


def _lanes(results: Results) -> Iterator[str]:
    yield "## Interactive images beside a full backfill lane\n"
    rows = []
    for model, row in results["lanes"].items():
        for state, words in (("idle", "idle"), ("full", "full")):
            found = row[state]
            speed = f"{middle(row['backfill_images_s']):.1f}" if state == "full" else ""
            times = ms1(found["p50_s"]), ms1(found["p99_s"]), ms(found["p99_s_by_round"])
            rows.append((model, words, *times, f"{found['n']}", f"{found['unanswered']}", speed))
    heads = ("model", "backfill lane", "p50 ms", "p99 ms", "median of the rounds' p99")
    yield table((*heads, "n", "unanswered", "backfill images/s"), rows)
    yield (
        "The interactive images are PNGs, evenly spaced, at a tenth of the capacity. The\n"
        "backfill uses 16 connections and all syntaxes. Its clients run at low priority, because\n"
        "in real use they run on other machines.\n"
    )


def _overload(results: Results) -> Iterator[str]:
    yield "## Overload: three times the capacity\n"
    rows = [
        (model, f"{middle(row['capacity']):.1f}", f"{middle(row['goodput']):.1f}",
         f"{middle(row['goodput_share']):.2f}", ms(row["p99_s"]), f"{1e3 * row['budget_s']:.0f}",
         f"{middle(row['refused_share']):.0%}", f"{row['without_retry_after']}",
         f"{row['errors']}")
        for model, row in results["overload"].items()
    ]  # fmt: skip
    heads = ("model", "capacity, images/s", "goodput, images/s", "share", "p99 ms of accepted")
    heads += ("budget ms", "refused", "refusals without Retry-After", "errors")
    yield table(heads, rows)
    yield (
        "The share is relative to the capacity of the cores without the load generator's CPU\n"
        "time. Capacity is the mean of measurements just before and just after, at concurrency\n"
        "32. The load generator does not preempt the threads of the service.\n"
    )


def _scaling(results: Results) -> Iterator[str]:
    yield "## Cores and processes\n"
    rows = [
        (model, shape, _rate(row), ms1(row["p50_s"]), ms1(row["p99_s"]), ms(row["cpu_s"]),
         f"{row['peak_rss_mb']}")
        for model, shapes in results["scaling"].items()
        for shape, row in shapes.items()
    ]  # fmt: skip
    heads = ("model", "service", "images/s", "p50 ms", "p99 ms", "CPU ms an image", "peak MB")
    yield table(heads, rows)
    yield (
        "JPEG 2000 at concurrency 16. The load generator may use all cores. So beside a service\n"
        "on one core it has a core for itself.\n"
    )


def _soak(results: Results) -> Iterator[str]:
    yield "## Minutes at 90 % load\n"
    if all("filled_at" in row for row in results["soak"].values()):
        yield (
            "Before it, a minute at 2.5 times the capacity makes the longest queue that the\n"
            "limits allow, and so takes the memory that this needs. What grows later is a leak.\n"
        )
    heads = ("model", "images/s", "of capacity", "n", "errors", "refusals")
    heads += ("MB at first", "at last", "at most", "MB a minute")
    rows = [
        (model, three(row["rate"]), three(row["capacity"]), f"{row['n']}", f"{row['errors']}",
         f"{row['refused']}", f"{row['rss_mb_first']}", f"{row['rss_mb_last']}",
         f"{row['rss_mb_peak']}", f"{row['rss_mb_a_minute']:+.2f}")
        for model, row in results["soak"].items()
    ]  # fmt: skip
    yield table(heads, rows)
    for model, row in results["soak"].items():
        yield f"`{model}`, by minute:\n"
        minutes = [
            (f"{minute}", ms1(each["p50_s"]), ms1(each["p99_s"]), f"{each['n']}")
            for minute, each in enumerate(row["by_minute"], 1)
        ]
        yield table(("minute", "p50 ms", "p99 ms", "n"), minutes)


def table(heads: Cells, rows: Iterable[Cells]) -> str:
    """In Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def ms(seconds: Sequence[float]) -> str:
    """The median, in milliseconds."""
    return ms1(middle(seconds))


def ms1(seconds: float | None) -> str:
    """Milliseconds."""
    return "" if seconds is None else three(1e3 * seconds)


def three(value: float) -> str:
    """Three digits that count."""
    return f"{float(f'{value:.3g}'):g}"


def _rate(row: Results | None) -> str:
    return three(middle(row["images_s"])) if row else ""


def _of_model(results: Results, model: str) -> Iterator[tuple[str, Results, Results]]:
    """By syntax: its name, all of it, and what is of this model."""
    for name, syntax in results["syntaxes"].items():
        if model in syntax["models"]:
            yield name, syntax, syntax["models"][model]


def _models(results: Results) -> list[str]:
    found = [model for syntax in results["syntaxes"].values() for model in syntax["models"]]
    return list(dict.fromkeys(found))
