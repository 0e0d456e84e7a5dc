"""`cxrview receive`: the DICOM receiver without the HTTP API."""

from __future__ import annotations

import argparse
from typing import Any

from fastapi import FastAPI

from service.api.app import create_app
from service.api.dicom import DicomPort
from service.api.settings import Settings
from service.cli.serve import add_model_and_host, fixed_port, port, serve

PORT = 11112  # registered for DICOM
OPERATIONS_PORT = 8001


def add_command(commands: Any) -> None:
    """`receive [--model MODEL] [--host HOST] [--port PORT] [--operations-port PORT]`."""
    parser = commands.add_parser(
        "receive", help="receive DICOM objects by C-STORE; its settings are CXRVIEW_* variables"
    )
    add_model_and_host(parser)
    parser.add_argument(
        "--port",
        type=port,
        default=PORT,
        help=f"port of the DICOM receiver; default: {PORT}; 0: any free port",
    )
    parser.add_argument(
        "--operations-port",
        type=fixed_port,
        default=OPERATIONS_PORT,
        help=f"port of /livez, /readyz and /metrics; default: {OPERATIONS_PORT}",
    )
    parser.set_defaults(run_command=run)


def run(options: argparse.Namespace) -> int:
    """Receive until SIGTERM or Ctrl-C."""
    operations = options.operations_port

    def make(settings: Settings) -> FastAPI:
        return create_app(settings, operations, DicomPort(options.host, options.port), http=False)

    def refusal(_: Settings) -> str | None:
        return "--operations-port must differ from --port" if operations == options.port else None

    return serve(options, [operations], make, refusal)
