"""A client over WebSocket: several calls at once over one connection, the quick answers first.

Start a Grape and a worker first, each in its own terminal:

    grape-py --dp 20001 --aph 30001
    python examples/ws_worker.py

then

    python examples/ws_client.py

With --ca, --cert and --key (PEM files) it calls a worker that serves over TLS.
"""

import argparse
import threading

from grenache_py import Link, tls
from grenache_py.endings import quiet_end
from grenache_py.ws import PeerRPCClient


def main() -> None:
    parser = argparse.ArgumentParser(description="Call ws_test over WebSocket.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape")
    parser.add_argument("--ca", help="who signs the certificates of workers")
    parser.add_argument("--cert", help="our certificate")
    parser.add_argument("--key", help="its private key")
    options = parser.parse_args()

    ssl = tls.client_context(options.ca, options.cert, options.key) if options.ca else None
    with Link(options.grape) as link:
        client = PeerRPCClient(link, ssl=ssl)

        def call(pause: float) -> None:
            print(client.request("ws_test", {"pause": pause}, timeout=5), flush=True)

        threads = [threading.Thread(target=call, args=(pause,)) for pause in (0.4, 0.2, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    with quiet_end():
        main()
