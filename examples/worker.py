"""A worker: serves rpc_test and announces it until Ctrl-C.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001

then this, and a client (examples/client.py, examples/aio_client.py or examples/node/client.js):

    python examples/worker.py
"""

import argparse
import signal
import threading
from typing import Any

from grenache_py import Handler, Link, PeerRPCServer
from grenache_py.endings import quiet_end


def handle(rid: str, key: str, payload: Any, handler: Handler) -> None:
    """Called in a thread of its own, so it may take its time. Replies once, now or later."""
    if not isinstance(payload, dict) or "n" not in payload:
        handler.reply("ERR_NO_NUMBER", {"got": payload})
        return
    handler.reply(None, {"doubled": payload["n"] * 2, "by": "worker.py"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve rpc_test.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one")
    options = parser.parse_args()

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())

    with Link(options.grape) as link:
        service = PeerRPCServer(link).transport("server")
        service.on("request", handle)
        service.listen(options.port)
        link.start_announcing("rpc_test", service.port)
        print(f"serving rpc_test on port {service.port}; Ctrl-C ends it", flush=True)
        while not ended.wait(1):
            pass


if __name__ == "__main__":
    with quiet_end():
        main()
