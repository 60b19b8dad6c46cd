"""A PostgreSQL server of the tests' own, started from the system's packages."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest


def find(program):
    """Find a program of the system's PostgreSQL, on the path or where Debian keeps it."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(kept[-1]) if kept else shutil.which(program)


def free_port():
    """Return a port that no other program is given meanwhile: below those the system hands out."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A database server in a folder, listening on the loopback interface alone."""

    def __init__(self, folder, as_user):
        self.folder, self.as_user = folder, as_user
        self.port = free_port()
        self.url = f"postgresql://dps@127.0.0.1:{self.port}/postgres"
        self.run(find("initdb"), "-U", "dps", "-A", "trust", "--no-sync")
        self.start()

    def run(self, program, *arguments):
        command = [*self.as_user, program, "-D", self.folder / "data", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self.run(find("pg_ctl"), "-w", "-l", self.folder / "log", "-o", options, "start")

    def create(self, database):
        """Make an empty database."""
        where = ["-U", "dps", "-h", "127.0.0.1", "-p", str(self.port)]
        subprocess.run([*self.as_user, find("createdb"), *where, database], check=True, cwd=self.folder)

    def stop(self):
        """Break every connection, as a server that crashes does."""
        self.run(find("pg_ctl"), "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server():
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("the postgres extra is not installed")
    if find("initdb") is None or find("pg_ctl") is None:
        pytest.skip("PostgreSQL is not installed on this system")
    as_user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("running as root, without a user postgres to start the server as")
        as_user = ["runuser", "-u", "postgres", "--"]
    # Not pytest's own folder: the next session of the same user closes that one to every other user.
    folder = Path(tempfile.mkdtemp(prefix="dpstune-postgres-"))
    if as_user:
        shutil.chown(folder, "postgres")
    try:
        server = Server(folder, as_user)
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)
