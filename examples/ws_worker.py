"""A worker over WebSocket: serves ws_test and announces it until Ctrl-C.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001

then this, and the client:

    python examples/ws_worker.py
    python examples/ws_client.py

With --cert, --key and --ca (PEM files) it serves over TLS and asks callers for a certificate.
"""

import argparse
import asyncio
import signal
from typing import Any

from grenache_py import tls
from grenache_py.aio import Handler, Link
from grenache_py.aio.ws import PeerRPCServer
from grenache_py.endings import quiet_end


async def handle(rid: str, key: str, payload: Any, handler: Handler) -> None:
    """Runs as a task, so it may wait for others. Replies go out in the order in which they are ready."""
    if not isinstance(payload, dict) or not isinstance(payload.get("pause"), (int, float)):
        handler.reply("ERR_NO_PAUSE")
        return
    await asyncio.sleep(payload["pause"])
    handler.reply(None, f"waited {payload['pause']} s")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Serve ws_test over WebSocket.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--cert", help="certificate of this worker")
    parser.add_argument("--key", help="its private key")
    parser.add_argument("--ca", help="who signs the certificates of callers")
    options = parser.parse_args()

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    ssl = tls.server_context(options.cert, options.key, options.ca) if options.cert else None
    async with Link(options.grape) as link:
        service = PeerRPCServer(link, ssl=ssl).transport("server")
        service.on("request", handle)
        await service.listen(0)
        await link.start_announcing("ws_test", service.port)
        print(f"serving ws_test on port {service.port}; Ctrl-C ends it", flush=True)
        await ended.wait()


if __name__ == "__main__":
    with quiet_end():
        asyncio.run(main())
