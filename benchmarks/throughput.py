"""How fast the service is, against its parts and against what a user would take instead.

    python benchmarks/throughput.py [--quick] [--sections ...] [--soak-minutes 10]

The rivals run in an environment of their own (see rivals/requirements.txt). Everything is measured
in one run, systems taking turns within each of five rounds; results are written after each section
and merged into the file that is there, so that a part can be measured again. `plot.py` makes the
documentation from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import bars
import decoding
import endurance
import inputs
import stress
import syntaxes
from bench import QUICK, Bench, Plan, say
from companion import load_generator
from machine import machine, moment

from model_store import Store

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "throughput.json"
SECTIONS = ("decode", "network", "syntaxes", "lanes", "overload", "scaling", "soak")
QUICK_SYNTAXES = ("uncompressed", "jpeg2000", "png")


class Book:
    """The results on disk: what is measured anew replaces what stood there, and only that."""

    def __init__(self, path: Path, quick: bool) -> None:
        self.path = path
        self.quick = quick
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.content["machine"] = machine()

    def keep(self, section: str, found: dict[str, Any], began: float) -> None:
        """Add and write."""
        now = {
            **moment(),
            "quick": self.quick,
            "seconds": round(time.monotonic() - began),
        }
        self.content.setdefault("measured", {}).setdefault(section, {}).update(
            dict.fromkeys(found, now)
        )
        self.content.setdefault(section, {}).update(found)
        self.content["bars"] = bars.rows(self.content)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")


def measure(bench: Bench, sections: list[str], minutes: float, book: Book) -> None:
    """The sections, in their order."""
    newest = tuple({model.partition("/")[0]: model for model in Store().list()}.values())
    by_model: dict[str, Callable[[Bench, str], dict[str, Any]]] = {
        "lanes": stress.lanes,
        "overload": stress.overload,
        "scaling": endurance.scaling,
        "soak": partial(endurance.soak, minutes=minutes),
    }
    for section in (name for name in SECTIONS if name in sections):
        began = time.monotonic()
        if section == "decode":
            book.keep(section, decoding.decode(bench), began)
        elif section == "network":
            book.keep(section, decoding.network(bench, newest), began)
        elif section == "syntaxes":
            for name, found in syntaxes.syntaxes(bench):
                book.keep(section, {name: found}, began)
        else:
            for model in bench.models:
                book.keep(section, {model: by_model[section](bench, model)}, began)


def main() -> None:
    """Measure, write, and say which bars hold."""
    options = _options()
    names = options.syntaxes or (QUICK_SYNTAXES if options.quick else inputs.NAMES)
    models = options.models or bars.MODELS
    sections = [name for name in options.sections if name != "soak" or options.soak_minutes]
    with ExitStack() as stack:
        bench = Bench(
            plan=QUICK if options.quick else Plan(),
            bodies=inputs.bodies(tuple(names)),
            models=tuple(models),
            rivals_python=options.rivals_python,
            generator=stack.enter_context(load_generator()),
        )
        book = Book(options.out, options.quick)
        measure(bench, sections, options.soak_minutes, book)
    for row in book.content["bars"]:
        verdict = "not measured" if row["value"] is None else f"{row['value']:.3g}"
        sign = ">=" if row["at_least"] else "<="
        met = "met" if row["met"] else "NOT MET"
        say(f"{met:8} {row['name']} {sign} {row['limit']:g}: {verdict} {row['remark']}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, three syntaxes")
    parser.add_argument("--models", nargs="+", help="name/version; by default those with bars")
    parser.add_argument("--syntaxes", nargs="+", choices=inputs.NAMES)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--soak-minutes", type=float, default=0, help="of each model; 0: no soak")
    parser.add_argument(
        "--rivals-python", type=Path, default=HERE.parent / ".venv-rivals" / "bin" / "python"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
