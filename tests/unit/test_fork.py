"""A synchronous client that was used before a fork works in both processes after it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from grenache_py import Grape, Link, PeerRPCClient, PeerRPCServer
from grenache_py.errors import LookupEmptyError
from tests.scripted import ScriptedServer, reply
from tests.unit.test_peer import echo, grape_with

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
