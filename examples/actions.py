"""A worker of actions, as Bitfinex's are, and a client. Calls are {"action": …, "args": […]}.

Start a Grape first, in another terminal, then the worker and the client:

    grape-py --dp 20001 --aph 30001
    python examples/actions.py serve
    python examples/actions.py call getIpInfo '"8.8.8.8"'

A stream, on the same port: ``python examples/actions.py stream upperStream < README.md``.

With ``--sec FOLDER`` the worker has a twin, ``sec:rest:util:net``, on a TLS port: FOLDER holds
server-crt.pem, server-key.pem, ca-crt.pem and acl.json. A client with client-crt.pem, client-key.pem and
ca-crt.pem calls it:

    python examples/actions.py --sec sec serve
    python examples/actions.py --sec sec call getIpInfo '"8.8.8.8"'
"""

import argparse
import json
import shutil
import signal
import sys
import threading
from typing import Any, BinaryIO

from grenache_py import ActionClient, Actions, Link, PeerRPCClient, Worker
from grenache_py.actions import Space
from grenache_py.endings import quiet_end
from grenache_py.errors import Refusal, RemoteError, StatusError
from grenache_py.sec import load_client_context, load_sec

NAME = "rest:util:net"

actions = Actions()


@actions.export
def getIpInfo(space: Space, ip: str) -> list[Any]:  # noqa: N802 (the name that callers know)
    """Only what is exported can be called. Runs in a thread, so it may take its time."""
    if not ip:
        raise Refusal("ERR_IP_EMPTY")  # answered as it is
    caller = "anybody" if space.certificate is None else space.certificate.common_name
    return [ip, {"country": "US", "asked by": caller, "as": space.service}]


@actions.export
def add(space: Space, *numbers: int) -> int:
    return sum(numbers)


@actions.stream
def upperStream(space: Space, stream: BinaryIO) -> None:  # noqa: N802
    """Begins as soon as the caller does; what does not fit into memory can go through it, both ways."""
    for piece in stream:
        stream.write(piece.upper())


def serve(link: Link, options: argparse.Namespace) -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    sec = load_sec(options.sec) if options.sec else None
    worker = Worker(link, NAME, actions, sec=sec, access_log=options.access_log)
    worker.start(options.port)
    twin = f", sec:{NAME} on port {worker.sec_port}" if sec else ""
    print(f"serving {NAME} on port {worker.port}{twin}; Ctrl-C ends it", flush=True)
    while not ended.wait(1):
        pass


def client_of(link: Link, options: argparse.Namespace) -> tuple[ActionClient, str]:
    name, secured = NAME, None
    if options.sec:
        name, secured = f"sec:{NAME}", PeerRPCClient(link, ssl=load_client_context(options.sec))
    return ActionClient(PeerRPCClient(link), sec=secured), name


def call(link: Link, options: argparse.Namespace) -> None:
    client, name = client_of(link, options)
    try:
        print(client.request(name, options.action, [json.loads(text) for text in options.args]))
    except RemoteError as error:
        sys.exit(f"the worker's own error: {error.message}")


def stream(link: Link, options: argparse.Namespace) -> None:
    client, name = client_of(link, options)
    with client.stream(name, options.action, [json.loads(text) for text in options.args]) as stream:

        def send() -> None:
            shutil.copyfileobj(sys.stdin.buffer, stream)
            stream.end()

        threading.Thread(target=send, daemon=True).start()  # the answer may begin before all is sent
        try:
            shutil.copyfileobj(stream, sys.stdout.buffer)
        except StatusError as error:
            sys.exit(f"refused: {error.code}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker of actions.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--sec", help="folder with the files of the secured twin, or of a client of it")
    whats = parser.add_subparsers(required=True)
    serving = whats.add_parser("serve")
    serving.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one")
    serving.add_argument("--access-log", help="file for a line about each call")
    serving.set_defaults(what=serve)
    for what in (call, stream):
        calling = whats.add_parser(what.__name__)
        calling.add_argument("action")
        calling.add_argument("args", nargs="*", help="JSON each")
        calling.set_defaults(what=what)
    options = parser.parse_args()
    with Link(options.grape) as link:
        options.what(link, options)


if __name__ == "__main__":
    with quiet_end():
        main()
