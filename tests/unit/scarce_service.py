"""A service that may open few files, for test_descriptors.py: ``python scarce_service.py FLAVOUR LOOP [CERT
KEY]``, over TLS with those files.

Says on which port it listens; at each line of input, how long the processor worked for it in one second.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
import threading
import time
from typing import Any

import uvloop

import grenache_py
import grenache_py.aio
import grenache_py.ws
from grenache_py.tls import server_context

DESCRIPTORS = 80


def answer(rid, key, payload, handler):
    if payload == "wait":
        held.append(handler)
    else:
        handler.reply(None, payload)


held: list[Any] = []


def report() -> None:
    for line in sys.stdin:
        while line == "release\n" and held:
            held.pop().reply(None, "waited")
        before = time.process_time()
        time.sleep(1)
        print(time.process_time() - before, flush=True)


def tls() -> ssl.SSLContext | None:
    return server_context(*sys.argv[3:5]) if len(sys.argv) > 3 else None


def serve() -> None:
    module = grenache_py.ws if sys.argv[1] == "ws" else grenache_py
    service = module.PeerRPCServer(grenache_py.Link("http://127.0.0.1:1"), ssl=tls()).transport()
    service.on("request", answer)
    service.listen(0, "127.0.0.1")
    print(service.port, flush=True)
    report()


async def aio_serve() -> None:
    service = grenache_py.aio.PeerRPCServer(grenache_py.aio.Link("http://127.0.0.1:1"), ssl=tls()).transport()
    service.on("request", answer)
    await service.listen(0, "127.0.0.1")
    print(service.port, flush=True)
    ended = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        report()
        loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=wait, daemon=True).start()
    await ended


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    if sys.argv[1] in ("sync", "ws"):
        serve()
    else:
        (uvloop if sys.argv[2] == "uvloop" else asyncio).run(aio_serve())
