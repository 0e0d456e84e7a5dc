"""Write the chart's dashboards, which Grafana reads.

python -m deploy.dashboards.make
"""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards.backfill import backfill
from deploy.dashboards.quality import quality
from deploy.dashboards.throughput import throughput
from deploy.observe import DASHBOARDS

ALL = {"throughput": throughput, "quality": quality, "backfill": backfill}


def text(name: str) -> str:
    """One dashboard as JSON."""
    made = json.loads(JSONEncoder().encode(ALL[name]()))
    for variable in made["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min"):  # of intervals, says Grafana's schema
            del variable[key]
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all."""
    DASHBOARDS.mkdir(exist_ok=True)
    for name in ALL:
        (DASHBOARDS / f"{name}.json").write_text(text(name))


if __name__ == "__main__":
    main()
