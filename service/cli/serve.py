"""`cxrview serve`: the HTTP service."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from contextlib import suppress
from logging.config import dictConfig
from typing import Any

from fastapi import FastAPI

from model_store import StoreError
from service.api.app import create_app
from service.api.audit import AuditError
from service.api.auth.keys import KeyFileError
from service.api.dicom import DicomPort, DicomSetupError
from service.api.environment import SettingsError, read_settings
from service.api.logs import configuration
from service.api.routes.backfills import BackfillExtraError
from service.api.server import Server
from service.api.settings import Settings
from service.api.tracing import TracingError
from service.cli.console import complain

REFUSED = 2  # exit code: the command cannot be run
START_FAILED = 3  # exit code, the same as uvicorn's
SETUP_ERRORS = (
    SettingsError,
    KeyFileError,
    AuditError,
    TracingError,
    BackfillExtraError,
    DicomSetupError,
)
MAX_PORT = 65535  # the C library would wrap larger numbers


def add_command(commands: Any) -> None:
    """`serve [--model MODEL] [--host HOST] [--port PORT] [--operations-port PORT] ...`."""
    parser = commands.add_parser(
        "serve", help="run the HTTP service; its settings are CXRVIEW_* variables"
    )
    add_model_and_host(parser)
    parser.add_argument(
        "--port", type=port, default=8000, help="port; default: 8000; 0: any free port"
    )
    parser.add_argument(
        "--operations-port",
        type=fixed_port,
        help="separate port of /livez, /readyz and /metrics; default: --port",
    )
    parser.add_argument(
        "--dicom-port",
        type=port,
        help="port of the DICOM receiver; default: there is none; 0: any free port",
    )
    parser.set_defaults(run_command=run)


def add_model_and_host(parser: argparse.ArgumentParser) -> None:
    """The options of all commands that serve."""
    parser.add_argument("--model", help="model as name/version; default: CXRVIEW_MODEL")
    parser.add_argument("--host", default="127.0.0.1", help="address; default: 127.0.0.1")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    ports = [options.port, *filter(None, [options.operations_port])]

    def make(settings: Settings) -> FastAPI:
        listening = options.dicom_port is not None
        dicom = DicomPort(options.host, options.dicom_port) if listening else None
        return create_app(settings, options.operations_port, dicom)

    return serve(options, ports, make, lambda settings: _refusal(settings, options.host, ports))


def serve(
    options: argparse.Namespace,
    ports: list[int],
    make: Callable[[Settings], FastAPI],
    refusal: Callable[[Settings], str | None],
) -> int:
    """Serve an application on these ports; returns the exit code.

    Args:
        options: Of the command: `model` and `host`.
        ports: See `Server`.
        make: Makes the application.
        refusal: The reason why these settings must not be served; None if they may.
    """
    try:
        settings = read_settings()
        if options.model is not None:
            settings = settings.model_copy(update={"model": options.model})
        if reason := refusal(settings):
            complain(reason)
            return REFUSED
        app = make(settings)
    except SETUP_ERRORS as error:
        complain(str(error))
        return REFUSED
    except StoreError as error:
        complain(str(error))
        return START_FAILED
    # One process by design: scale with replicas, so that each process has its own metrics
    dictConfig(configuration(settings.log_format))
    server = Server(app, settings, options.host, ports)
    try:
        with suppress(KeyboardInterrupt):
            server.listen()
    except OSError as error:
        complain(f"{options.host}, {error.strerror}")
    return 0 if server.started else START_FAILED


def _refusal(settings: Settings, host: str, ports: list[int]) -> str | None:
    """The reason why these settings must not be served; None if they may."""
    asked = settings.keys or settings.oidc_issuer or settings.allow_anonymous
    if not asked and not _is_loopback(host):
        return (
            f"any client that reaches {host} would be answered: set CXRVIEW_KEYS or "
            "CXRVIEW_OIDC_ISSUER, or CXRVIEW_ALLOW_ANONYMOUS=true behind an authenticating proxy"
        )
    if len(set(ports)) < len(ports):
        return "--operations-port must differ from --port"
    return None


def port(text: str) -> int:
    """Parse a port, which may be 0.

    Raises:
        ArgumentTypeError: It is not a port.
    """
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to {MAX_PORT}")
    return int(text)


def fixed_port(text: str) -> int:
    """Parse a port, which is not 0.

    Raises:
        ArgumentTypeError: It is not a port.
    """
    if not (found := port(text)):
        raise argparse.ArgumentTypeError("name the port on which probes are to be found")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
