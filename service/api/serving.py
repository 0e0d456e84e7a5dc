"""uvicorn, which on SIGTERM first says that it is not ready, and goes on answering for a while.

Whoever sends requests here learns of a pod's end some seconds after the pod does. Until then it
answers as ever, but closes each connection with the answer to its next request, so that few are
idle at the end.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Timer
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from service.api.access.gate import Access
from service.api.audit import Audit
from service.api.logs import LogFormat, configuration
from service.api.runtime import Runtime
from service.api.wire import LargeBodyProtocol


class Server(uvicorn.Server):
    """Serves one application until it is told to stop; then what is in flight is answered.

    Args:
        app: As `create_app` makes it.
        host: Address to bind to.
        ports: 0 for any; the same application on all of them.
        drain_seconds: From the first SIGTERM, during which it answers but is not ready.
        log_format: Of all lines.
    """

    def __init__(
        self,
        app: FastAPI,
        host: str,
        ports: Sequence[int],
        *,
        drain_seconds: float,
        log_format: LogFormat,
    ) -> None:
        config = partial(
            uvicorn.Config,
            app,
            host=host,
            http=cast("type[asyncio.Protocol]", LargeBodyProtocol),  # the loops take either kind
            log_config=configuration(log_format),
            access_log=False,  # the entrance knows more, and shows less
            server_header=False,
        )
        self._configs = [config(port=port) for port in ports]
        super().__init__(self._configs[0])
        self._app = app
        self._drain_seconds = drain_seconds

    def listen(self) -> None:
        """Serve until told to stop; a port that is taken ends the process."""
        several = len(self._configs) > 1
        self.run([config.bind_socket() for config in self._configs] if several else None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve; from then on, SIGHUP means to look at files again."""
        await super().startup(sockets)
        with suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._look_again)

    def _look_again(self) -> None:
        access: Access = self._app.state.access
        audit: Audit | None = self._app.state.audit
        if access.keys is not None:
            access.keys.look_again()
        if audit is not None:
            audit.reopen()

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
