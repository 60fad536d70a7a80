"""A client of the order book: an order at one peer meets an order at another.

Start a Grape and two peers first, each in its own terminal:

    grape-py --dp 20001 --aph 30001
    python examples/orderbook_worker.py --name alice --api-port 8081    # or: orderbook peer
    python examples/orderbook_worker.py --name bob --api-port 8082

and, once they know each other (`orderbook peers` tells; it takes a moment):

    python examples/orderbook_client.py --api http://127.0.0.1:8081 --api http://127.0.0.1:8082
"""

import argparse
import asyncio

from grenache_py.endings import quiet_end
from orderbook.client import Client, RefusedError


async def main() -> None:
    parser = argparse.ArgumentParser(description="Trade at two peers.")
    parser.add_argument("--api", action="append", help="client API of a peer; give two")
    options = parser.parse_args()
    first, second = options.api or ("http://127.0.0.1:8081", "http://127.0.0.1:8082")

    async with Client(first) as alice, Client(second) as bob:
        # Prices and quantities are decimal strings: they stay exact.
        resting = await alice.submit("BTC-USD", "sell", "0.5", "78318.00", owner="ann")
        print("rests at the first peer:", resting.order.quantity, "at", resting.order.price)

        # A client_order_id makes it safe to submit again when an answer is lost.
        placed = await bob.submit("BTC-USD", "buy", "0.2", "78320.00", owner="ben", client_order_id="ben-1")
        for trade in placed.trades:
            print("traded:", trade.quantity, "at", trade.price, "with", trade.maker_peer)
        print("the second order is", placed.order.status)

        left = await alice.order(resting.order.id)
        print("left of the first order:", left.order.open)
        print("taken back:", (await alice.cancel(resting.order.id)).cancelled)

        try:
            await alice.cancel(resting.order.id)
        except RefusedError as error:
            print("a peer says no:", error.code)


if __name__ == "__main__":
    with quiet_end():
        asyncio.run(main())
