"""The fork server: a small process that forks decode workers, in milliseconds each.

A worker must start without the threads, locks and memory of the service, and must be replaced
quickly. So the service starts one process with one thread, which has imported the decoders, and
asks it to fork workers. The fork server passes its ends of the sockets to the workers. It also
kills and reaps them.

`multiprocessing` is not used: its workers import the program's main module again (1.4 s and 88 MB
in a Ray worker, the web framework in `cxrview serve`), and any thread that starts a worker may
collect the exit status of another. Of the libraries, loky fails all futures when one worker dies,
and has no deadline for one task; pebble has both, but its licence is the LGPL.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from itertools import count
from threading import Lock
from typing import NoReturn

from service.imaging import load_decoders
from service.inference.decode_messages import Job
from service.inference.decode_worker import work
from service.inference.memory import keep_freed_memory

# Covers importing the decoders on a busy machine, and freeing the memory of a worker
PATIENCE_SECONDS = 60.0
MAX_REQUEST_BYTES = 2**16
# Freed memory that each worker keeps; buffers of the largest images go back to the kernel
MOST_KEPT = 48 * 2**20
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from service.inference.fork_server import serve; serve(int(sys.argv[1]))"
)
# A fork has only one thread, so libraries must not start others
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class ForkServerError(Exception):
    """No decode worker can be started."""


class ForkServer:
    """The service's client of the fork server; threads may share it.

    It starts the fork server on demand, and again if it has died. The fork server ends with this
    process, even if this process is killed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._names = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        # A fork of this process must close its copy of the socket; otherwise the fork server would
        # not notice when this process ends
        if sys.platform != "win32":
            os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def prepare(self) -> None:
        """Start the fork server, if it does not run; does not wait for it."""
        with self._lock:
            self._running()

    def fork(self, job: Job, connection: socket.socket, memory: int) -> int:
        """Start a worker; returns its number, for `end`.

        Args:
            job: The worker's configuration.
            connection: The worker's end of a socket pair.
            memory: See `decode_worker.work`.

        Raises:
            ForkServerError: The system has no memory or process left.
        """
        name = next(self._names)
        request = {"fork": name, "job": job.model_dump_json()}
        for _ in range(2):  # the fork server may have died since the last request
            if self._ask(request, [connection.fileno(), memory]) == name:
                return name
        raise ForkServerError("no decode worker can be started")

    def end(self, name: int) -> int | None:
        """Kill a worker and wait for it.

        Returns:
            Its exit code as in `subprocess`; None if it is unknown.
        """
        return self._ask({"end": name}, [])

    def close(self) -> None:
        """End the fork server and all workers."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, object], descriptors: list[int]) -> int | None:
        with self._lock:
            control = self._running()
            try:
                socket.send_fds(control, [json.dumps(request).encode()], descriptors)
                answer: int | None = json.loads(control.recv(MAX_REQUEST_BYTES))
            except (OSError, ValueError):  # ValueError: an empty message, because it has died
                self._stop()
                return None
            return answer

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.settimeout(PATIENCE_SECONDS)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  # our own program
                    [sys.executable, "-c", START, str(theirs.fileno()), json.dumps(sys.path)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | ONE_THREAD,
                    # Ctrl-C must not reach the fork server, which the service ends. Not a new
                    # session: priorities may apply within a session only (sched(7), autogroup)
                    process_group=0,
                )
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _forget(self) -> None:
        self._lock = Lock()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.returncode = 0  # the parent's child, which cannot be waited for here
        self._control = self._process = None


FORK_SERVER = ForkServer()


def serve(descriptor: int) -> None:
    """Fork and end workers until the service closes the connection; the fork server's main loop.

    Args:
        descriptor: File descriptor of the fork server's end of the socket pair.
    """
    # Only the service ends this process, by closing the connection
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    keep_freed_memory(MOST_KEPT)
    load_decoders()
    gc.collect()
    gc.freeze()  # so that collections do not copy pages that all workers share
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    children: dict[int, int] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 2)
        if not message:
            break
        request = json.loads(message)
        answer = (
            _ended(children, request["end"])
            if "end" in request
            else _forked(children, request["fork"], request["job"], descriptors, control)
        )
        try:
            control.send(json.dumps(answer).encode())
        except OSError:  # the service has gone
            break
    for name in [*children]:
        _ended(children, name)


def _forked(
    children: dict[int, int],
    name: int,
    job: str,
    descriptors: list[int],
    control: socket.socket,
) -> int | None:
    """Fork a worker; returns its number, or None if the system cannot fork."""
    connection, memory = descriptors
    try:
        pid = os.fork()
    except OSError:
        return None
    else:
        if not pid:
            control.close()
            _become_worker(socket.socket(fileno=connection), memory, job)
        children[name] = pid
        return name
    finally:
        for each in descriptors:
            os.close(each)


def _become_worker(connection: socket.socket, memory: int, job: str) -> NoReturn:
    try:
        work(connection, memory, Job.model_validate_json(job))
    except OSError:  # the service has ended, or has closed this worker's connection
        os._exit(1)
    except BaseException:  # noqa: BLE001  # a bug; errors of files are answered in `work`
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _ended(children: dict[int, int], name: int) -> int | None:
    pid = children.pop(name, None)
    if pid is None:  # a worker of an earlier fork server
        return None
    os.kill(pid, signal.SIGKILL)  # not reaped yet, so the process id is still its own
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
