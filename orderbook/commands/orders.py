"""``orderbook submit``, ``amend``, ``cancel`` and ``orders``: a client's orders at one peer."""

from __future__ import annotations

import time
from datetime import datetime

import click

from ..client import Client
from ..model import OrderStatus
from ..records import OrderPage, OrderRecord, Placed, PlacedPair, StateRecord
from ..terms import PostOnly, SelfTrade
from .terminal import (
    after_option,
    api_option,
    ask,
    json_option,
    limit_option,
    market_option,
    only_market,
    print_json,
    tell_of_more,
)
from .views import make_console, order_and_trades, orders_table

PEER_AWAY_S = 60.0
"""How long the peer may be away of who waits for an order."""
STATUSES = ("live", "closed", *(status.value for status in OrderStatus))


class Moment(click.ParamType[int]):
    """A time of day and date, or so many seconds from now; as milliseconds since the epoch."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        try:
            if text.startswith("+"):
                return time.time_ns() // 1_000_000 + round(1000 * float(text))
            return round(1000 * datetime.fromisoformat(text).timestamp())
        except (ValueError, OverflowError, OSError):
            self.fail("must be like 2030-01-31T18:00, or +90 for 90 seconds from now", param, ctx)


@click.command(short_help="Place an order.")
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("quantity")
@click.argument("price")
@click.option("--ioc", is_flag=True, help="Immediate or cancel: what does not trade at once is cancelled.")
@click.option("--fok", is_flag=True, help="Fill or kill: all of it trades at once, or nothing.")
@click.option(
    "--until",
    type=Moment(),
    metavar="TIME",
    help="Good till then: 2030-01-31T18:00, or +90 (seconds).",
)
@click.option(
    "--post-only",
    type=click.Choice([mode.value for mode in PostOnly]),
    is_flag=False,
    flag_value=PostOnly.REJECT.value,
    help="It never takes a price: then it is refused, or its price slides away.",
)
@click.option("--stop", metavar="PRICE", help="It waits until a trade of its peer reaches this price.")
@click.option("--display", metavar="QUANTITY", help="An iceberg: it shows so much at a time.")
@click.option(
    "--self-trade",
    type=click.Choice([mode.value for mode in SelfTrade]),
    help="When it meets an older order of its owner.  [default: cancel_newest]",
)
@market_option
@click.option(
    "--owner",
    required=True,
    metavar="NAME",
    help="Whose order it is; orders of one owner at one peer never trade with each other.",
)
@click.option(
    "--client-order-id", metavar="ID", help="Your own name for it: the same again gives the same order."
)
@api_option()
@json_option
def submit(
    side: str,
    quantity: str,
    price: str,
    ioc: bool,
    fok: bool,
    until: int | None,
    post_only: str | None,
    stop: str | None,
    display: str | None,
    self_trade: str | None,
    market: str | None,
    owner: str,
    client_order_id: str | None,
    api: str,
    as_json: bool,
) -> None:
    """Place an order: SIDE is buy or sell, QUANTITY and PRICE are decimals.

    PRICE may be the word market: then it takes any price, and never rests. Answers when the order has met all
    peers; what is left of it then rests in the book, or is cancelled.

    \b
    Examples:
      orderbook submit buy 0.5 78318.00 --owner bob
      orderbook submit sell 0.5 market --owner bob
      orderbook submit buy 2 78318.00 --owner bob --fok
      orderbook submit sell 0.5 market --stop 77000.00 --owner bob
    """
    forces = {"ioc": ioc, "fok": fok, "gtd": until is not None}
    chosen = [name for name, given in forces.items() if given]
    if len(chosen) > 1:
        raise click.UsageError("--ioc, --fok and --until contradict each other")

    async def work(client: Client) -> Placed:
        return await client.submit(
            await only_market(client, market),
            side,
            quantity,
            None if price == "market" else price,
            owner,
            client_order_id,
            chosen[0] if chosen else None,
            post_only=post_only,
            stop_price=stop,
            display=display,
            expires_ms=until,
            self_trade=self_trade,
        )

    show(ask(api, work), as_json)


@click.command(short_help="Place two orders of which one cancels the other.")
@click.argument("side", type=click.Choice(["buy", "sell"]))
@click.argument("quantity")
@click.argument("price")
@click.argument("stop_price")
@click.option("--stop-limit", metavar="PRICE", help="The worst price of the stop order.  [default: any]")
@market_option
@click.option("--owner", required=True, metavar="NAME", help="Whose they are.")
@click.option(
    "--client-order-id",
    metavar="ID",
    help="Your own name for the first order; with .stop behind it, that of the other one.",
)
@api_option()
@json_option
def pair(
    side: str,
    quantity: str,
    price: str,
    stop_price: str,
    stop_limit: str | None,
    market: str | None,
    owner: str,
    client_order_id: str | None,
    api: str,
    as_json: bool,
) -> None:
    """Place two orders of which one cancels the other (OCO), both for QUANTITY.

    One rests at PRICE; the other waits until a trade of its peer reaches STOP_PRICE. As soon as one of them
    trades, the other is cancelled: never do both.

    \b
    Example: sell at 82000, or at any price when it falls to 75000
      orderbook pair sell 0.5 82000.00 75000.00 --owner bob
    """
    resting = {"quantity": quantity, "price": price}
    stop = {"quantity": quantity, "stop_price": stop_price}
    if stop_limit is not None:
        stop["price"] = stop_limit
    if client_order_id is not None:
        resting["client_order_id"], stop["client_order_id"] = client_order_id, f"{client_order_id}.stop"

    async def work(client: Client) -> PlacedPair:
        return await client.submit_pair(await only_market(client, market), side, owner, resting, stop)

    placed = ask(api, work)
    if as_json:
        print_json(placed)
    else:
        make_console().print(orders_table([placed.resting.order, placed.stop.order]))


@click.command(short_help="Set many orders of one owner at once.")
@click.option(
    "--bid",
    "bids",
    nargs=3,
    multiple=True,
    metavar="NAME QUANTITY PRICE",
    help="A buy order; may be repeated.",
)
@click.option(
    "--ask",
    "asks",
    nargs=3,
    multiple=True,
    metavar="NAME QUANTITY PRICE",
    help="A sell order; may be repeated.",
)
@market_option
@click.option("--owner", required=True, metavar="OWNER", help="Whose they are.")
@api_option()
@json_option
def quote(
    bids: tuple[tuple[str, str, str], ...],
    asks: tuple[tuple[str, str, str], ...],
    market: str | None,
    owner: str,
    api: str,
    as_json: bool,
) -> None:
    """Set many orders of one owner at once, or none of them.

    NAME is your own name for an order: one of that name is changed, and takes its place in the queue again
    unless it only gets smaller. QUANTITY is what shall be there from now on, whatever was filled before; 0
    takes it back. Orders that are not named stay as they are.

    \b
    Example:
      orderbook quote --owner mia --bid b1 0.5 78310.00 --ask a1 0.5 78330.00
    """
    sides = (("buy", bids), ("sell", asks))
    quotes = [(name, side, quantity, price) for side, rows in sides for name, quantity, price in rows]
    if not quotes:
        raise click.UsageError("name a --bid or an --ask")

    async def work(client: Client) -> list[OrderRecord | None]:
        return await client.mass_quote(await only_market(client, market), owner, quotes)

    orders = ask(api, work)
    if as_json:
        print_json({"orders": orders})
    else:
        make_console().print(orders_table([order for order in orders if order is not None]))


@click.command(short_help="Open, restrict or halt a market at a peer.")
@click.argument("state", type=click.Choice(["open", "cancel_only", "halted"]))
@click.option("--by", required=True, metavar="NAME", help="Who has decided; it is journaled.")
@market_option
@api_option()
@json_option
def state(state: str, by: str, market: str | None, api: str, as_json: bool) -> None:
    """Open a market at a peer, restrict it to cancellations, or halt it; the other peers trade on.

    What is not open takes no new orders, offers nothing to other peers, and matches nothing. What was
    reserved for another peer before may still trade. The state outlives a restart.
    """

    async def work(client: Client) -> StateRecord:
        return await client.set_state(await only_market(client, market), state, by)

    record = ask(api, work)
    if as_json:
        print_json(record)
    else:
        click.echo(f"{record.market} is {record.state}")


@click.command(short_help="Change an order.")
@click.argument("order_id")
@click.option("--price", help="The new limit.")
@click.option("--quantity", help="The new quantity, of which what was filled is a part.")
@api_option()
@json_option
def amend(order_id: str, price: str | None, quantity: str | None, api: str, as_json: bool) -> None:
    """Change price or quantity of an order, at the peer that took it.

    With the same price and no larger quantity it keeps its place in the queue; else it goes to the back, and
    trades with what it crosses now.
    """
    if price is None and quantity is None:
        raise click.UsageError("name the new --price, --quantity, or both")
    show(ask(api, lambda client: client.amend(order_id, price=price, quantity=quantity)), as_json)


def show(placed: Placed, as_json: bool) -> None:
    if as_json:
        print_json(placed)
    else:
        make_console().print(order_and_trades(placed.order, placed.trades))


@click.command(short_help="Take an order back.")
@click.argument("order_id")
@api_option()
@json_option
def cancel(order_id: str, api: str, as_json: bool) -> None:
    """Take an order back, at the peer that took it.

    What is reserved for another peer at this moment may still trade: then the order is pending_cancel.
    """
    order = ask(api, lambda client: client.cancel(order_id))
    if as_json:
        print_json({"order": order})
    else:
        make_console().print(orders_table([order]))


@click.command(short_help="Show an order, or wait until it has closed.")
@click.argument("order_id")
@click.option("--wait", is_flag=True, help="Answer when it has closed: filled, or cancelled.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    metavar="S",
    help="Wait for so many seconds at the most, then end with exit status 1.",
)
@api_option()
@json_option
def order(order_id: str, wait: bool, timeout_s: float | None, api: str, as_json: bool) -> None:
    """Show an order and its trades, at the peer that took it.

    With --wait it does so when the order has closed, also where the peer starts again meanwhile with its
    journal, if it is not away for more than a minute.

    \b
    Example:
      orderbook order ORDER_ID --wait --timeout 60 && echo "it has closed"
    """
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")

    async def work(client: Client) -> Placed:
        return await (client.closed(order_id, timeout_s=timeout_s) if wait else client.order(order_id))

    show(ask(api, work, retry_s=PEER_AWAY_S if wait else 0.0), as_json)


@click.command(short_help="List a peer's own orders.")
@click.option("--status", type=click.Choice(STATUSES), help="Only these; live ones can still trade.")
@market_option
@click.option("--owner", metavar="OWNER", help="Only those of this owner.")
@click.option("--client-order-id", metavar="ID", help="Only the one that its --owner has given this name.")
@limit_option
@after_option
@api_option()
@json_option
def orders(
    status: str | None,
    market: str | None,
    owner: str | None,
    client_order_id: str | None,
    limit: int,
    after: str | None,
    api: str,
    as_json: bool,
) -> None:
    """List a peer's own orders, in order of arrival."""

    async def work(client: Client) -> OrderPage:
        name = await only_market(client, market)
        return await client.orders_page(
            status=status,
            market=name,
            owner=owner,
            client_order_id=client_order_id,
            after=after,
            limit=limit,
        )

    page = ask(api, work)
    if as_json:
        print_json(page)
    else:
        make_console().print(orders_table(page.orders))
        tell_of_more(page.next)
