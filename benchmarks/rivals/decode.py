"""The rival's decoding alone: one JSON line in, one with its CPU and wall seconds out.

Asked with {"path": ..., "size": 256, "plugin": ""}; see reading.py for what is measured.
"""

import json
import sys
import time
from pathlib import Path

from reading import read


def answer(path: str, size: int, plugin: str) -> dict[str, float]:
    """The seconds of one image."""
    data = Path(path).read_bytes()
    cpu, wall = time.process_time(), time.perf_counter()
    read(data, size, plugin)
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
