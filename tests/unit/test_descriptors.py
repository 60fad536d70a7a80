"""Services of a process that may open few files: they serve on, turn away whom they cannot hold, and do not
spin.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from grenache_py import Link
from grenache_py.tls import client_context
from grenache_py.ws import PeerRPCClient
from tests.harness import Process, eventually
from tests.unit.scarce_service import DESCRIPTORS
from tests.unit.tls_files import make_ca

HELLO = b'["1",null,"hello"]'
BUSY = b'[null, "ERR_BUSY", null]'
SERVICE = Path(__file__).with_name("scarce_service.py")


KINDS = ["sync uvloop", "aio asyncio", "aio uvloop"]


@pytest.fixture(params=KINDS)
def service(request):
    process = Process([sys.executable, str(SERVICE), *request.param.split()])
    yield process, int(process.next_line())
    process.kill()


class Crowd:
    """Many callers at once."""

    def __init__(self, port: int, stack: ExitStack):
        self._port = port
        self._stack = stack

    def come(self) -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        return self._stack.enter_context(caller)

    def ask(self, payload: str, caller: socket.socket | None = None) -> socket.socket:
        caller = caller or self.come()
        body = json.dumps(["1", "k", payload]).encode()
        try:
            caller.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        except ConnectionError:
            pass  # turned away already
        return caller


def said(caller: socket.socket) -> bytes:
    try:
        return caller.recv(1000)
    except ConnectionError:
        return b""


def test_who_keeps_connections_open_for_nothing_shuts_nobody_out(service):
    process, port = service
    with ExitStack() as stack:
        crowd = Crowd(port, stack)
        silent = [crowd.come() for _ in range(3 * DESCRIPTORS)]
        for _ in range(5):
            assert HELLO in said(crowd.ask("hello"))
        process.send_line("")
        assert float(process.next_line()) < 0.5
        assert len(silent) == 3 * DESCRIPTORS


def test_who_cannot_be_held_is_told_so(service):
    process, port = service
    with ExitStack() as stack:
        crowd = Crowd(port, stack)
        waiting = busy = 0
        for _ in range(DESCRIPTORS):
            caller = crowd.ask("hello")
            answer = said(caller)
            if HELLO in answer:
                crowd.ask("wait", caller)
                waiting += 1
            busy += BUSY in answer
        assert waiting > DESCRIPTORS // 4
        assert busy > 0
        assert waiting + busy < DESCRIPTORS  # the rest was not even told
        process.send_line("release")
        assert float(process.next_line()) < 0.5
        eventually(lambda: HELLO in said(crowd.ask("hello")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "begun"])
def test_handshakes_that_are_not_ended_shut_nobody_out(kind, beginning, tmp_path):
    pem = make_ca(tmp_path)
    argv = [sys.executable, str(SERVICE), *kind.split(), str(pem.server_cert), str(pem.server_key)]
    process = Process(argv)
    port = int(process.next_line())
    context = client_context(pem.ca_file)
    try:
        with ExitStack() as stack:
            crowd = Crowd(port, stack)
            for _ in range(3 * DESCRIPTORS):
                with suppress(ConnectionError):
                    crowd.come().sendall(beginning)
            for _ in range(3):
                with context.wrap_socket(crowd.come(), server_hostname="127.0.0.1") as caller:
                    crowd.ask("hello", caller)
                    assert HELLO in said(caller)
            process.send_line("")
            assert float(process.next_line()) < 0.5
    finally:
        process.kill()


@pytest.mark.parametrize("beginning", [b"", b"GET /ws HTTP/1.1\r\nHost: "], ids=["silent", "begun"])
def test_who_asks_for_no_websocket_shuts_nobody_out(beginning):
    process = Process([sys.executable, str(SERVICE), "ws", "uvloop"])
    port = int(process.next_line())
    try:
        with ExitStack() as stack, Link("http://127.0.0.1:1") as link, PeerRPCClient(link) as client:
            crowd = Crowd(port, stack)
            for _ in range(3 * DESCRIPTORS):
                with suppress(ConnectionError):
                    crowd.come().sendall(beginning)
            for _ in range(3):
                assert client.request_to(f"127.0.0.1:{port}", "k", "hello", timeout=3) == "hello"
    finally:
        process.kill()
