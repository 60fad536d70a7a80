"""A synchronous client that was used before a fork works in both processes after it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import grenache_py.ws
from grenache_py import Grape, Link, PeerRPCClient, PeerRPCServer
from grenache_py.errors import LookupEmptyError
from tests.scripted import ScriptedServer, reply
from tests.unit.test_peer import echo, grape_with
from tests.ws_flavours import HANDSHAKE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    # Python 3.12 warns of forks beside threads, which is what is tested.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def test_parent_and_child_have_connections_of_their_own():
    with Link("http://127.0.0.1:1") as serving, PeerRPCServer(serving) as server:
        service = server.transport()
        service.on("request", echo)
        service.listen(0, "127.0.0.1")
        with grape_with(service) as grape, Link(grape.url) as link, PeerRPCClient(link) as client:

            def use() -> bool:
                payloads = [client.request("rpc_test", number)["payload"] for number in range(20)]
                return payloads == list(range(20)) and client.map("rpc_test", 1)[0].ok

            assert use()
            read, write = os.pipe()
            child = os.fork()
            if not child:
                # Nothing of the test's own may run on in the child.
                try:
                    os.write(write, b"ok" if use() else b"wrong")
                except BaseException as error:
                    os.write(write, repr(error).encode()[:1000])
                finally:
                    os._exit(0)
            os.close(write)
            assert use()
            with open(read, "rb") as pipe:
                assert pipe.read() == b"ok"
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def in_child(work) -> str:
    """What ``work()`` returns in a child of this process, or the error that it raises there."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # nothing there may hang for ever
        try:
            os.write(write, work().encode())
        except BaseException as error:
            os.write(write, repr(error).encode()[:1000])
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return said


def test_services_and_announcements_stay_with_the_parent():
    with Grape(host="127.0.0.1") as grape, Link(grape.url) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", echo)
        service.listen(0, "127.0.0.1")
        link.start_announcing("rpc_test", service.port)

        def stop() -> str:
            link.stop()
            return "stopped"

        def serve() -> str:
            mine = PeerRPCServer(link).transport()
            mine.on("request", echo)
            mine.listen(0, "127.0.0.1")
            link.start_announcing("child", mine.port)
            answer = PeerRPCClient(link).request("child", 1)
            service.stop()  # the parent's
            link.stop()
            return str(answer["payload"])

        assert in_child(stop) == "stopped"
        assert in_child(serve) == "1"
        assert link.lookup("rpc_test", fresh=True) == [f"127.0.0.1:{service.port}"]
        assert PeerRPCClient(link).request("rpc_test", 2)["payload"] == 2
        with pytest.raises(LookupEmptyError):
            link.lookup("child", fresh=True)


def test_a_lookup_under_way_in_the_parent_is_not_waited_for_in_the_child():
    asked, go_on = threading.Event(), threading.Event()

    def slow(request):
        if not asked.is_set():
            asked.set()
            assert go_on.wait(20)
        return reply('["127.0.0.1:6001"]')

    with ScriptedServer([slow]) as grape, Link(grape.url, timeout=20) as link:
        thread = threading.Thread(target=lambda: link.lookup("rpc_test"))
        thread.start()
        assert asked.wait(10)
        try:
            assert in_child(lambda: link.lookup("rpc_test")[0]) == "127.0.0.1:6001"
        finally:
            go_on.set()
            thread.join()


@contextmanager
def idle_child() -> Iterator[None]:
    """A child of this process that does nothing."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(told, b"x")
            signal.alarm(60)
            signal.pause()
        finally:
            os._exit(0)
    try:
        assert os.read(ready, 1) == b"x"
        yield
    finally:
        os.close(ready)
        os.close(told)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def is_free(port: int, kind: int = socket.SOCK_STREAM) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def services(flavour):
    """Of each kind of server one, listening."""
    link = flavour.link("http://127.0.0.1:1")
    http = flavour.service(echo, link)
    stream = flavour.streaming(bounce, link)
    if flavour.name == "aio":
        return [http, stream]
    websocket = grenache_py.ws.PeerRPCServer(link).transport()
    websocket.on("request", echo)
    return [http, stream, websocket.listen(0, "127.0.0.1")]


async def bounce(rid, key, stream, handler):
    async for piece in stream:
        await stream.write(piece)


def test_a_child_does_not_keep_the_ports_of_its_parent(flavour):
    serving = services(flavour)
    ports = [service.port for service in serving]
    with idle_child():
        assert not any(map(is_free, ports))
        for service in serving:
            service.stop()
        assert [port for port in ports if not is_free(port)] == []


def test_a_child_does_not_keep_the_connections_of_its_parent(flavour):
    waits = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    for service, head in zip(services(flavour), (waits, waits, HANDSHAKE.encode()), strict=False):
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as caller:
            caller.sendall(head)
            assert caller.recv(1000).startswith(b"HTTP/1.1 10")  # it is in their hands
            with idle_child():
                service.stop(drain=0)
                try:
                    while caller.recv(1000):
                        pass
                except ConnectionError:
                    pass  # ended, too


def test_a_child_does_not_keep_the_ports_of_a_grape():
    grape = Grape(host="127.0.0.1")
    grape.start()
    ports = [(grape.api_port, socket.SOCK_STREAM), (grape.dht_port, socket.SOCK_DGRAM)]
    with idle_child():
        grape.stop()
        assert [port for port in ports if not is_free(*port)] == []
