"""A peer of the order book inside a program of your own, with its client API, until Ctrl-C.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001

then this, and another one with another name, which can as well be `orderbook peer`:

    python examples/orderbook_worker.py --name alice --api-port 8081
    python examples/orderbook_worker.py --name bob --api-port 8082

and trade at them with examples/orderbook_client.py or `orderbook submit`.
"""

import argparse
import asyncio
import signal

from grenache_py.aio import Link
from grenache_py.endings import quiet_end
from orderbook.api import Api
from orderbook.model import Instrument
from orderbook.worker import Worker


async def main() -> None:
    parser = argparse.ArgumentParser(description="A peer of the order book.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--name", default="alice", help="unique in the network")
    parser.add_argument("--api-port", type=int, default=8081, help="port of the client API; 0: any free one")
    options = parser.parse_args()

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    instruments = [Instrument("BTC-USD", tick="0.01", lot="0.00000001")]
    async with (
        Link(options.grape) as link,
        Worker(link, options.name, instruments) as worker,
        Api(worker, port=options.api_port) as api,
    ):
        print(f"{options.name} trades BTC-USD; its client API is {api.url}", flush=True)
        await ended.wait()


if __name__ == "__main__":
    with quiet_end():
        asyncio.run(main())
