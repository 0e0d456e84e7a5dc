"""Start the service, classify radiographs through it over HTTP, print the answers, keep serving.

    python deploy/smoke.py [--once] [--port 8000] FILE...

Standard library only, so it runs beside any installation of `cxrview`. Exits with 1 if the service
does not start, or does not answer a file.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_SECONDS = 60  # usually 2 s; the first import from a cold disk is slow


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--once", action="store_true", help="stop after the answers")
    options = parser.parse_args()
    if is_taken(options.port):
        print(
            f"error: another program listens on port {options.port}; choose one with PORT=",
            file=sys.stderr,
        )
        return 1
    url = f"http://127.0.0.1:{options.port}"
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(options.port)]
    with subprocess.Popen(command) as service:
        try:
            failed = not until_ready(service, url) or classify_all(url, options.files)
            if not failed and not options.once:
                print(f"\nserving on {url}; its API is described at {url}/docs; Ctrl-C stops it")
                service.wait()
        except KeyboardInterrupt:
            failed = False  # how a person stops it; the service has got the same signal
        finally:
            service.send_signal(signal.SIGTERM)
    return 1 if failed else 0


def is_taken(port: int) -> bool:
    """Whether something answers there already: it would be tried in the place of the service."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def until_ready(service: subprocess.Popen[bytes], url: str) -> bool:
    """Wait for /readyz; False if the process ended or took too long."""
    deadline = time.monotonic() + READY_SECONDS
    while service.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return True
        except OSError:
            time.sleep(0.05)
    print("error: the service did not become ready; its message is above", file=sys.stderr)
    return False


def classify_all(url: str, files: list[Path]) -> bool:
    """Print the answer to each file; True if any failed."""
    failed = False
    for file in files:
        request = urllib.request.Request(f"{url}/v1/classify", data=file.read_bytes())
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            answer, failed = json.load(error), True
        print(f"\n{file}\n{json.dumps(answer, indent=2)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
