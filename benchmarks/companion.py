"""Children that measure: one JSON line in, one out, so that their CPU seconds are their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent


class Companion:
    """One child; leaving the context ends it."""

    def __init__(self, command: list[str], niceness: int = 0) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        os.setpriority(os.PRIO_PROCESS, self.process.pid, niceness)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, **request: Any) -> None:
        """Ask without waiting."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")

    def receive(self) -> dict[str, Any]:
        """The answer to what was asked.

        Raises:
            RuntimeError: The child has ended; what it said is on standard error.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask and wait."""
        self.send(**request)
        return self.receive()


def load_generator(niceness: int = 0) -> Companion:
    """See load.py."""
    return Companion([sys.executable, str(HERE / "load.py")], niceness)


def parts() -> Companion:
    """See parts.py."""
    return Companion([sys.executable, str(HERE / "parts.py")])


def rival(python: Path, script: str) -> Companion:
    """A rival's script, run by its own interpreter."""
    return Companion([str(python), str(HERE / "rivals" / script)])
