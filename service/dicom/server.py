"""The TCP server of the receiver: it bounds the connections, and knows their associations."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from socketserver import BaseServer
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import ThreadedAssociationServer

from service.dicom.connection import Connection, TimeLimits, TlsConnection
from service.dicom.inbound import Inbound, Link
from service.dicom.pdu import COMMAND, ITEM, fragments

# Beyond the limit of associations, so that peers above it are told why
SPARE_CONNECTIONS = 16

LOG = logging.getLogger(__name__)


class Server(ThreadedAssociationServer):
    """Accepts connections, and keeps a thread for each until its association ends.

    Args:
        *arguments: Of pynetdicom's server.
        tls: Gives what the next connection uses; None: without TLS.
        limits: Of each connection; `pdu` also for the handshake of TLS.
        max_connections: More are closed at once.
        inbound: Makes what follows the messages of one association, by the address of its peer.
        rejected: Called with the address of a peer whose handshake of TLS fails.
        **keywords: Of pynetdicom's server.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        *arguments: Any,
        tls: Callable[[], ssl.SSLContext] | None,
        limits: TimeLimits,
        max_connections: int,
        inbound: Callable[[str], Inbound],
        rejected: Callable[[str], object],
        **keywords: Any,
    ) -> None:
        self._tls, self._limits, self._inbound = tls, limits, inbound
        self._rejected = rejected
        self._slots = threading.BoundedSemaphore(max_connections)
        self.open: dict[Association, Inbound] = {}
        super().__init__(*arguments, **keywords)
        self.bind(evt.EVT_CONN_OPEN, self._opened)
        self.bind(evt.EVT_CONN_CLOSE, _closed)
        self._mute()

    def _mute(self) -> None:
        """Unbind pynetdicom's own handlers, which only log, and may log a patient's data."""
        for event in (evt.EVT_PDU_RECV, evt.EVT_PDU_SENT, evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT):
            for handler, _ in list(cast("list[Any]", self.get_handlers(event))):
                if handler.__module__.startswith("pynetdicom."):
                    self.unbind(event, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the handshake of TLS has time in its own thread."""
        accepted, address = super().get_request()
        return Connection(
            accepted.family, accepted.type, accepted.proto, accepted.detach()
        ), address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Whether there is a slot for the connection; otherwise it is closed."""
        return self._slots.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection until its association ends."""
        connection: Connection = request
        inbound = self._inbound(str(client_address[0]))
        try:
            connection.settimeout(self._limits.pdu)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls is not None:
                connection = _with_tls(self._tls(), connection)
            connection.limits, connection.since = self._limits, time.monotonic()
            connection.inbound = inbound
            self.finish_request(connection, client_address)
            for association, its in list(self.open.items()):
                if its is inbound:
                    association.join()
                    del self.open[association]
        except OSError:
            if connection.inbound is None and self._tls is not None:
                self._rejected(str(client_address[0]))
        finally:
            inbound.end()
            self.shutdown_request(connection)
            self._slots.release()

    def _opened(self, event: evt.Event) -> None:
        transport = event.assoc.dul.socket
        connection = cast("Connection", transport and transport.socket)
        inbound = cast("Inbound", connection.inbound)
        inbound.link = Link(partial(_contexts, event.assoc), partial(_send, event.assoc))
        self.open[event.assoc] = inbound

    def stop(self) -> None:
        """Accept no more connections; blocks until then."""
        BaseServer.shutdown(self)  # pynetdicom's only ends servers that it has started
        self.server_close()


def _with_tls(context: ssl.SSLContext, connection: Connection) -> Connection:
    context.sslsocket_class = TlsConnection
    return cast("Connection", context.wrap_socket(connection, server_side=True))


def _contexts(association: Association) -> dict[int, str]:
    """Abstract syntaxes by the numbers of accepted presentation contexts."""
    accepted = association.accepted_contexts
    return {cast("int", each.context_id): str(each.abstract_syntax) for each in accepted}


def _send(association: Association, context: int, command: bytes) -> None:
    """Send a command set; pynetdicom's own thread does it next."""
    most = association.dimse.maximum_pdu_size - ITEM.size  # the peer's; 0: any
    size = most if most > 0 else len(command)
    for control, part in fragments(command, COMMAND, size):
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context, bytes([control]) + part))
        association.dul.send_pdu(primitive)


def _closed(event: evt.Event) -> None:
    """End an association whose peer has gone without a request.

    pynetdicom would wait for the request until `acse_timeout`, and the connection keep its slot.
    """
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(cast("Any", None))  # as if that time were over
