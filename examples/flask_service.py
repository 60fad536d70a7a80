"""A Flask service that calls Grenache workers, and is one itself.

After `pip install flask`, start a Grape and a worker, each in a terminal (examples/node/worker.js will do as
well):

    grape-py --dp 20001 --aph 30001
    python examples/worker.py

then this, and ask it over HTTP and over Grenache:

    python examples/flask_service.py --port 8000
    curl http://127.0.0.1:8000/double/4
    grenache-py request flask_test

It runs in one process with many threads. In several processes, as in production (examples/gunicorn.conf.py;
`pip install gunicorn`):

    gunicorn -c examples/gunicorn.conf.py --bind 127.0.0.1:8000 'flask_service:create_app()'

Link and client are safe to use in all threads. They have neither threads nor connections before their first
use, so that they may be made before the processes part (pre-fork); a service must be started after that, in
each process: see ``serve``.
"""

import argparse
import os
import signal
import threading
from typing import Any

from flask import Flask, Response, jsonify
from werkzeug.serving import make_server

from grenache_py import Link, PeerRPCClient, PeerRPCServer
from grenache_py.endings import quiet_end
from grenache_py.errors import GrapeError, PeerError, RemoteError

GRAPE = os.environ.get("GRENACHE_GRAPE", "http://127.0.0.1:30001")

link = Link(GRAPE)
client = PeerRPCClient(link)


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/double/<int:number>")
    def double(number: int) -> Any:
        # At most the time that the caller of this will wait, and another worker if one is away.
        return client.request("rpc_test", {"n": number}, timeout=5, retry=2)

    @app.errorhandler(RemoteError)
    def refused(error: RemoteError) -> tuple[Response, int]:
        return jsonify(error=error.code), 400

    @app.errorhandler(PeerError)
    @app.errorhandler(GrapeError)
    def unavailable(error: PeerError | GrapeError) -> tuple[Response, int]:
        return jsonify(error=error.code, in_doubt=error.in_doubt), 504 if error.in_doubt else 503

    return app


def serve() -> None:
    """Answer flask_test as well, in this process; each one is announced with a port of its own."""
    service = PeerRPCServer(link).transport("server")
    service.on("request", lambda rid, key, payload, handler: handler.reply(None, {"pid": os.getpid()}))
    service.listen(0)
    link.start_announcing("flask_test", service.port)


def stop() -> None:
    """Withdraw it, so that nobody calls a process that has gone."""
    link.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve HTTP with Flask, and flask_test.")
    parser.add_argument("--port", type=int, default=8000, help="port of the HTTP server; 0: any free one")
    options = parser.parse_args()

    web = make_server("127.0.0.1", options.port, create_app(), threaded=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        # From another thread: shutdown waits for the loop that this one runs.
        signal.signal(number, lambda *_: threading.Thread(target=web.shutdown).start())
    serve()
    print(f"serving http://127.0.0.1:{web.port}; Ctrl-C ends it", flush=True)
    web.serve_forever()
    stop()


if __name__ == "__main__":
    with quiet_end():
        main()
