"""Decoding against the rivals' and the networks against each other, without a service."""

from __future__ import annotations

from bench import Bench, Row, middle, rounded, say
from companion import Companion, parts, rival

SIZE = 256  # the model's tensor that decoding is compared for
# pydicom's own decoder is the default; pylibjpeg-rle comes first where it is installed
RIVAL_PLUGINS = {"rle": "pydicom"}
NETWORK_BATCHES = (1, 8, 32)
FASTEST_RLE = "rle (pylibjpeg-rle)"


def decode(bench: Bench) -> dict[str, Row]:
    """By syntax: CPU seconds an image of ours, of the plain stack, of torchxrayvision's way.

    One thread each, in turn, image by image; pairs of rounds give the ratios.
    """
    python = bench.rivals_python
    found = {}
    with parts() as ours, rival(python, "decode.py") as plain, rival(python, "xrv.py") as xrv:
        xrv.ask(path=bench.files("png")[0] if "png" in bench.bodies else bench.files()[0])
        for name in bench.bodies:
            row = _compare(bench, name, RIVAL_PLUGINS.get(name, ""), ours, plain)
            row["xrv_wall_s"] = [
                rounded(xrv.ask(path=path)["wall_s"])
                for _, path in zip(range(bench.plan.rounds), bench.files(name) * 2, strict=False)
            ]
            found[name] = row
            say(
                f"decode {name}: {1e3 * middle(row['ours_cpu_s']):.1f} ms, "
                f"pydicom and Pillow {1e3 * middle(row['rival_cpu_s']):.1f} ms"
            )
        if "rle" in bench.bodies:
            found[FASTEST_RLE] = _compare(bench, "rle", "pylibjpeg", ours, plain)
    return found


def _compare(bench: Bench, name: str, plugin: str, ours: Companion, plain: Companion) -> Row:
    keys = ("ours_cpu_s", "ours_wall_s", "rival_cpu_s", "rival_wall_s")
    row: Row = {key: [] for key in keys}
    files = bench.files(name)
    plain.ask(path=files[0], size=SIZE, plugin=plugin)  # imports
    ours.ask(part="decode", model=bench.models[0], paths=files[:1], seconds=0)
    for _ in range(bench.plan.rounds):
        sums = dict.fromkeys(keys, 0.0)
        for file in files:
            own = ours.ask(part="decode", model=bench.models[0], paths=[file], seconds=0.05)
            other = plain.ask(path=file, size=SIZE, plugin=plugin)
            for who, answer in (("ours", own), ("rival", other)):
                sums[f"{who}_cpu_s"] += answer["cpu_s"] / len(files)
                sums[f"{who}_wall_s"] += answer["wall_s"] / len(files)
        for key in keys:
            row[key].append(rounded(sums[key]))
    return row


def network(bench: Bench, every_model: tuple[str, ...]) -> dict[str, dict[str, Row]]:
    """By model and way: images/s and CPU seconds an image, on all cores.

    They share each batch, or each runs batches of its own.
    """
    cores = bench.cores
    ways = {
        f"{batch}, {words}": {"batch": batch, "threads": threads, "streams": streams}
        for batch in NETWORK_BATCHES
        for words, threads, streams in (("shared", cores, 1), ("one a core", 1, cores))
    }
    found: dict[str, dict[str, Row]] = {
        model: {way: {"images_s": [], "cpu_s": []} for way in ways} for model in every_model
    }
    with parts() as ours:
        for _ in range(bench.plan.rounds):
            for model, rows in found.items():
                for way, row in rows.items():
                    answer = ours.ask(part="network", model=model, seconds=1, **ways[way])
                    row["images_s"].append(rounded(1 / answer["wall_s"]))
                    row["cpu_s"].append(rounded(answer["cpu_s"]))
    for model, rows in found.items():
        best = max(rows, key=lambda way: middle(rows[way]["images_s"]))
        say(f"network {model}: {middle(rows[best]['images_s']):.1f} images/s, batches of {best}")
    return found
