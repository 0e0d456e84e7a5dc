"""TLS of the DICOM receiver: files that are read again when they were renewed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from service.api import metrics
from service.api.settings import Settings
from service.api.watched_files import WatchedFiles
from service.dicom.tls import ServerTls, TlsFileError, read_tls

if TYPE_CHECKING:
    import ssl

LOG = logging.getLogger(__name__)


def tls_files(settings: Settings) -> WatchedFiles[ServerTls] | None:
    """The files of the settings; None: the receiver is without TLS.

    Raises:
        TlsFileError: A file cannot be used.
    """
    certificate, key = settings.dicom_tls_certificate, settings.dicom_tls_key
    clients = settings.dicom_tls_clients
    if certificate is None or key is None:
        return None
    return WatchedFiles(
        "TLS files of the DICOM receiver",
        [certificate, key, *filter(None, [clients])],
        partial(read_tls, certificate, key, clients),
        TlsFileError,
        _tell,
    )


@contextmanager
def open_tls(settings: Settings) -> Iterator[Callable[[], ssl.SSLContext] | None]:
    """What gives the context of each new connection; the files are watched until the block ends.

    Raises:
        TlsFileError: A file cannot be used.
    """
    files = tls_files(settings)
    if files is None:
        yield None
        return
    _tell(files.value)
    with files.watched():
        yield lambda: files.value.context


def _tell(tls: ServerTls) -> None:
    expires = tls.expires
    metrics.CERTIFICATE_EXPIRES.set(expires.timestamp() if expires else 0)
    LOG.info("TLS of the DICOM receiver: a certificate that expires at %s", expires or "?")
