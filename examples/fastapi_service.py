"""A FastAPI service that calls Grenache workers, and is one itself.

After `pip install fastapi uvicorn`, start a Grape and a worker, each in a terminal (examples/node/worker.js
will do as well):

    grape-py --dp 20001 --aph 30001
    python examples/worker.py

then this, and ask it over HTTP and over Grenache:

    python examples/fastapi_service.py --port 8000
    curl http://127.0.0.1:8000/double/4
    grenache-py request fastapi_test

Link, client and service live as long as the application (its lifespan), on its event loop. In several
processes (uvicorn --workers) each has its own, and is announced with a port of its own.
"""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from grenache_py.aio import Handler, Link, PeerRPCClient, PeerRPCServer
from grenache_py.endings import quiet_end
from grenache_py.errors import GrapeError, PeerError, RemoteError

GRAPE = os.environ.get("GRENACHE_GRAPE", "http://127.0.0.1:30001")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # What is stopped at the end of this: first the service, then the client, then all announcements.
    async with Link(GRAPE) as link, PeerRPCClient(link) as client, PeerRPCServer(link) as server:
        app.state.client = client

        service = server.transport("server")

        @service.on("request")
        async def handle(rid: str, key: str, payload: Any, handler: Handler) -> None:
            handler.reply(None, {"answered": app.state.answered})

        await service.listen(0)
        await link.start_announcing("fastapi_test", service.port)
        yield


app = FastAPI(lifespan=lifespan)
app.state.answered = 0


@app.get("/double/{number}")
async def double(number: int) -> Any:
    # At most the time that the caller of this will wait, and another worker if one is away.
    result = await app.state.client.request("rpc_test", {"n": number}, timeout=5, retry=2)
    app.state.answered += 1
    return result


@app.exception_handler(RemoteError)
async def refused(request: Request, error: RemoteError) -> JSONResponse:
    return JSONResponse({"error": error.code}, 400)


@app.exception_handler(PeerError)
@app.exception_handler(GrapeError)
async def unavailable(request: Request, error: PeerError | GrapeError) -> JSONResponse:
    return JSONResponse({"error": error.code, "in_doubt": error.in_doubt}, 504 if error.in_doubt else 503)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve HTTP with FastAPI, and fastapi_test.")
    parser.add_argument("--port", type=int, default=8000, help="port of the HTTP server; 0: any free one")
    uvicorn.run(app, port=parser.parse_args().port)


if __name__ == "__main__":
    with quiet_end():
        main()
