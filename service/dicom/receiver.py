"""The DICOM receiver (Storage SCP): answers C-STORE when the results of an object are committed.

pynetdicom speaks the protocol, in threads of its own; the event loop classifies.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from service.dicom.account import Account
from service.dicom.callers import Caller, is_allowed
from service.dicom.connection import TimeLimits
from service.dicom.entries import OutboxAwayError
from service.dicom.inbound import Inbound
from service.dicom.instance import InstanceError, SourceInstance
from service.dicom.intake import Intake
from service.dicom.observers import Counts, Faults, Records
from service.dicom.pdu import MAX_PDU_BYTES
from service.dicom.server import SPARE_CONNECTIONS, Server
from service.dicom.statuses import (
    REJECTIONS,
    SUCCESS,
    MismatchError,
    NotStoredError,
    Reason,
    status_of,
)
from service.imaging import RADIOGRAPHS, SUPPORTED, UnsupportedSopClassError
from service.inference import Lane, let_go
from service.uploads.budget import ByteBudget

IDLE_SECONDS = 120.0  # an association on which nothing is sent is aborted
ANSWER_SECONDS = 60.0  # the longest classification of one object; must be less than IDLE_SECONDS
ABORT_SECONDS = 2.0  # for aborts to be sent, at the end

LOG = logging.getLogger(__name__)
# Its lines show messages, whose values may be a patient's
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Limits:
    """Of all associations."""

    associations: int
    object_bytes: int
    request_seconds: float  # ARTIM: from a connection to the end of its association request
    pdu_seconds: float
    object_seconds: float
    patience_seconds: float  # for bytes that do not fit the budget yet


@dataclass(frozen=True)
class Listening:
    """Where the receiver listens, and who may call."""

    host: str
    port: int  # 0: any free port
    ae_title: str
    callers: tuple[Caller, ...]
    tls: Callable[[], ssl.SSLContext] | None  # of the next connection; None: without TLS


@dataclass(frozen=True)
class Work:
    """What the receiver hands objects to, in the event loop."""

    intake: Intake
    lane: Lane  # of all images
    budget: ByteBudget
    refuses: Callable[[Lane], bool]  # whether one more image would be refused now
    stopping: Callable[[], bool]


class Receiver:
    """Listens until it is closed.

    Args:
        listening: Address, titles and TLS.
        work: See there.
        limits: See there.
        counts: See there.
        records: See there.

    Raises:
        OSError: The port cannot be bound.
    """

    def __init__(
        self, listening: Listening, work: Work, limits: Limits, counts: Counts, records: Records
    ) -> None:
        self._listening, self._work, self._limits = listening, work, limits
        self._counts, self._records = counts, records
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._server = self._make_server()
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="dicom-receiver", daemon=True
        )
        self._others_hook = threading.excepthook

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """Associations that are open now, or asked for."""
        return sum(each.requestor.primitive is not None for each in list(self._server.open))

    def start(self) -> None:
        """Accept associations."""
        threading.excepthook = self._thread_ended
        self._thread.start()
        LOG.info(
            "DICOM receiver %s on %s:%d", self._listening.ae_title, self._listening.host, self.port
        )

    def close(self, finish_seconds: float) -> None:
        """Accept no more associations; those open finish their object and are aborted. Blocks."""
        self._closing.set()
        self._server.stop()
        deadline = time.monotonic() + finish_seconds
        while self._abort(only_idle=time.monotonic() < deadline):
            if time.monotonic() > deadline + ABORT_SECONDS:
                break
            time.sleep(0.02)
        threading.excepthook = self._others_hook

    def _abort(self, only_idle: bool) -> bool:
        """Abort associations; False if there are none left."""
        associations = list(self._server.open.items())
        for association, inbound in associations:
            if association.is_established and not (only_idle and inbound.busy):
                association.abort(block=False)
        return bool(associations)

    def _make_server(self) -> Server:
        entity = AE(self._listening.ae_title)
        entity.maximum_pdu_size = MAX_PDU_BYTES
        # One more than the limit: above it, `_requested` rejects
        entity.maximum_associations = self._limits.associations + SPARE_CONNECTIONS
        entity.acse_timeout = self._limits.request_seconds
        entity.dimse_timeout = self._limits.pdu_seconds
        entity.network_timeout = IDLE_SECONDS
        entity.add_supported_context(Verification)
        for sop_class in sorted(RADIOGRAPHS):
            entity.add_supported_context(sop_class, sorted(SUPPORTED))
        handlers = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_DIMSE_SENT, self._answered),
            (evt.EVT_C_STORE, self._store),
        ]
        server = entity.make_server(
            (self._listening.host, self._listening.port),
            evt_handlers=handlers,  # type: ignore[arg-type]
            server_class=Server,
            tls=self._listening.tls,
            limits=TimeLimits(
                request=self._limits.request_seconds,
                pdu=self._limits.pdu_seconds,
                data_set=self._limits.object_seconds,
            ),
            max_connections=self._limits.associations + SPARE_CONNECTIONS,
            inbound=self._inbound,
            rejected=partial(self._counts.rejected, "tls", ""),
        )
        return cast("Server", server)

    def _inbound(self, address: str) -> Inbound:
        work, limits = self._work, self._limits
        account = Account(work.budget, work.lane, limits.patience_seconds, self._loop)
        faults = Faults(address, self._counts, self._records)
        return Inbound(account, limits.object_bytes, partial(work.refuses, work.lane), faults)

    def _requested(self, event: evt.Event) -> None:
        """Reject an association that is not wanted."""
        inbound = self._server.open[event.assoc]
        reason = self._rejection(event.assoc, inbound)
        if reason is None:
            inbound.is_accepted = True
            return
        self._counts.rejected(reason, inbound.title, _address(event.assoc))
        event.assoc.acse.send_reject(*REJECTIONS[reason])
        event.assoc.kill()  # waits until it is sent

    def _rejection(self, association: Association, inbound: Inbound) -> Reason | None:
        asked = inbound.request
        if self._closing.is_set() or self._work.stopping() or asked is None:
            return "stopping"
        if asked.fault is not None:
            return asked.fault
        if asked.called != self._listening.ae_title:
            return "called_ae"
        if not is_allowed(self._listening.callers, asked.calling, _address(association)):
            return "calling_ae"
        return "limit" if self.associations > self._limits.associations else None

    def _answered(self, event: evt.Event) -> None:
        inbound = self._server.open.get(event.assoc)
        if inbound is not None:
            inbound.answered(isinstance(event.message, C_STORE_RSP))

    def _store(self, event: evt.Event) -> Dataset:
        """Answer a C-STORE request."""
        try:
            self._accept(event)
            status = SUCCESS
        except Exception as error:  # noqa: BLE001  # the peer is told, whatever it is
            status = status_of(error)
            if status.code == 0x0110:
                LOG.error("an object was not stored: %s", type(error).__name__)  # noqa: TRY400  # its message may hold a patient's data
            elif isinstance(error, OutboxAwayError):
                LOG.error("an object was not stored: %s", error)  # noqa: TRY400  # says what to mend
            let_go(error)
            self._records.failed(_title(event.assoc), _address(event.assoc), status)
        self._counts.stored(status.code)
        answer = Dataset()
        answer.Status = status.code
        if status.comment:
            answer.ErrorComment = status.comment
        return answer

    def _accept(self, event: evt.Event) -> None:
        """Return when the results of an object are committed, and recorded.

        Raises:
            Exception: See `status_of`.
        """
        inbound = self._server.open.get(event.assoc)
        incoming = inbound.incoming if inbound else None
        if incoming is None or not incoming.whole:  # a request without a data set
            raise InstanceError
        if incoming.refusal is not None:
            raise NotStoredError(incoming.refusal)
        request: Any = event.request
        sop_class, instance = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID
        if sop_class not in RADIOGRAPHS or sop_class != event.context.abstract_syntax:
            raise UnsupportedSopClassError("the SOP class of the request is not that negotiated")
        data = incoming.part_10(bytes(128) + b"DICM" + encode_file_meta(event.file_meta))
        check = partial(_check_same, str(sop_class), str(instance))
        accepting = self._work.intake.accept(data, self._work.lane, check)
        del data
        answer = asyncio.run_coroutine_threadsafe(accepting, self._loop)
        try:
            accepted = answer.result(ANSWER_SECONDS)
        except (TimeoutError, CancelledError):
            answer.cancel()
            raise NotStoredError("timeout") from None
        peer = _title(event.assoc), _address(event.assoc)
        self._records.classified(*peer, accepted.classification)

    def _thread_ended(self, arguments: threading.ExceptHookArgs) -> None:
        """Log an error in pynetdicom's threads without its message, and any other as usual.

        Peers can cause them, so they must not fill the log.
        """
        if isinstance(arguments.thread, Association | DULServiceProvider):
            LOG.debug("an association has ended: %s", arguments.exc_type.__name__)
        else:
            self._others_hook(arguments)


def _title(association: Association) -> str:
    """The AE title that the peer claims."""
    asked: Any = association.requestor.primitive
    return str(asked.calling_ae_title).strip()


def _address(association: Association) -> str:
    info = association.requestor.address_info
    return info.address if info is not None else ""


def _check_same(sop_class: str, instance: str, source: SourceInstance) -> None:
    """Check that a data set is what its request says.

    Raises:
        MismatchError: It is not.
    """
    if (source.sop_class_uid, source.sop_instance_uid) != (sop_class, instance):
        raise MismatchError
