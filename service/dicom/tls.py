"""TLS of the receiver, by the profile of BCP 195 (PS3.15 Annex B; RFC 9325)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

# RFC 9325 4.2: forward secrecy and authenticated encryption. TLS 1.3 has no others
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsFileError(Exception):
    """A certificate or a key cannot be used; the message names the file."""


@dataclass(frozen=True)
class ServerTls:
    """What new connections use."""

    context: ssl.SSLContext
    expires: datetime | None  # of the certificate; aware, UTC; None: in a form without a reader


def read_tls(certificate: Path, key: Path, clients: Path | None) -> ServerTls:
    """TLS 1.2 or 1.3 for a server.

    Args:
        certificate: PEM, with those of the authorities between it and its root.
        key: PEM, without a passphrase.
        clients: PEM of the authorities whose client certificates are accepted; a peer without one
            is refused. None: no certificate is asked for.

    Raises:
        TlsFileError: A file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    for path in filter(None, (certificate, key, clients)):
        _check_readable(path)
    try:
        # Without this function, OpenSSL would ask for a passphrase on the terminal
        context.load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise TlsFileError(f"{certificate} with {key}: {_reason(error)}") from None
    if clients is not None:
        try:
            context.load_verify_locations(clients)
        except OSError as error:
            raise TlsFileError(f"{clients}: {_reason(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return ServerTls(context, _expires(certificate))


def _check_readable(path: Path) -> None:
    try:
        if path.exists() and not path.is_file():  # a pipe could block
            raise TlsFileError(f"{path}: it is no regular file")
        path.read_bytes()
    except OSError as error:
        raise TlsFileError(f"{path}: {error.strerror}") from None


def _expires(certificate: Path) -> datetime | None:
    """When the first certificate of a file expires: that of the server itself."""
    try:
        return load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):  # OpenSSL reads more forms
        return None


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    known = {
        "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
        "NO_CERTIFICATE_OR_CRL_FOUND": "it holds no certificate in PEM",
    }
    return known.get(reason or "", "it is no certificate or key in PEM without a passphrase")
