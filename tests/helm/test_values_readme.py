"""helm/cxrview/README.md: what is written there is what the chart takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from charts import ALL, CHART, DEFAULTS, Object
from conftest import ROOT

SCRIPT = "deploy/values_readme.py"


def written_in(folder: Path) -> str:
    """What the script writes there."""
    subprocess.run([sys.executable, folder / SCRIPT], check=True)
    return (folder / "helm/cxrview/README.md").read_text()


def copy_of_the_chart(folder: Path) -> Path:
    shutil.copytree(CHART, folder / "helm" / "cxrview")
    (folder / "deploy").mkdir()
    shutil.copy(ROOT / SCRIPT, folder / SCRIPT)
    return folder


def test_it_is_current(tmp_path: Path) -> None:
    """After a change of a value or of its description, run deploy/values_readme.py."""
    assert (CHART / "README.md").read_text() == written_in(copy_of_the_chart(tmp_path))


def test_it_follows_a_change(tmp_path: Path) -> None:
    """Of a default, of a bound and of a meaning."""
    copy = copy_of_the_chart(tmp_path)
    values, schema = copy / "helm/cxrview/values.yaml", copy / "helm/cxrview/values.schema.json"
    values.write_text(values.read_text().replace("drainSeconds: 10", "drainSeconds: 11"))
    changed = json.loads(schema.read_text())
    changed["properties"]["drainSeconds"] = {
        "type": "integer", "minimum": 3, "maximum": 40, "description": "a | b",
    }  # fmt: skip
    schema.write_text(json.dumps(changed))
    assert "| `drainSeconds` | `11` | integer, 3 to 40 | a \\| b |" in written_in(copy)


def test_every_value_has_a_line() -> None:
    """The defaults' and the fullest example's."""

    def leaves(values: Object, like: Object, prefix: str = "") -> set[str]:
        found = set()
        for key, value in values.items():
            inner = like.get(key)
            if isinstance(value, dict) and isinstance(inner, dict) and inner:
                found |= leaves(value, inner, f"{prefix}{key}.")
            else:
                found.add(f"{prefix}{key}")
        return found

    text = (CHART / "README.md").read_text()
    lines = re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)
    assert len(lines) == len(set(lines))
    assert set(lines) == leaves(DEFAULTS, DEFAULTS) == leaves(ALL, DEFAULTS)
