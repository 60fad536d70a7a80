"""RPC over TLS: a worker that only serves clients whose certificate it knows, and a client.

Give both the PEM files of one certificate authority, and each its own certificate and key. Services are
called by IP address, so the worker's certificate must name its own, as this makes it:

    echo subjectAltName=IP:127.0.0.1 > names
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -extfile names -out server.pem

Then:

    grape-py --dp 20001 --aph 30001
    python examples/tls.py serve --ca ca.pem --cert server.pem --key server-key.pem --allow AB:CD:…
    python examples/tls.py call  --ca ca.pem --cert client.pem --key client-key.pem

``--allow`` is the SHA-256 fingerprint of a client's certificate, as this prints it:

    openssl x509 -in client.pem -noout -fingerprint -sha256
"""

import argparse
import signal
import threading
from typing import Any

from grenache_py import Handler, Link, PeerRPCClient, PeerRPCServer
from grenache_py.endings import quiet_end
from grenache_py.tls import client_context, server_context


def handle(rid: str, key: str, payload: Any, handler: Handler) -> None:
    assert handler.certificate is not None, "the server asks for one"
    handler.reply(None, f"hello {handler.certificate.common_name}")


def main() -> None:
    parser = argparse.ArgumentParser(description="RPC over TLS.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--ca", required=True, help="the authority that both trust")
    parser.add_argument("--cert", required=True, help="our certificate")
    parser.add_argument("--key", required=True, help="its key")
    parser.add_argument("--allow", action="append", default=[], help="fingerprint of a client; repeatable")
    parser.add_argument("what", choices=["serve", "call"])
    options = parser.parse_args()
    with Link(options.grape) as link:
        if options.what == "serve":
            context = server_context(options.cert, options.key, options.ca)
            service = PeerRPCServer(link, ssl=context, authorize=options.allow).transport("server")
            service.on("request", handle)
            service.listen(0)
            link.start_announcing("secret", service.port)
            ended = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: ended.set())
            print(f"serving secret on port {service.port}; Ctrl-C ends it", flush=True)
            while not ended.wait(1):
                pass
        else:
            client = PeerRPCClient(link, ssl=client_context(options.ca, options.cert, options.key))
            print(client.request("secret", None))


if __name__ == "__main__":
    with quiet_end():
        main()
