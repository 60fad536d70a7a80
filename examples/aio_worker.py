"""A worker with asyncio: serves rpc_test and announces it until Ctrl-C.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001

then this, and a client (examples/client.py, examples/aio_client.py or examples/node/client.js):

    python examples/aio_worker.py
"""

import argparse
import asyncio
import signal
from typing import Any

from grenache_py.aio import Handler, Link, PeerRPCServer
from grenache_py.endings import quiet_end


async def handle(rid: str, key: str, payload: Any, handler: Handler) -> None:
    """Runs as a task: others are served while it awaits."""
    if not isinstance(payload, dict) or "n" not in payload:
        handler.reply("ERR_NO_NUMBER", {"got": payload})
        return
    await asyncio.sleep(0)  # a database, another peer, …
    handler.reply(None, {"doubled": payload["n"] * 2, "by": "aio_worker.py"})


async def main() -> None:
    parser = argparse.ArgumentParser(description="Serve rpc_test.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one")
    options = parser.parse_args()

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    async with Link(options.grape) as link:
        service = PeerRPCServer(link).transport("server")
        service.on("request", handle)
        await service.listen(options.port)
        await link.start_announcing("rpc_test", service.port)
        print(f"serving rpc_test on port {service.port}; Ctrl-C ends it", flush=True)
        await ended.wait()


if __name__ == "__main__":
    with quiet_end():
        asyncio.run(main())
