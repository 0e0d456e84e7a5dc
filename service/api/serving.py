"""uvicorn, which on SIGTERM first says that it is not ready, and goes on answering for a while.

Whoever sends requests here learns of a pod's end some seconds after the pod does. Until then it
answers as ever, but closes each connection with the answer to its next request, so that few are
idle at the end.
"""

from __future__ import annotations

import signal
from threading import Timer
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.api.runtime import Runtime
from service.api.wire import LargeBodyProtocol


class Server(uvicorn.Server):
    """Serves one application until it is told to stop; then what is in flight is answered.

    Args:
        app: As `create_app` makes it.
        host: Address to bind to.
        port: 0 for any.
        access_log: Log a line for every request.
        drain_seconds: From the first SIGTERM, during which it answers but is not ready.
    """

    def __init__(
        self, app: FastAPI, host: str, port: int, *, access_log: bool, drain_seconds: float
    ) -> None:
        super().__init__(
            uvicorn.Config(app, host=host, port=port, access_log=access_log, http=LargeBodyProtocol)
        )
        self._app = app
        self._drain_seconds = drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first SIGTERM; stop at once at the second, or at Ctrl-C."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            return
        runtime: Runtime | None = getattr(self._app.state, "runtime", None)
        if runtime is None or runtime.draining.is_set() or not self._drain_seconds:
            self._stop()
        else:
            runtime.draining.set()
            later = Timer(self._drain_seconds, self._stop)
            later.daemon = True
            later.start()

    def _stop(self) -> None:
        # uvicorn would raise the signal once more: but to end as one was told is no failure
        self.should_exit = True
