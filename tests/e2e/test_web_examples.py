"""The examples in web services, as processes, beside a Node worker: they call Grenache, and are called."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from grenache_py import Link, PeerRPCClient
from grenache_py.errors import GrenacheError, LookupEmptyError
from tests.e2e.test_examples import EXAMPLES, example, grape, started
from tests.harness import Process, eventually, free_port

__all__ = ["grape", "started"]


def fetch(url: str) -> tuple[int, Any]:
    """The status and the JSON at ``url``."""
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def web_url(process: Process) -> str:
    """Where it says that it serves."""
    while True:
        line = process.next_line()
        word = next((word for word in line.split() if word.startswith("http://")), None)
        if word is not None:
            return word.rstrip(";")


@pytest.fixture
def served(started, grape, tmp_path, monkeypatch):
    """Start an example with the environment that names the Grape."""
    monkeypatch.setenv("GRENACHE_GRAPE", grape)
    monkeypatch.setenv("HOME", str(tmp_path))  # gunicorn leaves a socket there
    return started


@pytest.mark.parametrize(
    ("script", "name"), [("flask_service.py", "flask_test"), ("fastapi_service.py", "fastapi_test")]
)
def test_a_web_service_calls_workers_and_is_one(started, served, grape, script, name):
    web = served(sys.executable, EXAMPLES / script, "--port", 0)
    url = web_url(web)
    assert fetch(f"{url}/double/4") == (503, {"error": "ERR_GRAPE_LOOKUP_EMPTY", "in_doubt": False})

    worker = started(*example("worker.js", grape))
    worker.next_line()
    assert fetch(f"{url}/double/4") == (200, {"doubled": 8, "by": "worker.js"})
    with Link(grape) as link:
        said = PeerRPCClient(link).request(name, None, timeout=20)
        assert said in ({"pid": web.pid}, {"answered": 1})
        worker.kill()
        assert fetch(f"{url}/double/4")[0] == 503
        assert web.stop() in (0, -15)  # uvicorn ends by the signal that it was sent
        with pytest.raises(LookupEmptyError):
            link.lookup(name, fresh=True)


def test_flask_in_processes_that_part(started, served, grape):
    started(*example("worker.js", grape)).next_line()
    port = free_port()
    options = ["-c", EXAMPLES / "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}"]
    web = served(sys.executable, "-m", "gunicorn", *options, "flask_service:create_app()")
    with Link(grape) as link:
        client = PeerRPCClient(link)

        def processes() -> set[int]:
            try:
                link.lookup("flask_test", fresh=True)
                return {outcome.payload["pid"] for outcome in client.map("flask_test", None) if outcome.ok}
            except GrenacheError:
                return set()  # none of them is ready

        both = eventually(lambda: len(found := processes()) == 2 and found, 30)
        assert web.pid not in both
        for number in range(20):
            assert fetch(f"http://127.0.0.1:{port}/double/{number}")[1]["doubled"] == 2 * number
        assert web.stop() == 0
        with pytest.raises(LookupEmptyError):
            link.lookup("flask_test", fresh=True)


def test_put_mutable(started, grape):
    dht_port = free_port()
    other = started(
        *[sys.executable, "-m", "grenache_py.grape", "--dp", dht_port, "--aph", 0, "-b", "127.0.0.1"]
    )
    url = web_url(other)
    third = started(
        *[sys.executable, "-m", "grenache_py.grape", "--dp", 0, "--aph", 0, "-b", "127.0.0.1"],
        *["--bn", f"127.0.0.1:{dht_port}"],
    )
    process = started(*example("put_mutable.py", web_url(third), "--other", url))
    assert process.wait(30) == 0, process.lines
    assert process.lines[0].startswith("stored under ")
    assert process.lines[1:] == ["version 2: second", "refused: 301", "version 3: third"]
