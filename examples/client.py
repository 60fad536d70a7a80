"""A client: calls one of the workers that serve rpc_test, then all of them.

Start a Grape and at least one worker first, each in its own terminal:

    grape-py --dp 20001 --aph 30001
    python examples/worker.py        # or examples/aio_worker.py, or: node examples/node/worker.js

then

    python examples/client.py
"""

import argparse

from grenache_py import Link, PeerRPCClient
from grenache_py.endings import quiet_end
from grenache_py.errors import RemoteError


def main() -> None:
    parser = argparse.ArgumentParser(description="Call rpc_test.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape")
    options = parser.parse_args()

    with Link(options.grape) as link:
        client = PeerRPCClient(link)

        result = client.request("rpc_test", {"n": 21}, timeout=10)
        print("one of them says", result)

        try:
            client.request("rpc_test", "no number")
        except RemoteError as error:
            print("a worker's own error:", error.message, error.result)

        for answer in client.map("rpc_test", {"n": 4}, timeout=10):
            # One result per peer: a peer that fails is told here and changes nothing for the others.
            print(answer.destination, "says", answer.payload if answer.ok else answer.error)


if __name__ == "__main__":
    with quiet_end():
        main()
