"""Write helm/cxrview/README.md: every value of the chart, with its default, type and meaning.

    python deploy/values_readme.py

The defaults come from values.yaml, types and meanings from values.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "helm" / "cxrview"
HEAD = """# Values of the chart

`python deploy/values_readme.py` makes this page from values.yaml and values.schema.json. The schema
refuses all other values. Set values by `--set`, or in a file: deploy/values-dev.yaml,
deploy/values-prod.yaml and deploy/values-orthanc.yaml are examples, ci/all-values.yaml sets every
value.

```
helm install cxrview helm/cxrview --values deploy/values-prod.yaml
```

The column *default* is the default of the chart. `null` under `config` leaves the setting to the
service: its own default is in [settings](../../docs/settings.md), where `config.max_head_bytes` is
`CXRVIEW_MAX_HEAD_BYTES`.

"""


def main() -> None:
    """Write it."""
    (CHART / "README.md").write_text(readme())


def readme() -> str:
    """The whole page; a KeyError names a value that the schema does not describe."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return HEAD + "\n".join(_sections(schema["properties"], values)) + "\n"


def _sections(schema: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    plain = {key: value for key, value in values.items() if "properties" not in schema[key]}
    yield "## Pods\n"
    yield from _table(schema, plain)
    for key, value in values.items():
        if key not in plain:
            inner = schema[key]["properties"]
            text = schema[key]["description"]
            yield f"\n## {key}\n\n{text[0].upper()}{text[1:]}.\n"
            yield from _table(inner, value, f"{key}.")


def _table(schema: dict[str, Any], values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    yield "| value | default | type | meaning |"
    yield "|---|---|---|---|"
    yield from _rows(schema, values, prefix)


def _rows(schema: dict[str, Any], values: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        of = schema[key]
        if "properties" in of:
            yield from _rows(of["properties"], value, f"{prefix}{key}.")
        else:
            meaning = of["description"].replace("|", "\\|")
            yield f"| `{prefix}{key}` | {_code(value)} | {_type(of)} | {meaning} |"


def _code(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _type(schema: dict[str, Any]) -> str:
    """The type of the schema, with its bounds: `integer, 1 to 100`."""
    if "enum" in schema:
        return " or ".join(map(_code, schema["enum"]))
    named = schema["type"]
    names = [named] if isinstance(named, str) else named
    text = " or ".join(_items(schema) if name == "array" else name for name in names)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        text += f", {low} to {high}" if high is not None else f", at least {low}"
    if "exclusiveMinimum" in schema:
        text += f", over {schema['exclusiveMinimum']}"
    return text


def _items(schema: dict[str, Any]) -> str:
    return f"array of {_type(schema['items'])}"


if __name__ == "__main__":
    main()
