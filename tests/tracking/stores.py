"""Real stores for the tests, on loopback: PostgreSQL, `mlflow server`, and a line to it that can be disturbed."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL with an empty database; it dies with this process.

    Yields:
        Its address for SQLAlchemy.
    """
    programs = next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    initdb = shutil.which("initdb", path=programs)
    if initdb is None:
        pytest.skip("PostgreSQL's programs are not installed (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="gss-pg-", dir="/tmp"))
    as_user = ["setpriv", "--pdeathsig=INT"]
    if os.getuid() == 0:  # which PostgreSQL refuses
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port = free_port()
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        subprocess.run(
            [*as_user, initdb, "-D", folder, "-U", "mlflow", "-A", "trust", "--no-sync"],
            check=True,
            cwd="/",
            stdout=log,
            stderr=log,
        )
        server = subprocess.Popen(
            [
                *as_user,
                Path(initdb).with_name("postgres"),
                "-D",
                folder,
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            cwd="/",
            stdout=log,
            stderr=log,
        )
    address = ["-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"]
    try:
        ready = [shutil.which("pg_isready", path=programs), *address]
        wait_for(lambda: subprocess.run(ready, stdout=subprocess.DEVNULL).returncode == 0, "PostgreSQL")
        subprocess.run([shutil.which("createdb", path=programs), *address, "mlflow"], check=True)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder)
        log.close()
        Path(log.name).unlink()


class MlflowServer:
    """`mlflow server`; `start` and `kill` as often as wanted.

    Args:
        backend: address of its database.
        folder: for its artefacts and its log.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend, self.folder, self.port = backend, folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            "setpriv",
            "--pdeathsig=TERM",
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
            "--backend-store-uri",
            self.backend,
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # six processes more that nobody needs here
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, start_new_session=True, env=environment, stdout=log, stderr=log)
        wait_for(self._healthy, "the server", seconds=180)

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: nobody else is in it
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, OSError):
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        return False


class Line:
    """A TCP line to a server: `good`, `hanging` (takes calls, never answers), `failing` (answers 500) or `refusing`."""

    def __init__(self, port: int) -> None:
        self.target, self.port = port, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.state = "refusing"
        self.calls = 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def be(self, state: str) -> None:
        """Change; open connections are cut, except those that then hang."""
        self.state = state
        if state != "hanging":
            for connection in list(self._open):
                _close(connection)
        if state == "refusing" and self._listener is not None:
            _close(self._listener)
            self._listener = None
        elif state != "refusing" and self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=(listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        self.calls += 1
        if self.state == "failing":
            with contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            _close(client)
        elif self.state == "good":
            with contextlib.suppress(OSError):
                server = socket.create_connection(("127.0.0.1", self.target))
                self._open.add(server)
                threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
                self._copy(client, server)
            _close(client)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and self.state != "hanging":
                target.sendall(data)
        if self.state != "hanging":
            _close(target)


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
