"""The `cxrview` command."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from itertools import islice
from logging.config import dictConfig
from pathlib import Path
from types import ModuleType

import numpy as np
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from model_store import DEFAULT_MODEL, DEFAULT_ROOT, Store, StoreError
from service.api.app import create_app
from service.api.audit import AuditError
from service.api.auth.clients import PERMISSIONS
from service.api.auth.keys import KeyFileError, new_key
from service.api.logs import configuration
from service.api.ndjson import line_of
from service.api.problems import problem_of
from service.api.routes.backfills import BackfillExtraError
from service.api.schemas import Classification
from service.api.server import Server
from service.api.settings import Settings
from service.api.tracing import TracingError
from service.backfill.options import add_audit_options, add_backfill_options
from service.imaging import ImageError, Radiograph, read_radiograph, sniff
from service.inference import (
    Network,
    NetworkError,
    keep_freed_memory,
    open_network,
    usable_cpus,
)
from service.uploads.files import UnreadableEntry, files_below, read_regular
from service.uploads.upload import UnreadableFileError, UploadError

Outcome = tuple[str, Classification | Exception]

BATCH_IMAGES = 8
START_FAILED = 3  # as uvicorn's own command says it
MAX_PORT = 65535  # the C library would wrap larger ones


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    code: int = options.run_command(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cxrview", description="Frontal or lateral, from the pixels of a chest radiograph."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve HTTP; settings are CXRVIEW_* variables")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8000, help="8000; 0 for any that is free")
    serve.add_argument(
        "--operations-port",
        type=_fixed_port,
        help="for /livez, /readyz and /metrics; by default --port",
    )
    serve.set_defaults(run_command=_serve)
    key = commands.add_parser("key", help="make an API key, and add its hash to a file")
    key.add_argument("name", metavar="NAME", help="of who will hold it")
    key.add_argument("permissions", nargs="+", choices=PERMISSIONS, metavar="PERMISSION")
    key.add_argument("--file", type=Path, required=True, help="CXRVIEW_KEYS of the service")
    key.set_defaults(run_command=_key)
    classify = commands.add_parser("classify", help="classify files and folders, without a service")
    classify.add_argument("paths", nargs="+", metavar="PATH")
    classify.add_argument("--json", action="store_true", help="NDJSON on standard output")
    classify.add_argument("--model", default=DEFAULT_MODEL, help="name/version")
    classify.add_argument("--model-store", type=Path, default=DEFAULT_ROOT)
    classify.set_defaults(run_command=_classify)
    backfill = commands.add_parser("backfill", help="classify an archive, every image once")
    add_backfill_options(backfill)
    backfill.set_defaults(run_command=_backfill)
    audit = commands.add_parser(
        "audit", help="certificate and header audit of a backfill's results"
    )
    add_audit_options(audit)
    audit.set_defaults(run_command=_audit)
    return parser


def _backfill(options: argparse.Namespace) -> int:
    command = _archives()
    return 2 if command is None else command.run_backfill(options)


def _audit(options: argparse.Namespace) -> int:
    command = _archives()
    return 2 if command is None else command.run_audit(options)


def _archives() -> ModuleType | None:
    """What works on archives; it loads databases and file formats that nobody else needs."""
    try:
        return import_module("service.backfill.command")
    except ImportError as error:
        _complain(f"this needs the extra `backfill`: {error}")
        return None


def _serve(options: argparse.Namespace) -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        _complain(str(error))
        return 2
    asked = settings.keys or settings.oidc_issuer or settings.allow_anonymous
    if not asked and not _is_loopback(options.host):
        _complain(
            f"anybody who reaches {options.host} would be answered: set CXRVIEW_KEYS or "
            "CXRVIEW_OIDC_ISSUER, or CXRVIEW_ALLOW_ANONYMOUS=true where something before the "
            "service asks who comes"
        )
        return 2
    try:
        app = create_app(settings, options.operations_port)
    except (KeyFileError, AuditError, TracingError, BackfillExtraError) as error:
        _complain(str(error))
        return 2
    # One process on purpose: scale by replicas, so that each has one owner of its metrics
    dictConfig(configuration(settings.log_format))
    ports = [options.port, *filter(None, [options.operations_port])]
    if len(set(ports)) < len(ports):
        _complain("--operations-port must differ from --port")
        return 2
    server = Server(app, settings, options.host, ports)
    try:
        with suppress(KeyboardInterrupt):
            server.listen()
    except OSError as error:
        _complain(f"{options.host}, {error.strerror}")
    return 0 if server.started else START_FAILED


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to {MAX_PORT}")
    return int(text)


def _fixed_port(text: str) -> int:
    if not (port := _port(text)):
        raise argparse.ArgumentTypeError("name the port on which probes are to be found")
    return port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _complain(text: str) -> None:
    errors = Console(stderr=True)
    # Unwrapped, so that a path or an address can be copied
    errors.print(f"error: {text}", style="red", highlight=False, markup=False, soft_wrap=True)


def _key(options: argparse.Namespace) -> int:
    """Add a key to the file; it is shown once, here."""
    try:
        key, line = new_key(options.name, frozenset(options.permissions))
        # Only its owner may read what is made here; who may is for others to widen
        opened = os.open(options.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(opened, "a") as file:
            file.write(f"{line}\n")
    except (KeyFileError, OSError) as error:
        _complain(str(error))
        return 2
    sys.stdout.write(f"{key}\n")
    return 0


def _classify(options: argparse.Namespace) -> int:
    """0 when every file was answered, 1 when any was not, 2 when there was nothing to do."""
    keep_freed_memory()
    errors = Console(stderr=True)
    try:
        limit = Settings().max_upload_bytes
        network = open_network(Store(options.model_store).load(options.model))
        files = [file for path in options.paths for file in files_below(path)]
    except (ValidationError, StoreError, NetworkError, FileNotFoundError) as error:
        _complain(str(error))
        return 2
    if not files:
        _complain(f"no files there: {', '.join(options.paths)}")
        return 2
    progress = track(
        _outcomes(files, network, limit), "classify", len(files), console=errors, transient=True
    )
    failed = _print_lines(progress) if options.json else _print_table(progress)
    return 1 if failed else 0


def _outcomes(
    files: Iterable[str | UnreadableEntry], network: Network, limit: int
) -> Iterator[Outcome]:
    """Answers in the order of the files: decoded in threads, a batch ahead of the network."""
    spec = network.version.card.preprocess

    def read(file: str | UnreadableEntry) -> Radiograph | Exception:
        if isinstance(file, UnreadableEntry):
            return UnreadableFileError(file.reason)
        try:
            return read_radiograph(read_regular(file, limit, sniff), spec)
        except (ImageError, UploadError) as error:
            return error
        except OSError as error:
            return UnreadableFileError(error.strerror)

    remaining = iter(files)
    with ThreadPoolExecutor(usable_cpus()) as decoders:
        ahead: list[tuple[str, Radiograph | Exception]] = []
        while batch := list(islice(remaining, BATCH_IMAGES)):
            decoding = decoders.map(read, batch)
            yield from _answers(ahead, network)
            ahead = list(zip(map(_shown, batch), decoding, strict=True))
        yield from _answers(ahead, network)


def _shown(file: str | UnreadableEntry) -> str:
    """Its path, in which bytes that are no UTF-8 are escaped."""
    path = file.path if isinstance(file, UnreadableEntry) else file
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _answers(
    decoded: list[tuple[str, Radiograph | Exception]], network: Network
) -> Iterator[Outcome]:
    good = [item for _, item in decoded if isinstance(item, Radiograph)]
    tensors = [item.tensor for item in good]
    pfi: Iterator[float] = iter(network.run(np.stack(tensors)).tolist() if good else [])
    for file, item in decoded:
        if isinstance(item, Radiograph):
            yield file, Classification.of(item, next(pfi), network.version.card)
        else:
            yield file, item


def _print_lines(outcomes: Iterable[Outcome]) -> int:
    failed = 0
    for name, outcome in outcomes:
        failed += isinstance(outcome, Exception)
        sys.stdout.write(line_of(name, outcome))
    return failed


def _print_table(outcomes: Iterable[Outcome]) -> int:
    table = Table(Column("file", overflow="fold"), "view", "PFI", "header", "remarks")
    failed = 0
    for name, outcome in outcomes:
        if isinstance(outcome, Exception):
            failed += 1
            problem = problem_of(outcome)
            remark = escape(f"{problem.code}: {problem.detail}")
            table.add_row(_printed(name), "[red]failed[/red]", "", "", remark)
            continue
        remarks = (["review"] if outcome.review else []) + outcome.warnings
        row = outcome.view, f"{outcome.pfi:.4f}", _header(outcome), escape(" ".join(remarks))
        table.add_row(_printed(name), *row)
    # In a pipe or a file there is no edge to fold at
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
    return failed


def _printed(name: str) -> str:
    """For a terminal, which obeys what a name may hold."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in name))


def _header(answer: Classification) -> str:
    if answer.header is None or answer.header.view_position is None:
        return ""
    verdict = {True: "agrees", False: "[yellow]disagrees[/yellow]", None: "not comparable"}
    return f"{escape(answer.header.view_position)} ({verdict[answer.header.agrees]})"


if __name__ == "__main__":
    sys.exit(main())
