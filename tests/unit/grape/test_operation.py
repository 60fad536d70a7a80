"""What an operator relies on: state over restarts, health, metrics, withdrawal, slow clients."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest

from grenache_py.dht.bounds import WALKS_MAX
from grenache_py.dht.items import Item
from grenache_py.dht.storing import StoreReport
from grenache_py.grape import Grape
from grenache_py.grape import aio as grape_aio
from grenache_py.grape.api import Api, outcome
from grenache_py.grape.crowd import CROWDED_WALKS
from grenache_py.signing import Signer
from grenache_py.testing import Grapes
from grenache_py.transports.http1_exchange import Exchange
from tests.harness import Process, eventually
from tests.simulation.dht_network import Network
from tests.unit.grape.test_grape import call


def page(url: str, path: str) -> tuple[int, str, str]:
    """Status, content type and text of a GET."""
    try:
        with urllib.request.urlopen(f"{url}{path}", timeout=10) as reply:
            return reply.status, reply.headers["Content-Type"], reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def values(text: str) -> dict[str, float]:
    """The samples of a metrics page."""
    return {
        name: float(value)
        for name, value in re.findall(r"^(grape_\S+?(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    }


def test_the_state_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "grape.json"
    with Grape(host="127.0.0.1", state=path) as first:
        before, ports = first.node_id, (first.dht_port, first.api_port)
        key = call(first, "put", "hello")
        call(first, "announce", ["svc", 6001])
    assert path.stat().st_mode & 0o777 == 0o600
    with Grape(*ports, host="127.0.0.1", state=path) as again:
        assert again.node_id == before
        assert call(again, "get", key)["v"] == "hello"
        assert call(again, "lookup", "svc") == ["127.0.0.1:6001"]
    assert [each.name for each in tmp_path.iterdir()] == ["grape.json"]


def test_an_id_belongs_to_its_port(tmp_path: Path) -> None:
    path = tmp_path / "grape.json"
    with Grape(host="127.0.0.1", state=path) as first:
        before = first.node_id
        key = call(first, "put", "hello")
        with Grape(host="127.0.0.1", state=path) as other:
            assert other.node_id != before
            assert call(other, "get", key) is None  # saved when it starts and ends, and every minute
    with Grape(host="127.0.0.1", state=path, node_id=b"x" * 20) as given:
        assert given.node_id == b"x" * 20
        assert call(given, "get", key)["v"] == "hello"


def test_contacts_are_found_again_without_a_bootstrap(tmp_path: Path) -> None:
    path = tmp_path / "grape.json"
    with Grape(host="127.0.0.1") as other:
        with Grape(host="127.0.0.1", bootstrap=[other.dht_address], state=path) as first:
            eventually(lambda: len(first._grape.node.routing) == 1)
            ports = first.dht_port, first.api_port
        with Grape(*ports, host="127.0.0.1", state=path) as again:
            eventually(lambda: len(again._grape.node.routing) == 1)


@pytest.mark.parametrize("step_s", [-10 * 86400.0, 10 * 86400.0], ids=["back", "forward"])
def test_a_step_of_the_wall_clock_changes_nothing(
    step_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grape.json"
    true_time = time.time
    stepped_s = 0.0
    monkeypatch.setattr(time, "time", lambda: true_time() + stepped_s)
    with Grape(host="127.0.0.1", state=path) as first:
        with Grape(host="127.0.0.1", bootstrap=[first.dht_address]) as other:
            call(other, "announce", ["svc", 6001])
            key = call(other, "put", "hello")
            stepped_s = step_s
            assert call(first, "lookup", "svc") == ["127.0.0.1:6001"]
            assert call(other, "lookup", "nobody") == []
            assert call(other, "announce", ["svc", 6002]) == 1
            assert call(first, "get", key)["v"] == "hello"
            assert len(first._grape.node.routing) == 1
        ports = first.dht_port, first.api_port
    stepped_s = min(0.0, step_s)  # what was saved in the future is not older than what was saved now
    with Grape(*ports, host="127.0.0.1", state=path) as again:
        assert sorted(call(again, "lookup", "svc")) == ["127.0.0.1:6001", "127.0.0.1:6002"]
        assert call(again, "get", key)["v"] == "hello"


def test_a_damaged_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "grape.json"
    path.write_text("{", "utf-8")
    with Grape(host="127.0.0.1", state=path) as grape:
        assert call(grape, "lookup", "svc") == []
    assert (tmp_path / "grape.json.damaged").read_text("utf-8") == "{"
    assert "damaged" in caplog.text
    assert json.loads(path.read_text("utf-8"))["version"] == 1


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    grape = Grape(host="127.0.0.1", state=tmp_path / "missing" / "grape.json")
    with pytest.raises(OSError, match="missing"):
        grape.start()
    assert not grape.running


def test_a_disk_that_fails_later_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grape_aio, "_SAVE_S", 0.01)
    folder = tmp_path / "folder"
    folder.mkdir()
    warnings: list[str] = []
    grape = Grape(host="127.0.0.1", state=folder / "grape.json")
    grape.on("warning", warnings.append)
    with grape:
        (folder / "grape.json").unlink()
        eventually((folder / "grape.json").exists)
        folder.rename(tmp_path / "elsewhere")
        eventually(lambda: warnings)
        assert call(grape, "lookup", "svc") == []
    assert "cannot save the state" in warnings[0]


def test_a_killed_grape_keeps_its_id(tmp_path: Path) -> None:
    path = tmp_path / "grape.json"
    arguments = [
        sys.executable,
        "-m",
        "grenache_py.grape",
        "--aph",
        "0",
        "-b",
        "127.0.0.1",
        "--state",
        str(path),
    ]
    ids = []
    port = "0"
    for _ in range(2):
        process = Process([*arguments, "--dp", port])
        try:
            ids.append(process.next_line().split()[1])
            port = str(json.loads(path.read_text("utf-8"))["dht_port"])
        finally:
            process.kill()
    assert ids[0] == ids[1]


def test_health() -> None:
    with Grape(host="127.0.0.1") as grape:
        status, kind, text = page(grape.url, "/healthz")
        said = json.loads(text)
        assert (status, kind, said["status"], said["contacts"]) == (200, "application/json", "ok", 0)
        assert said["id"] == grape.node_id.hex()
        grape._grape.node._upkeep.ready = False
        assert page(grape.url, "/healthz")[0] == 503
        # As Node answers: these pages are for GET, everything else is the API.
        assert page(grape.url, "/nothing")[0] == 500


def test_metrics() -> None:
    with Grapes() as (first, second):
        call(second, "announce", ["svc", 6001])
        call(first, "lookup", "svc")
        call(first, "lookup", "")
        call(second, "put", "hello")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"nonsense that is long enough", ("127.0.0.1", first.dht_port))
        eventually(lambda: first._grape.node.counters.malformed)
        status, kind, text = page(first.url, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        told = values(text)
        assert told['grape_http_requests_total{kind="lookup"}'] == 2
        assert told["grape_http_errors_total"] == 1
        assert told["grape_dht_contacts"] == 1
        assert told["grape_dht_peers"] == 1
        assert told["grape_dht_items"] == 1
        assert told["grape_dht_datagrams_malformed_total"] == 1
        assert told["grape_dht_walks_total"] >= 1
        assert told["grape_http_connections"] >= 1
        for line in text.splitlines():
            assert re.fullmatch(r"# (HELP|TYPE) grape_\w+ .+|grape_\w+(\{.*\})? [0-9.e+-]+", line), line
        names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
        assert len(names) == len(set(names))


def test_what_is_withdrawn_is_gone_at_once() -> None:
    with Grape(host="127.0.0.1") as first, Grape(bootstrap=[first.dht_address]) as second:
        for grape in (first, second):
            call(grape, "announce", ["svc", 6001])
            call(grape, "announce", ["svc", 6002])
            assert call(grape, "withdraw", ["svc", 6001]) == 1
            assert call(grape, "lookup", "svc") == ["127.0.0.1:6002"]
            assert call(grape, "withdraw", ["svc", 6001]) == 0
            assert call(grape, "withdraw", ["svc", 6002]) == 1
            assert call(grape, "lookup", "svc") == []
    with Grape() as alone:
        assert call(alone, "withdraw", "svc") == "ERR_GRAPE_ANNOUNCE"
        assert call(alone, "withdraw", ["svc", "6001"]) == "ERR_GRAPE_SERVICE_PORT"


def test_a_client_that_is_slow_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grape_aio, "_REQUEST_TIMEOUT_S", 0.2)
    heads: list[Any] = [
        b"",
        b"POST /lookup HTTP/1.1\r\nHost: a\r\n",
        b"POST /lookup HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
    ]
    with Grape(host="127.0.0.1") as grape:
        for head in heads:
            with socket.create_connection(("127.0.0.1", grape.api_port), timeout=10) as client:
                client.sendall(head)
                said = client.recv(1000)
                assert said == b"" or said.startswith(b"HTTP/1.1 408 ")
        assert call(grape, "lookup", "svc") == []


def test_a_put_tells_what_became_of_it() -> None:
    with Grapes() as (_, second):
        body = json.dumps({"rid": "r", "data": "hello"}).encode()
        with urllib.request.urlopen(f"{second.url}/put", body, timeout=10) as reply:
            assert reply.headers["Grenache-Put"] == "asked=2 stored=2 silent=0 refused=0"
    report = StoreReport(4, 1, [(301, "CAS mismatch"), (203, "bad token")])
    assert str(outcome(report)) == "asked=4 stored=1 silent=1 refused=301,203"


class Put:
    """As much of an Exchange as the API uses: a put of a signed value, and what was answered."""

    method = "POST"
    target = "/put"

    def __init__(self, signer: Signer, value: str, seq: int, **more: Any) -> None:
        data = {"v": value, "k": signer.k.hex(), "sig": signer.sign(value, seq).hex(), "seq": seq, **more}
        self.body = json.dumps({"rid": "r", "data": data}).encode()

    def reply(self, status: int, body: bytes, headers: Any = ()) -> None:
        self.told = status, dict(headers)["Grenache-Put"]


def test_a_put_tells_who_refused_it_and_who_was_silent() -> None:
    network = Network()
    nodes = network.grow(6)
    api = Api(nodes[0], 20001)
    signer = Signer(b"k" * 32)

    def told(put: Put) -> tuple[int, str]:
        api.handle(cast(Exchange, put))
        network.run(5.0)
        return put.told

    assert told(Put(signer, "one", 1)) == (200, "asked=6 stored=6 silent=0 refused=0")
    # What is found on the way decides, before anything is sent.
    assert told(Put(signer, "old", 0)) == (302, "asked=1 stored=0 silent=0 refused=302")
    assert told(Put(signer, "two", 2, cas=7)) == (301, "asked=1 stored=0 silent=0 refused=301")
    # One takes no puts any more, another one learns of a newer value between being asked and being told.
    network.lost[network.address(5)] = b"1:q3:put"
    newer = Item(b"three", signer.k, signer.sign("three", 3), 3)
    put = Put(signer, "two", 2)
    api.handle(cast(Exchange, put))
    while nodes[0].walks_under_way:
        network.run(0.0005)  # less than a datagram takes
    nodes[5].items.put(newer, None, network.now)
    network.run(5.0)
    assert put.told == (200, "asked=6 stored=4 silent=1 refused=302")


class Lookup:
    """As much of an Exchange as the API uses: a look-up by a client at an address."""

    method = "POST"
    target = "/lookup"

    def __init__(self, host: str, name: str) -> None:
        self.peer = host, 1
        self.body = json.dumps({"rid": "r", "data": name}).encode()
        self.status = 0

    def reply(self, status: int, body: bytes, headers: Any = ()) -> None:
        assert not self.status
        self.status = status


def test_one_client_leaves_room_for_others() -> None:
    network = Network()
    api = Api(network.add(1, [9]), 20001)  # nobody is there, so every look-up takes its time
    asked: dict[str, list[Lookup]] = {"6.6.6.6": [], "127.0.0.1": []}

    def ask(host: str, count: int) -> None:
        for _ in range(count):
            lookup = Lookup(host, f"{host}:{len(asked[host])}")
            asked[host].append(lookup)
            api.handle(cast(Exchange, lookup))

    ask("6.6.6.6", 5000)
    taken = [lookup for lookup in asked["6.6.6.6"] if not lookup.status]
    assert CROWDED_WALKS <= len(taken) < 3 / 4 * WALKS_MAX
    ask("127.0.0.1", 500)
    assert not any(lookup.status for lookup in asked["127.0.0.1"])
    network.run(5.0)
    assert {lookup.status for lookup in asked["127.0.0.1"]} == {200}
    assert {lookup.status for lookup in asked["6.6.6.6"]} == {200, 503}
    assert len(api._crowd) == 0
