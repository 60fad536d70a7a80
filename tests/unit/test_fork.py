"""A synchronous client that was used before a fork works in both processes after it."""

from __future__ import annotations

import os

import pytest

from grenache_py import Link, PeerRPCClient, PeerRPCServer
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
