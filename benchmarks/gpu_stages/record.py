"""One stage's results on disk: written part by part, so that nothing is lost and all can go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Found = dict[str, Any]
FAILED = "failed"  # the key of a part's reason


class Record:
    """A stage's JSON file: `state`, `seconds`, and its `parts` by name.

    A part that fails is kept with its reason, and the next one runs. A part that was begun and is
    still in the file when the stage starts again has ended the process; it is not tried again.

    Args:
        folder: Of all stages.
        stage: The file's name.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.path = folder / f"{stage}.json"
        self.content: Found = {"state": "new", "seconds": 0.0, "parts": {}}
        if self.path.exists():
            self.content = json.loads(self.path.read_text())
        self.parts: Found = self.content["parts"]
        for part in self.parts.values():
            if "begun" in part:
                part.clear()
                part[FAILED] = "it ended the process"

    def part(self, name: str, measure: Callable[[], Found]) -> Found:
        """Measure a part, or return what an earlier run found."""
        if name in self.parts:
            return dict(self.parts[name])
        self.parts[name] = {"begun": True}
        self.write()
        began = time.monotonic()
        try:
            found = measure()
        except Exception as error:  # noqa: BLE001  # the reason of this part; the others run
            found = {FAILED: " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        self.parts[name] = found | {"took_s": round(time.monotonic() - began, 2)}
        self.write()
        print(f"  {name}: {json.dumps(self.parts[name])[:300]}", flush=True)
        return dict(self.parts[name])

    def out_of_time(self) -> None:
        """Forget the part that was being measured: the next run measures it again."""
        self.content["parts"] = self.parts = {
            name: part
            for name, part in self.parts.items()
            if part.get(FAILED) != "it ended the process"
        }

    def write(self) -> None:
        """Whole or not at all."""
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.content, indent=1) + "\n")
        draft.replace(self.path)
