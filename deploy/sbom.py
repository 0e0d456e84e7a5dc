"""Write a CycloneDX bill of the Python packages in the CPU image, and check them.

    python deploy/sbom.py PYTHON FILE

PYTHON belongs to an environment with `.[cpu,tracing]` and nothing else; `make sbom` makes one. The
script exits with 1 if a package has another version than pinned, has no licence or one of the GPL
family, or is only for training or development, or if a requirement is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[1]
# Licences that cyclonedx-py does not recognise in the metadata: "3-Clause BSD License"
STATED = {"protobuf": "BSD-3-Clause"}

Component = dict[str, Any]


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    bill = bill_of(options.python)
    complaints = list(complaints_about(bill["components"]))
    for complaint in complaints:
        print(complaint)
    text = json.dumps(bill, indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(error)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(f"{text}\n")
    return 1 if complaints else 0


def bill_of(python: Path) -> dict[str, Any]:
    """The bill of an environment, with licences that the metadata lack."""
    command: list[str | Path] = [
        *(sys.executable, "-m", "cyclonedx_py", "environment", python),
        *("--pyproject", ROOT / "pyproject.toml", "--spec-version", "1.6"),
        *("--output-reproducible", "--no-validate"),  # which is done when nothing changes any more
    ]
    bill: dict[str, Any] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    )
    for each in bill["components"]:
        if "licenses" not in each and each["name"] in STATED:
            each["licenses"] = [{"license": {"id": STATED[each["name"]]}}]
    return bill


def complaints_about(components: list[Component]) -> Iterator[str]:
    """One line for each violation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = names(project["dependencies"] + extras.pop("cpu") + extras.pop("tracing"))
    unwanted = names(each for extra in extras.values() for each in extra)
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    pins = {canonical(name): version for name, version in pinned.items()}
    there = {canonical(each["name"]): each for each in components}
    yield from (f"{name}: not there" for name in sorted(needed - there.keys()))
    for name, each in there.items():
        licences = json.dumps(each.get("licenses", ""))
        if name in unwanted:
            yield f"{name}: not for running the service"
        elif pins.get(name) != each["version"]:
            yield f"{name}: {each['version']}, but constraints.txt has {pins.get(name)}"
        if not each.get("licenses"):
            yield f"{name}: no licence"
        elif re.search("GPL|GNU", licences, re.IGNORECASE):
            yield f"{name}: {licences}"


def names(requirements: Any) -> set[str]:
    """The names of packages, without versions and markers."""
    return {canonical(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in requirements}


def canonical(name: str) -> str:
    """The normalised name."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
