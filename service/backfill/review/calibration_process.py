"""`python -m training calibrate` as a process of its own, which ends with the service.

So the service never loads what calibration needs, and a calibration that takes too much memory ends
alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event

PACKAGES = ("training", "sklearn", "scipy", "tqdm")
MOST_SECONDS = 3600.0
LOOK_SECONDS = 0.2
# The lowest priority. Standard input is a pipe that the service holds and never writes to: it ends
# with the service, also by SIGKILL
START = (
    "import json, os, sys, threading; os.nice(19); sys.path[:] = json.loads(sys.argv.pop(1)); "
    "threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start(); "
    "from training.__main__ import main; sys.exit(main())"
)
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")  # no setting, and no secret
LOG = "log"
ERROR = "error: "  # how the command's own messages begin


class CalibrationError(Exception):
    """A calibration cannot be done; the text is for the person who asked for it."""


def missing_packages() -> list[str]:
    """Packages of the extra `calibration` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def calibrate(arguments: Sequence[str], scratch: Path, stopping: Event) -> None:
    """Run the command until it ends.

    Args:
        arguments: Of `calibrate`.
        scratch: A private folder, for its log and temporary files.
        stopping: Ends it when it is set.

    Raises:
        CalibrationError: It has failed, takes too long, or was stopped.
    """
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    own = {"OMP_NUM_THREADS": "1", "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    path = json.dumps(list(map(os.path.abspath, sys.path)))  # the process is in another folder
    command = [sys.executable, "-P", "-c", START, path, "calibrate", *arguments]
    with (scratch / LOG).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # our own program
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment | own,
            cwd=scratch,
        )
    try:
        code = _ended(process, stopping)
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
    if code:
        raise CalibrationError(_message(scratch / LOG) or f"the process ended with {code}")


def _ended(process: subprocess.Popen[bytes], stopping: Event) -> int:
    deadline = time.monotonic() + MOST_SECONDS
    while (code := process.poll()) is None:
        if stopping.wait(LOOK_SECONDS):
            raise CalibrationError("the service ended meanwhile")
        if time.monotonic() > deadline:
            raise CalibrationError(f"it took more than {MOST_SECONDS:.0f} s")
    return code


def _message(log: Path) -> str | None:
    lines = log.read_text(errors="replace").splitlines()
    found = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return found[-1] if found else None
