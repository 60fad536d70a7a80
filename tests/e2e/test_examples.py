"""The examples run as they say they do: as processes, on free ports, with the Python Grape."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grenache_py.tls import Certificate
from tests.harness import Process, need_node
from tests.unit.tls_files import make_ca

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def started() -> Iterator[Callable[..., Process]]:
    """Start a process; all of them end with the test."""
    processes: list[Process] = []

    def start(*argv: object) -> Process:
        process = Process([str(part) for part in argv], cwd=ROOT)
        processes.append(process)
        return process

    yield start
    for process in reversed(processes):
        process.stop()


@pytest.fixture
def grape(started) -> str:
    """The URL of a Grape that runs as a process."""
    said = started(
        sys.executable, "-m", "grenache_py.grape", "--dp", 0, "--aph", 0, "-b", "127.0.0.1"
    ).next_line()
    return next(word.rstrip(".,;") for word in said.split() if word.startswith("http://"))


def example(name: str, grape: str, *options: object) -> list[object]:
    """The command line that runs one, in Python or Node."""
    if name.endswith(".js"):
        return [need_node(), EXAMPLES / "node" / name, grape]
    return [sys.executable, EXAMPLES / name, "--grape", grape, *options]


def output(process: Process) -> list[str]:
    assert process.wait(30) == 0, process.lines
    return process.lines


WORKERS = ["worker.py", "aio_worker.py", "worker.js"]
CLIENTS = ["client.py", "aio_client.py", "client.js"]


@pytest.mark.parametrize("worker", WORKERS)
def test_every_client_understands_every_worker(started, grape, worker):
    serving = started(*example(worker, grape))
    assert serving.next_line().startswith("serving rpc_test on port ")
    for client in CLIENTS:
        said = "\n".join(output(started(*example(client, grape))))
        assert "a worker's own error: ERR_NO_NUMBER" in said, client
        assert worker in said, client
        assert "8" in said.splitlines()[-1], client  # 4, doubled
    # Ends when asked to, without an error.
    assert serving.stop() == 0
    assert len(serving.lines) == 1


def test_workers_of_all_kinds_together(started, grape):
    for worker in WORKERS:
        started(*example(worker, grape)).next_line()
    said = "\n".join(output(started(*example("client.py", grape))))
    for worker in WORKERS:
        assert f"'doubled': 8, 'by': '{worker}'" in said


def test_put_get(started, grape):
    said = output(started(*example("put_get.py", grape, "some text")))
    assert said[0].startswith("stored under ")
    assert said[1] == "fetched: some text"


def test_stream_files(started, grape, tmp_path):
    files = [sys.executable, EXAMPLES / "stream_files.py", "--grape", grape]
    started(*files, "--folder", tmp_path / "kept", "serve").next_line()
    sent = tmp_path / "poem.txt"
    sent.write_text("so much depends\nupon\n" * 20_000)
    said = output(started(*files, "put", sent))
    assert json.loads(said[0].removeprefix("kept: "))[1:] == [None, sent.stat().st_size]
    assert (tmp_path / "kept" / "poem.txt").read_bytes() == sent.read_bytes()
    assert output(started(*files, "get", sent)) == sent.read_text().splitlines()
    assert "ERR_NO_SUCH_FILE" in output(started(*files, "get", "other.txt"))[0]


def test_tls(started, grape, tmp_path):
    pem = make_ca(tmp_path)
    tls = [sys.executable, EXAMPLES / "tls.py", "--grape", grape, "--ca", pem.ca_file]
    client = [*tls, "--cert", pem.client_cert, "--key", pem.client_key]
    der = ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text())
    allowed = ["--allow", Certificate(der, {}).fingerprint]
    server = started(*tls, "--cert", pem.server_cert, "--key", pem.server_key, *allowed, "serve")
    server.next_line()
    assert output(started(*client, "call")) == ["hello client"]


def test_actions(started, grape, tmp_path):
    pem = make_ca(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text())
    (tmp_path / "acl.json").write_text(json.dumps({Certificate(der, {}).fingerprint: ["getIpInfo"]}))
    log = tmp_path / "access.log"
    actions = example("actions.py", grape)
    serving = started(*actions, "--sec", tmp_path, "serve", "--access-log", log)
    assert serving.next_line().startswith("serving rest:util:net on port ")
    assert "'asked by': 'anybody'" in output(started(*actions, "call", "getIpInfo", '"8.8.8.8"'))[0]
    assert output(started(*actions, "call", "add", 1, 2, 3)) == ["6"]
    streaming = [*map(str, actions), "stream", "upperStream"]
    said = subprocess.run(streaming, input=b"so much" * 100_000, capture_output=True, timeout=30, check=True)
    assert said.stdout == b"SO MUCH" * 100_000
    secured = [*actions, "--sec", tmp_path, "call"]
    assert "'asked by': 'client'" in output(started(*secured, "getIpInfo", '"8.8.8.8"'))[0]
    refused = started(*secured, "add", 1)
    assert refused.wait(30) == 1
    assert refused.lines == ["the worker's own error: ERR_API_AUTH"]
    assert serving.stop() == 0
    assert len(log.read_text().splitlines()) == 5


def test_aio_actions(started, grape):
    assert output(started(*example("aio_actions.py", grape))) == [
        "0.25",
        "ERR_DIVIDED_BY_ZERO",
        "ERR_API_ARGS: b: Expected `float`, got `str`",
        "ERR_API_ARGS: b is missing",
    ]
