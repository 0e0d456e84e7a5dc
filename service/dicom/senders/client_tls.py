"""TLS to a destination."""

from __future__ import annotations

import ssl
from pathlib import Path

from service.dicom.destinations import TlsDestination
from service.dicom.senders.sender import RetryableError


def client_tls(destination: TlsDestination) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 that checks the destination's certificate and host.

    Raises:
        RetryableError: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=destination.tls_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if destination.tls_certificate is not None:
            # Without this function, OpenSSL would ask for a passphrase on the terminal
            files = (destination.tls_certificate, destination.tls_key)
            context.load_cert_chain(*files, password=lambda: "")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        detail = "a certificate or key cannot be used"
        raise RetryableError("credentials", detail, away=True) from error
    return context


def tls_state(destination: TlsDestination) -> tuple[tuple[int, ...], ...]:
    """Differs once a file that `client_tls` reads has changed."""
    files = (destination.tls_ca, destination.tls_certificate, destination.tls_key)
    return tuple(_state(path) for path in files if path is not None)


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
