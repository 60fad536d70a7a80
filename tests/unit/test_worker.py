"""Workers of actions and their clients, in both flavours and over both transports: names, the ``sec:`` twin,
rights, ends.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from functools import partial

import pytest

from grenache_py import Actions, Grape, errors, limits
from grenache_py.acl import AclFile
from grenache_py.sec import Sec, load_client_context, load_sec
from grenache_py.tls import Certificate, client_context, server_context
from tests.flavours import Aio, Sync
from tests.harness import eventually
from tests.unit.tls_files import make_ca
from tests.ws_flavours import AioWs, SyncWs

NAME = "rest:util:net"


@pytest.fixture(scope="module")
def grape():
    with Grape(host="127.0.0.1") as running:
        yield running.url


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A folder ``sec`` as a Bitfinex worker has it, but for ``acl.json``."""
    return make_ca(tmp_path_factory.mktemp("sec"))


@pytest.fixture
def sec(pem):
    """The folder with an ACL that allows our client ``getIpInfo`` alone."""
    folder = pem.ca_file.parent
    rights = {
        Certificate(ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text()), {}).fingerprint: ["getIpInfo"]
    }
    (folder / "acl.json").write_text(json.dumps(rights))
    return folder


@pytest.fixture
def actions():
    made = Actions()

    @made.export
    def getIpInfo(space, ip):  # noqa: N802
        return [ip, space.service, space.certificate and space.certificate.common_name]

    @made.export
    def ping(space):
        return "pong"

    return made


@pytest.fixture(params=[Sync, Aio, SyncWs, AioWs], ids=["sync", "aio", "sync ws", "aio ws"])
def either(request):
    made = request.param()
    yield made
    made.close()


def action_client(flavour, link, **options):
    return flavour.action_client(flavour.client(link), **options)


def test_actions_are_called_by_name(either, grape, actions):
    link = either.link(grape)
    worker = either.worker(link, [NAME, "other"], actions)
    worker.start(0, "127.0.0.1")
    client = action_client(either, link)
    assert client.request(NAME, "getIpInfo", ["8.8.8.8"]) == ["8.8.8.8", NAME, None]
    assert client.request("other", "getIpInfo", ["::1"], type=list) == ["::1", "other", None]
    assert [result.payload for result in client.map(NAME, "ping")] == ["pong"]
    assert [result.payload for result in client.map_stream(NAME, "ping", limit=1)] == ["pong"]
    with pytest.raises(errors.RemoteError, match="ERR_API_ACTION_NOTFOUND") as raised:
        client.request(NAME, "nonsense")
    assert raised.value.code == "ERR_API_ACTION_NOTFOUND"
    with pytest.raises(errors.ArgumentError, match="args: must be a list"):
        client.request(NAME, "ping", "x")
    with pytest.raises(errors.ArgumentError, match="sec: a client with a TLS context"):
        client.request(f"sec:{NAME}", "ping")
    with pytest.raises(RuntimeError):
        worker.sec_port  # noqa: B018
    with pytest.raises(RuntimeError, match="started already"):
        worker.start()


def test_the_sec_twin_heeds_the_acl(either, grape, actions, sec, tmp_path):
    log = tmp_path / "access.log"
    link = either.link(grape)
    worker = either.worker(link, NAME, actions, sec=load_sec(sec), access_log=log)
    worker.start(0, "127.0.0.1")
    assert worker.sec_port != worker.port
    secured = either.client(link, ssl=load_client_context(sec))
    client = action_client(either, link, sec=secured)

    def is_logged(lines):
        # A line is written after its reply, and one of another thread may overtake it.
        eventually(lambda: log.read_bytes().count(b"\n") == lines)

    for count, service, name in ((1, NAME, None), (2, f"sec:{NAME}", "client")):
        assert client.request(service, "getIpInfo", ["1.1.1.1"]) == ["1.1.1.1", service, name]
        is_logged(count)
    assert client.request(NAME, "ping") == "pong"
    is_logged(3)
    for count, action in ((4, "ping"), (5, "nonsense")):
        with pytest.raises(errors.RemoteError, match="ERR_API_AUTH"):
            client.request(f"sec:{NAME}", action)
        is_logged(count)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["action"], line["outcome"], bool(line["fingerprint"])) for line in lines] == [
        ("getIpInfo", "ok", False),
        ("getIpInfo", "ok", True),
        ("ping", "ok", False),
        ("ping", "ERR_API_AUTH", True),
        ("nonsense", "ERR_API_AUTH", True),
    ]
    # Rights that are given while it runs.
    (sec / "acl.json").write_text('{"*": {"ping": true}}')

    def allowed():
        try:
            return client.request(f"sec:{NAME}", "ping") == "pong"
        except errors.RemoteError:
            return False

    eventually(allowed)
    with pytest.raises(errors.RemoteError, match="ERR_API_AUTH"):
        client.request(f"sec:{NAME}", "getIpInfo", ["1.1.1.1"])


def test_nobody_without_a_certificate_reaches_the_twin(either, grape, actions, sec, pem):
    # Even where the TLS context would let them connect.
    (sec / "acl.json").write_text('{"*": "*"}')
    lenient = server_context(pem.server_cert, pem.server_key, pem.ca_file, require_cert=False)
    link = either.link(grape)
    worker = either.worker(link, NAME, actions, sec=Sec(lenient, AclFile(sec / "acl.json")))
    worker.start(0, "127.0.0.1")
    stranger = action_client(either, link, sec=either.client(link, ssl=client_context(pem.ca_file)))
    with pytest.raises(errors.RemoteError, match="ERR_API_AUTH"):
        stranger.request(f"sec:{NAME}", "ping")


def test_a_twin_needs_certificates(sec, pem):
    acl = AclFile(sec / "acl.json")
    for context in (None, server_context(pem.server_cert, pem.server_key)):
        with pytest.raises(errors.ArgumentError, match="asks clients for a certificate"):
            Sec(context, acl)  # type: ignore[arg-type]


def test_the_twin_listens_above_its_worker(flavour, grape, actions, sec, monkeypatch):
    link = flavour.link(grape)
    first = flavour.worker(link, NAME, actions, sec=load_sec(sec))
    first.start(0, "127.0.0.1")
    # The place of the twin of this one is taken: nothing is left listening.
    monkeypatch.setattr(limits, "SEC_PORT_OFFSET", first.sec_port - first.port)
    port = first.port
    first.stop()
    taken = flavour.worker(link, "other", actions)
    taken.start(port + limits.SEC_PORT_OFFSET, "127.0.0.1")
    second = flavour.worker(link, NAME, actions, sec=load_sec(sec))
    with pytest.raises(errors.ListenError):
        second.start(port, "127.0.0.1")
    taken.stop()
    second.start(port, "127.0.0.1")
    assert (second.port, second.sec_port) == (port, port + limits.SEC_PORT_OFFSET)


def test_a_worker_that_stops_is_withdrawn_and_answers_what_it_has(either, grape, sec):
    begun, go_on = threading.Event(), threading.Event()
    actions = Actions()
    if not isinstance(either, Aio):

        @actions.export
        def slow(space):
            begun.set()
            assert go_on.wait(10)
            return "done"

    else:

        @actions.export
        async def slow(space):
            begun.set()
            assert await asyncio.to_thread(go_on.wait, 10)
            return "done"

    link = either.link(grape)
    worker = either.worker(link, NAME, actions, sec=load_sec(sec))
    worker.start(0, "127.0.0.1")
    client = action_client(either, either.link(grape))
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.request(NAME, "slow")))
    caller.start()
    assert begun.wait(10)
    stopper = threading.Thread(target=lambda: worker.stop(drain=10))
    stopper.start()

    def gone(name):
        try:
            link.lookup(name, fresh=True)
        except errors.LookupEmptyError:
            return True
        return False

    for name in (NAME, f"sec:{NAME}"):
        eventually(partial(gone, name))
    go_on.set()
    stopper.join(10)
    caller.join(10)
    assert answers == ["done"]
    worker.stop()  # changes nothing


def test_workers_announce_every_45_seconds(flavour, grape, actions, monkeypatch):
    link = flavour.link(grape)
    started = []
    inner = getattr(link, "inner", link)
    start = inner.start_announcing

    def record(name, port, *, interval):
        started.append((name, interval))
        return start(name, port, interval=interval)

    monkeypatch.setattr(inner, "start_announcing", record)
    flavour.worker(link, NAME, actions).start(0, "127.0.0.1")
    flavour.worker(link, NAME, actions, interval=3).start(0, "127.0.0.1")
    assert started == [(NAME, 45.0), (NAME, 3.0)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": 0}, "timeout"),
        ({"interval": -1}, "interval"),
        ({"access_log": "/no/such/x"}, "access_log"),
        ({"transport": "tcp"}, "transport"),
    ],
)
def test_options_that_cannot_be(flavour, grape, actions, options, field):
    with pytest.raises(errors.ArgumentError, match=field):
        flavour.worker(flavour.link(grape), NAME, actions, **options)


def test_a_worker_whose_certificate_names_no_address(sec):
    assert load_client_context(sec).check_hostname
    assert not load_client_context(sec, check_hostname=False).check_hostname


def test_streams_are_not_for_websocket(ws_flavour, grape, actions):
    worker = ws_flavour.worker(ws_flavour.link(grape), NAME, actions)
    actions.stream("echoStream")(lambda space, stream: None)
    with pytest.raises(errors.ArgumentError, match="transport: must be http"):
        worker.start(0, "127.0.0.1")
    client = action_client(ws_flavour, ws_flavour.link(grape))
    with pytest.raises(errors.ArgumentError, match="stream: exists only over HTTP"):
        client.stream(NAME, "echoStream")
