"""Interactive p99 with and without a full C-STORE load beside it: one service, which takes turns.

    python benchmarks/beside_dicom.py [--rounds 10] [--seconds 8] [--associations 8]
        [--lane interactive|backfill] [--model swift/1.1.0] [--syntax NAME ...]

Interactive are PNGs by HTTP, evenly spaced, at a tenth of what the service can do. Beside them, in
every other period, associations send radiographs of a detector in all syntaxes and never pause;
their generator runs at low priority, because elsewhere it would be other machines. The machine may
be busy, so only the ratio of each pair of periods says something.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import servers
from companion import Companion, load_generator
from inputs import SYNTAXES, bodies
from load import Outcome, percentile
from machine import moment

from service.inference import LANES

HERE = Path(__file__).parent
SHARE = 0.1  # of capacity
SETTLE_SECONDS = 1.0  # from the first object to a full service
NICENESS = 19
DESTINATIONS = '[destinations.folder]\nkind = "folder"\npath = "reports"\n'


def compare(server: servers.Server, dicom_port: int, options: argparse.Namespace) -> dict[str, Any]:
    """Periods in turn, and the ratio of each pair."""
    names = tuple(options.syntax)
    pngs = [str(path) for path in bodies(("png",))["png"]]
    objects = [str(path) for paths in bodies(names).values() for path in paths]
    first = count(1)
    web = {"ports": [server.port], "bodies": pngs}
    alone, beside, stored = [], [], []
    with (
        load_generator() as people,
        Companion([sys.executable, str(HERE / "load_dicom.py")], NICENESS) as modalities,
    ):
        people.ask(**web, connections=32, seconds=0, images=32)
        capacity = Outcome(people.ask(**web, connections=32, seconds=5, patient=True)).images_s
        rate = max(2.0, SHARE * capacity)
        load = web | {"connections": 16, "seconds": options.seconds, "rate": rate}
        dicom = {"port": dicom_port, "bodies": objects, "connections": options.associations}
        modalities.ask(**dicom, seconds=0, objects=len(objects), first=next(first))
        for _ in range(options.rounds):
            alone.append(Outcome(people.ask(**load)))
            seconds = options.seconds + 2 * SETTLE_SECONDS
            modalities.send(**dicom, seconds=seconds, first=next(first))
            time.sleep(SETTLE_SECONDS)
            beside.append(Outcome(people.ask(**load)))
            stored.append(Outcome(modalities.receive()))
            print(*(f"{1e3 * p99(each[-1]):.0f}" for each in (alone, beside)), file=sys.stderr)
    ratios = sorted(p99(full) / p99(idle) for idle, full in zip(alone, beside, strict=True))
    return {
        **moment(),
        "model": options.model,
        "lane": options.lane,
        "rounds": options.rounds,
        "associations": options.associations,
        "syntaxes": names,
        "rate": round(rate, 1),
        "alone": latencies(alone),
        "beside": latencies(beside),
        "p99_ratio": [
            round(ratios[0], 2),
            round(statistics.median(ratios), 2),
            round(ratios[-1], 2),
        ],
        "c_store_images_s": round(statistics.median(each.images_s for each in stored), 1),
        "c_store_statuses": dict(
            sum((each.statuses for each in stored), start=type(stored[0].statuses)())
        ),
    }


def p99(outcome: Outcome) -> float:
    """Of one period, in seconds."""
    return percentile(outcome.latencies_s, 0.99)


def latencies(outcomes: list[Outcome]) -> dict[str, Any]:
    """Of all periods together."""
    together = [each for outcome in outcomes for each in outcome.latencies_s]
    return {
        "n": len(together),
        "p50_ms": round(1e3 * percentile(together, 0.5), 1),
        "p99_ms": round(1e3 * percentile(together, 0.99), 1),
        "unanswered": sum(len(each.answers) - len(each.good) for each in outcomes),
    }


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--lane", choices=LANES, default="interactive", help="of C-STORE")
    parser.add_argument("--model", default="swift/1.1.0")
    parser.add_argument("--syntax", nargs="+", default=list(SYNTAXES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "reports").mkdir()
        (folder / "destinations.toml").write_text(DESTINATIONS)
        words, environment, ready, target = servers.service(
            options.model,
            destinations=folder / "destinations.toml",
            dicom_lane=options.lane,
        )
        dicom_port = servers.free_port()
        words += ["--dicom-port", str(dicom_port)]
        with servers.running((words, environment, ready, target)) as server:
            print(json.dumps(compare(server, dicom_port, options), indent=1))


if __name__ == "__main__":
    main()
