"""Images a second by C-STORE, compared with HTTP: one service, which takes turns.

    python benchmarks/c_store.py [MODEL [ROUNDS [SYNTAX ...]]]

Both send the same radiographs over as many connections. By C-STORE each is a new instance, whose
Structured Report is committed, and delivered into a folder: this is what `success` means. The
machine may be busy, so only the ratio of each pair of runs says something; the table has its median
and its range. CPU ms is that of the service, an image.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import servers
from companion import Companion, load_generator
from inputs import bodies
from load import Outcome
from tables import table

HERE = Path(__file__).parent
SYNTAXES = ("uncompressed", "jpeg2000", "jpeg-lossless", "jpeg-baseline")
CONNECTIONS = 8
SECONDS = 6.0
ROUNDS = 5
DESTINATIONS = '[destinations.folder]\nkind = "folder"\npath = "reports"\n'


class Measured(NamedTuple):
    """One run."""

    images_s: float
    cpu_ms: float  # of the service, an image


def measured(server: servers.Server, generator: Companion, **load: Any) -> Measured:
    """Send for some seconds.

    Raises:
        RuntimeError: Not every image was accepted.
    """
    before = server.cpu_s()
    outcome = Outcome(generator.ask(connections=CONNECTIONS, seconds=SECONDS, **load))
    if outcome.statuses.keys() - {200}:
        raise RuntimeError(f"not all images were accepted: {outcome.statuses}")
    return Measured(outcome.images_s, 1e3 * (server.cpu_s() - before) / len(outcome.good))


def compare(
    server: servers.Server, dicom_port: int, rounds: int, syntaxes: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """The rows of the table."""
    rows = []
    first = itertools.count(1)  # so that no two runs send the same instance
    with (
        load_generator() as by_http,
        Companion([sys.executable, str(HERE / "load_dicom.py")]) as by_dicom,
    ):
        for name, paths in bodies(syntaxes).items():
            files = [str(path) for path in paths]
            pairs = []
            for number in range(rounds + 1):
                pair = (
                    measured(server, by_http, ports=[server.port], bodies=files),
                    measured(server, by_dicom, port=dicom_port, bodies=files, first=next(first)),
                )
                if number:  # the first warms caches
                    pairs.append(pair)
            rows.append(row(name, pairs))
            print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    return rows


def row(name: str, pairs: list[tuple[Measured, Measured]]) -> tuple[str, ...]:
    """Medians of one syntax."""
    http, dicom = zip(*pairs, strict=True)
    ratios = sorted(store.images_s / post.images_s for post, store in pairs)
    rates = (f"{statistics.median(each.images_s for each in side):.1f}" for side in (http, dicom))
    costs = (f"{statistics.median(each.cpu_ms for each in side):.1f}" for side in (http, dicom))
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return name, *rates, ratio, *costs


def main() -> None:
    """Print the table."""
    model = sys.argv[1] if len(sys.argv) > 1 else "swift/1.1.0"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    syntaxes = tuple(sys.argv[3:]) or SYNTAXES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "reports").mkdir()
        (folder / "destinations.toml").write_text(DESTINATIONS)
        settings = servers.AMPLE_LIMITS | {"destinations": folder / "destinations.toml"}
        words, environment, ready, target = servers.service(model, **settings)
        dicom_port = servers.free_port()
        words += ["--dicom-port", str(dicom_port)]
        with servers.running((words, environment, ready, target)) as server:
            rows = compare(server, dicom_port, rounds, syntaxes)
    columns = (
        "syntax",
        "HTTP images/s",
        "C-STORE images/s",
        "ratio",
        "HTTP CPU ms",
        "C-STORE CPU ms",
    )
    print(table(columns, rows))


if __name__ == "__main__":
    main()
