"""Start-up, memory and latency of the service, over real HTTP, each against a reference.

    python benchmarks/serving.py

Latency is a ratio to what cannot be avoided, decoding plus one ONNX call, measured in this process
in turn with the requests, because machines are noisy. Prints one table.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
from pydicom import uid
from servers import running, service

from model_store import Store
from service.imaging import read_radiograph
from service.inference import open_network

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from images import dicom, jpeg, png, radiograph  # lies beside the tests, as above

MODEL = "googlenet/1.0.0"
STARTS = 5
ROUNDS = 60
MIXED_IMAGES = 200


def mixed() -> list[bytes]:
    """One image a format, at the sizes that radiographs have."""
    large = radiograph(2828, 2320)
    small = radiograph(1024, 1024)
    grey = (small >> 4).astype(np.uint8)
    syntaxes = (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLosslessSV1)
    syntaxes += (uid.RLELossless, uid.JPEGLSLossless, uid.HTJ2KLossless, uid.JPEGExtended12Bit)
    return [*(dicom(large, syntax) for syntax in syntaxes), png(small), png(grey), jpeg(grey)]


def median_ms(times: list[float]) -> str:
    """Median and range, in milliseconds."""
    low, middle, high = min(times), statistics.median(times), max(times)
    return f"{middle * 1e3:.1f} ms ({low * 1e3:.1f} to {high * 1e3:.1f}), n = {len(times)}"


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def latency(client: httpx2.Client) -> list[tuple[str, str]]:
    """Requests and their unavoidable parts, in turn."""
    network = open_network(Store().load(MODEL))
    spec = network.version.card.preprocess
    body = png((radiograph(1024, 1024) >> 4).astype(np.uint8))

    def parts() -> None:
        network.run(read_radiograph(body, spec).tensor[np.newaxis])

    def request() -> None:
        client.post("/v1/classify", content=body).raise_for_status()

    for _ in range(5):
        parts()
        request()
    inside, outside = [], []
    for _ in range(ROUNDS):
        inside.append(timed(parts))
        time.sleep(0.02)  # ONNX Runtime's threads spin a little after their work
        outside.append(timed(request))
        time.sleep(0.02)
    ratio = statistics.median(outside) / statistics.median(inside)
    return [
        ("decode + one ONNX call, 1024 x 1024 PNG", median_ms(inside)),
        ("POST /v1/classify of the same", median_ms(outside)),
        ("ratio (bar: 1.6)", f"{ratio:.2f}"),
    ]


def main() -> None:
    """Measure and print."""
    starts = []
    for _ in range(STARTS):
        with running(service(MODEL)) as server:
            starts.append(server.ready_s)
    rows = [("ready after start (bar: 5 s)", median_ms(starts))]
    bodies = mixed()
    with running(service(MODEL)) as server:
        url = f"http://127.0.0.1:{server.port}"
        with httpx2.Client(base_url=url, timeout=60) as client:
            idle = server.rss_bytes()
            for number in range(MIXED_IMAGES):
                body = bodies[number % len(bodies)]
                client.post("/v1/classify", content=body).raise_for_status()
            used = server.rss_bytes()
            rows.append(("resident memory when ready", f"{idle / 1e6:.0f} MB"))
            rows.append(
                (f"after {MIXED_IMAGES} mixed images (bar: 700 MB)", f"{used / 1e6:.0f} MB")
            )
            rows += latency(client)
    print("\n".join(f"| {name} | {value} |" for name, value in rows))


if __name__ == "__main__":
    main()
