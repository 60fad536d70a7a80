"""A bot: buys a quantity at the lowest price that it gets, over any failure of its peer and of its own.

It bids at a first price and raises the bid from time to time, to the highest price at the most; what is left
then it cancels. How much it has bought it counts from the feed of trades. It goes on where it was when its
peer is killed and starts again, and when it is killed itself and started again with the same --state.

Start a Grape and a peer with a journal first, each in its own terminal:

    grape-py --dp 20001 --aph 30001
    orderbook peer --name alice --journal journals

then this, and sell it something, at this peer or another one:

    python examples/orderbook_bot.py --owner ann --buy 2 --first 78300 --highest 78320 --state ann.json
    orderbook submit sell 0.5 78305.00 --owner bob
"""

import argparse
import asyncio
import json
import os
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

from grenache_py.endings import quiet_end
from orderbook.client import Client, ClientError, NotYetError, PeerFailedError, RefusedError
from orderbook.records import OrderRecord, TradePage


class State:
    """The order, what it has bought, and the place in the trades up to which that is counted. They are kept
    together, so that no trade counts twice and none is left out."""

    def __init__(self, path: Path):
        self._path = path
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.order_id: str | None = kept.get("order_id")
        self.after: str | None = kept.get("after")
        self.bought = Decimal(kept.get("bought", "0"))
        self.changed = asyncio.Event()

    def count(self, page: TradePage) -> None:
        for trade in page.trades:
            for fill in trade.fills:
                if fill.order_id == self.order_id:
                    self.bought += Decimal(trade.quantity)
                    print(f"bought {trade.quantity} at {trade.price} as {fill.role}", flush=True)
        self.after = str(page.next)
        self.keep()

    def keep(self) -> None:
        content = {"order_id": self.order_id, "after": self.after, "bought": str(self.bought)}
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(content))
        os.replace(new, self._path)
        self.changed.set()


async def place(client: Client, state: State, options: argparse.Namespace) -> str:
    """The bot's order: the one that it has placed before, or a new one.

    Its client order id makes it safe to place it again when the answer, or this process, was lost in between.
    An hour after an order has closed its peer forgets the name: then the id that was kept counts.
    """
    if state.order_id is None:
        name = f"{options.owner}-{options.state.stem}"
        placed = await client.submit(
            options.market, "buy", options.buy, options.first, options.owner, client_order_id=name
        )
        state.order_id = placed.order.id
        state.keep()
    return state.order_id


async def raise_the_bid(client: Client, order_id: str, options: argparse.Namespace) -> OrderRecord:
    """Returns the order when it has closed."""
    try:
        while True:
            try:
                return (await client.closed(order_id, timeout_s=options.every)).order
            except (NotYetError, PeerFailedError):  # a peer may be away for longer than that
                order = (await client.order(order_id)).order
            price = Decimal(str(order.price)) + Decimal(options.step)
            if price > Decimal(options.highest):
                await client.cancel(order_id)
                break
            try:
                await client.amend(order_id, price=str(price))
            except RefusedError as error:
                if error.code not in ("price_reserved", "being_cancelled"):  # which pass
                    raise
    except RefusedError as error:
        if error.code != "order_closed":
            raise
    return (await client.closed(order_id)).order  # what is reserved for another peer is decided soon


async def buy(options: argparse.Namespace) -> None:
    def on_break(error: ClientError) -> None:
        print(f"waiting for the peer: {error}", flush=True)

    state = State(options.state)
    async with Client(options.api, retry_s=60) as client:
        trades = client.follow_trades(options.market, state.after, on_break=on_break)
        async with aclosing(trades) as pages:
            if state.after is None:
                state.count(await anext(pages))  # where we are, before anything can trade
            order_id = await place(client, state, options)

            async def count() -> None:
                async for page in pages:
                    state.count(page)

            counting = asyncio.ensure_future(count())
            order = await raise_the_bid(client, order_id, options)
            while state.bought < Decimal(order.filled) and not counting.done():
                state.changed.clear()
                news = asyncio.ensure_future(state.changed.wait())
                await asyncio.wait([news, counting], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
            counting.cancel()
            await asyncio.wait([counting])
            if not counting.cancelled():
                counting.result()  # raises what has ended it: that the peer has lost its history, perhaps
    print(f"position {state.bought}, as the order says: {order.filled}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Buy a quantity at the lowest price that one gets.")
    parser.add_argument("--api", default="http://127.0.0.1:8081", help="client API of a peer with a journal")
    parser.add_argument("--market", default="BTC-USD")
    parser.add_argument("--owner", required=True, help="who buys")
    parser.add_argument("--buy", required=True, metavar="QUANTITY")
    parser.add_argument("--first", required=True, metavar="PRICE", help="to bid at first")
    parser.add_argument("--highest", required=True, metavar="PRICE", help="to bid at last")
    parser.add_argument("--step", default="1", metavar="PRICE", help="by which the bid is raised")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between two bids")
    parser.add_argument("--state", type=Path, required=True, metavar="FILE", help="of this order; kept here")
    asyncio.run(buy(parser.parse_args()))


if __name__ == "__main__":
    with quiet_end():
        main()
