"""A sweep whose workers meet in a MariaDB server, which the test starts from the system's package."""

import getpass
import importlib.util
import multiprocessing
import shutil
import subprocess
import time
from contextlib import suppress

import pytest

from dpstune.studies.sweep.queue import RunQueue
from tests.studies.conftest import free_port
from tests.studies.sweep.test_postgres import join_and_take_all


@pytest.fixture
def url(tmp_path):
    """Return the URL of an empty database of a server that asks for no password."""
    if importlib.util.find_spec("pymysql") is None:
        pytest.skip("pymysql is not installed")
    if shutil.which("mariadbd") is None:
        pytest.skip("MariaDB is not installed on this system")
    (tmp_path / "data" / "sweeps").mkdir(parents=True)  # to MariaDB a folder is a database
    port = free_port()
    options = [f"--datadir={tmp_path}/data", f"--socket={tmp_path}/socket", f"--port={port}"]
    options += [f"--user={getpass.getuser()}", "--bind-address=127.0.0.1", "--skip-grant-tables"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["mariadbd", "--no-defaults", *options], stderr=log)
    try:
        import pymysql

        for _ in range(300):
            with suppress(pymysql.OperationalError):
                pymysql.connect(host="127.0.0.1", port=port, user="root").close()
                break
            assert server.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield f"mysql+pymysql://root@127.0.0.1:{port}/sweeps"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_machines_that_join_at_once_take_each_job_exactly_once(url):
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    machines = [context.Process(target=join_and_take_all, args=(url, f"{n} host{n} 1 1 m{n}", taken)) for n in range(4)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join(300)
    assert [machine.exitcode for machine in machines] == [0] * 4
    identities = [taken.get(timeout=10) for _ in range(20)]
    assert len(set(identities)) == 20
    assert taken.empty()
    tally = RunQueue(url, "joined").tally()
    assert (tally.waiting, tally.running, len(tally.done), tally.failed) == (0, 0, 20, {})
