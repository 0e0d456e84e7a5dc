"""The uvicorn server: ports, limits, signals and a graceful shutdown.

On SIGTERM the process stops being ready, and still answers for `drain_seconds`, because a cluster
goes on sending requests for some seconds. Then it accepts no more requests, finishes those in
progress, and exits with 0, at the latest `END_SECONDS` later.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Timer
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from service.api.audit import Audit
from service.api.auth.access import Access
from service.api.protocol import BoundedProtocol, ConnectionLimits
from service.api.runtime import Runtime
from service.api.settings import Settings

if sys.platform != "win32":
    import resource

# For requests in progress, after no more are accepted: covers the longest decoding within its
# limits, and a client that reads its answer slowly
FINISH_SECONDS = 20
# Until the process ends, even if decoders or the disk of a job hang
END_SECONDS = FINISH_SECONDS + 10
FORCED_END_SECONDS = 1.0  # after a second SIGTERM

LOG = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves one application until it is told to stop.

    Args:
        app: From `create_app`.
        settings: The settings of `app`.
        host: Address to bind to.
        ports: All serve `app`; 0: any free port. The last of several is the operations port, on
            which the number of connections is not limited.
    """

    def __init__(self, app: FastAPI, settings: Settings, host: str, ports: Sequence[int]) -> None:
        limits = ConnectionLimits(
            settings.max_head_bytes,
            settings.max_head_seconds,
            settings.max_receive_seconds,
            settings.max_write_seconds,
            min(settings.max_connections, _descriptors() // 2),
            ports[-1] if len(ports) > 1 else None,
        )
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, limits)),
            ws="none",  # otherwise `Upgrade: websocket` would bypass the limits of HTTP
            h11_max_incomplete_event_size=settings.max_head_bytes,
            timeout_graceful_shutdown=FINISH_SECONDS,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=[*_as_seen(settings.trusted_proxies)],
            log_config=None,  # the command configures it
            access_log=False,  # the AccessLog middleware logs neither queries nor unknown paths
            server_header=False,
        )
        super().__init__(config)
        self._app = app
        self._host, self._ports = host, ports
        self._drain_seconds = settings.drain_seconds
        self._told_to_end = False

    def listen(self) -> None:
        """Bind the ports, load the model, and serve until told to stop.

        Raises:
            OSError: A port cannot be bound; the model is not loaded then.
        """
        self.run([_bound(self._host, port) for port in self._ports])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve; SIGHUP then reads the keys and reopens the audit log."""
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            LOG.info("running on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        with suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        access: Access = self._app.state.access
        audit: Audit | None = self._app.state.audit
        if access.keys is not None:
            _later(0, access.keys.look)
        if audit is not None:
            _later(0, audit.reopen)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first SIGTERM; end at once at the second, or stop at Ctrl-C."""
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
            return
        runtime: Runtime | None = getattr(self._app.state, "runtime", None)
        if runtime is not None:
            runtime.draining.set()
        if self._told_to_end:
            self._stop(FORCED_END_SECONDS)
        elif runtime is None or not self._drain_seconds:
            self._stop()
        else:
            _later(self._drain_seconds, self._stop)
        self._told_to_end = True

    def _stop(self, end_seconds: float = END_SECONDS) -> None:
        # Not by uvicorn's own handler, which would raise the signal again, and not exit with 0
        self.should_exit = True
        _later(end_seconds, partial(os._exit, 0))


def _as_seen(networks: Sequence[str]) -> Iterator[str]:
    """The networks; those of IPv4 also as IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2)."""
    for each in networks:
        network = ipaddress.ip_network(each)
        yield str(network)
        if network.version == 4:
            yield f"::ffff:{network.network_address}/{96 + network.prefixlen}"


def _descriptors() -> int:
    """The limit of open files and connections, raised to the hard limit if possible."""
    if sys.platform == "win32":
        return 2**31
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS refuses some hard limits
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def _bound(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen: connections are refused until the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"port {port}: {error.strerror}") from error
    return bound


def _later(seconds: float, call: Callable[[], object]) -> None:
    """Call a function after some seconds, in a daemon thread."""
    timer = Timer(seconds, call)
    timer.daemon = True
    timer.start()
