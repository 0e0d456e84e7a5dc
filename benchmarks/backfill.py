"""What an archive costs: a backfill of all syntaxes and some damaged files, beside its limit.

python benchmarks/backfill.py ARCHIVE [--images 20000] [--radiographs radiographs.zip] [--detector]

ARCHIVE is a folder, which is filled first if it is not there: radiographs of a zip (the bundled
ones without), 12 bits with grain, each file another one, in all transfer syntaxes in turn, a
fiftieth cut off; as large as they are, or as a detector's (2320 x 2828). The limit is what all
cores could decode and classify, by the CPU seconds an image of a sample takes, measured in the same
run with nothing around it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from inputs import SYNTAXES
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import dicom  # lies beside the tests, as above

from model_store import Store
from service.imaging import ImageError, read_radiograph
from service.inference import keep_freed_memory, open_network, usable_cpus

ROOT = Path(__file__).parent.parent
DAMAGED = 50  # one of so many
DETECTOR = (2320, 2828)  # columns and rows
GRAIN = 10.0  # of 4096 grey levels
OF_A_FOLDER = 1000
SAMPLE_BYTES = 2**30  # in memory, at most
SAMPLE = 800
BATCH = 8
POLL_SECONDS = 0.1


def main() -> None:
    """Fill, measure the limit, work, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--radiographs", type=Path)
    parser.add_argument("--detector", action="store_true", help="fill with images of its size")
    parser.add_argument("--model", default="swift/1.0.0")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.archive.exists():
        size = DETECTOR if options.detector else None
        fill(options.archive, options.images, options.radiographs, size)
    files = sorted(path for path in options.archive.rglob("*") if path.is_file())
    rounds = [_round(options.archive, files, options.model) for _ in range(options.rounds)]
    found = {
        "files": len(files),
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6),
        "cores": usable_cpus(),
        "of_the_limit": round(statistics.median(each["of_the_limit"] for each in rounds), 3),
        "rounds": rounds,
    }
    print(json.dumps(found, indent=2))


def _round(archive: Path, files: list[Path], model: str) -> dict[str, Any]:
    """The work, and its limit from just before and just after: machines are not always as fast."""
    before = cpu_seconds_of_one(files, model)
    found = backfill(archive, model)
    seconds = (before + cpu_seconds_of_one(files, model)) / 2
    limit = usable_cpus() / seconds
    return found | {
        "cpu_seconds_an_image_alone": round(seconds, 5),
        "limit_images_s": round(limit, 1),
        "of_the_limit": round(found["images_s"] / limit, 3),
    }


def fill(
    archive: Path, images: int, radiographs: Path | None, size: tuple[int, int] | None
) -> None:
    """Write the files, by as many processes as there are cores."""
    if radiographs is None:
        paths = sorted((ROOT / "tests" / "data").glob("*.jpg"))
        pictures = [path.read_bytes() for path in paths]
    else:
        with zipfile.ZipFile(radiographs) as opened:
            names = [name for name in opened.namelist() if name.endswith(".jpg")]
            pictures = [opened.read(name) for name in names]
    tasks = list(zip(range(images), cycle(pictures), cycle(SYNTAXES), strict=False))
    print(f"writing {images} files", file=sys.stderr)
    with ProcessPoolExecutor(usable_cpus()) as writers:
        write = partial(_write, archive, size)
        for _ in writers.map(write, tasks, chunksize=64):
            pass


def _write(archive: Path, size: tuple[int, int] | None, task: tuple[int, bytes, str]) -> None:
    number, data, syntax = task
    grain = np.random.default_rng(number)
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("L")
        larger = picture.resize(size, Image.Resampling.BICUBIC) if size else picture
        grey = np.asarray(larger, np.float32) * 16
    pixels = np.rint(grey + grain.normal(0, GRAIN, grey.shape)).clip(0, 4095).astype(np.uint16)
    if syntax == "jpeg-baseline":
        pixels = (pixels >> 4).astype(np.uint8)
    month = f"2026{1 + number % 12:02d}15"
    file = dicom(
        pixels,
        SYNTAXES[syntax],
        SOPInstanceUID=f"2.25.{10**20 + number}",
        StationName=f"CR{number % 7}",
        StudyDate=month,
    )
    folder = archive / f"{number // OF_A_FOLDER:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    whole = len(file) if number % DAMAGED else len(file) // 2
    (folder / f"{number:08d}.dcm").write_bytes(file[:whole])


def cpu_seconds_of_one(files: list[Path], model: str) -> float:
    """Decoding and the network alone, a core each, with the files in memory."""
    keep_freed_memory()
    version = Store().load(model)
    network = open_network(version, "cpu", 1)
    mean = sum(path.stat().st_size for path in files) / len(files)
    most = min(SAMPLE, len(files), int(SAMPLE_BYTES / mean))
    chosen = random.Random(0).sample(files, most)
    data = [path.read_bytes() for path in chosen]

    def decode(one: bytes) -> Any:
        try:
            return read_radiograph(one, version.card.preprocess).tensor
        except ImageError:
            return None

    def work(some: list[bytes]) -> None:
        tensors = [tensor for tensor in map(decode, some) if tensor is not None]
        if tensors:
            network.run(np.stack(tensors))

    batches = [data[at : at + BATCH] for at in range(0, len(data), BATCH)]
    with ThreadPoolExecutor(usable_cpus()) as workers:
        list(workers.map(work, batches))  # what is paid once is not measured
        before = time.process_time()
        list(workers.map(work, batches))
        return (time.process_time() - before) / len(data)


def backfill(archive: Path, model: str) -> dict[str, Any]:
    """The command itself, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["backfill", str(archive), f"--out={folder}/out", f"--model={model}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin, memory = time.monotonic(), []
        command = [sys.executable, "-m", "service.cli", *words]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                memory.append(_resident(process.pid))
                time.sleep(POLL_SECONDS)
        whole = time.monotonic() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        certificate = json.loads((Path(folder) / "out" / "certificate.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    quarters = [max(part) for part in _quarters(memory)]
    return {
        "model": model,
        "valid": certificate["valid"],
        "outcomes": certificate["outcomes"],
        "images_s": round(certificate["images_per_second"], 1),
        "seconds": round(whole, 1),
        "cpu_seconds_an_image": round(cpu / certificate["found"], 5),
        "resident_mb_by_quarter": [round(each / 1e6) for each in quarters],
    }


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _quarters(values: list[int]) -> list[list[int]]:
    size = max(1, len(values) // 4)
    remaining = iter(values)
    return [part for _ in range(4) if (part := list(islice(remaining, size)))]


if __name__ == "__main__":
    main()
