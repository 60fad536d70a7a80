"""What people see in their terminal: tables of rich, with every foreign string made harmless.

Names, ids and error texts come from peers and clients. They are shown as plain text, never as markup, and
whatever is not printable (escape sequences, line breaks, characters that change the direction of writing) is
shown as its code.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from datetime import datetime, timezone

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..audit.reconcile import RULES, Report
from ..flow.replay import Counts
from ..messages import TradeRecord
from ..records import BookRecord, DoubtRecord, Health, OrderRecord, PeerRecord, ReservationRecord

FINDINGS_SHOWN = 20
KEY_SHOWN = 12
"""Digits of a key in a table: enough to tell peers apart, not to prove who is who."""
PIPE_WIDTH = 240
"""Columns where the output is no terminal: wide enough that no id is cut."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Who reads the output has gone: an error like others, which lets a task clean up; click ends the
        command. Rich would end the process from within whatever task it is."""
        raise  # it is called where that is handled


def make_console(*, stderr: bool = False) -> Console:
    """A console for the terminal, or for a pipe or file without colours and cuts."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # for terminals without ✓
    console = _Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def printable(text: str) -> str:
    r"""``text`` with all that is not printable as its code, such as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(text: object, style: str = "") -> Text:
    """Foreign ``text`` for a table or a line."""
    return Text(printable(str(text)), style=style)


def side_text(side: str) -> Text:
    return plain(side, {"buy": "green", "sell": "red"}.get(side, ""))


def time_text(time_ms: int) -> str:
    """Milliseconds since the epoch as local time of day and date."""
    try:
        moment = datetime.fromtimestamp(time_ms // 1000, timezone.utc).astimezone()
    except (OverflowError, ValueError, OSError):
        return str(time_ms)  # beyond any calendar: whoever said it is to be doubted
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ms % 1000:03}"


def _table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


_AMOUNTS = ("price", "quantity", "open", "reserved", "filled", "cancelled")


def orders_table(orders: Sequence[OrderRecord]) -> RenderableType:
    """Orders, one a row."""
    if not orders:
        return Text("no orders")
    table = _table("time", "id", "market", "side", "kind", *_AMOUNTS, "status", "owner", right=_AMOUNTS)
    for order in orders:
        amounts = (plain(getattr(order, name) or "any") for name in _AMOUNTS)
        table.add_row(
            time_text(order.time),
            plain(order.id),
            plain(order.market),
            side_text(order.side),
            plain(order_kind(order)),
            *amounts,
            plain(order_status(order)),
            plain(order.owner),
        )
    return table


def order_kind(order: OrderRecord) -> str:
    """What an order is, in a few words: ``"gtc"``, ``"ioc market, stop 77000.00"``."""
    words = [order.time_in_force if order.type == "limit" else f"{order.time_in_force} {order.type}"]
    if order.expires_ms is not None:
        words[0] += f" until {time_text(order.expires_ms)}"
    if order.post_only is not None:
        words.append("post-only")
    if order.stop_price is not None:
        words.append(f"stop {order.stop_price}")
    if order.display is not None:
        words.append(f"shows {order.display}")
    if order.partner is not None:
        words.append(f"paired with {order.partner}")
    return ", ".join(words)


def order_status(order: OrderRecord) -> str:
    """The status of an order, why it is cancelled, and what is in doubt."""
    status = order.status if order.reason is None else f"{order.status}: {order.reason}"
    return status if order.in_doubt == "0" else f"{status}, {order.in_doubt} in doubt"


def trades_table(trades: Sequence[TradeRecord]) -> RenderableType:
    """Trades, one a row."""
    if not trades:
        return Text("no trades")
    columns = ("time", "market", "price", "quantity", "maker", "taker", "taker's side")
    table = _table(*columns, "maker order", "taker order", "match", right=_AMOUNTS)
    for trade in trades:
        table.add_row(
            time_text(trade.time),
            plain(trade.market),
            plain(trade.price),
            plain(trade.quantity),
            plain(trade.maker_peer),
            plain(trade.taker_peer),
            side_text(trade.side or ""),
            plain(trade.maker_order_id),
            plain(trade.taker_order_id),
            plain(trade.match_id),
        )
    return table


def trade_text(trade: TradeRecord) -> Text:
    """A trade in one line."""
    said = f"{trade.quantity} at {trade.price}, maker {trade.maker_peer}, taker {trade.taker_peer}"
    return Text.assemble(
        time_text(trade.time), " ", plain(trade.market), " ", side_text(trade.side or ""), " ", plain(said)
    )


def order_and_trades(order: OrderRecord, trades: Sequence[TradeRecord]) -> RenderableType:
    """What came of a submitted order."""
    return Group(orders_table([order]), trades_table(trades)) if trades else orders_table([order])


def book_table(book: BookRecord) -> RenderableType:
    """Bids and asks side by side, best prices at the top."""
    table = _table("bid quantity", "bid", "ask", "ask quantity", right=("bid quantity", "bid"))
    for place in range(max(len(book.bids), len(book.asks))):
        bid = book.bids[place] if place < len(book.bids) else ("", "")
        ask = book.asks[place] if place < len(book.asks) else ("", "")
        table.add_row(plain(bid[1]), plain(bid[0], "green"), plain(ask[0], "red"), plain(ask[1]))
    if not table.row_count:
        return plain(f"the book of {book.market} is empty at this peer")
    return table


def peers_table(peers: Sequence[PeerRecord]) -> RenderableType:
    """The other peers, one a row."""
    if not peers:
        return Text("no other peers: are they announced on the same Grapes, with the same market?")
    table = _table("name", "key", "address", "market", "heard", "trades with us")
    for peer in peers:
        heard = "not yet" if peer.heard_s_ago is None else f"{peer.heard_s_ago:.1f} s ago"
        table.add_row(
            plain(peer.name or "not known yet"),
            plain("" if peer.key is None else f"{peer.key[:KEY_SHOWN]}…"),
            plain(peer.destination),
            plain(peer.market),
            heard,
            Text("yes") if peer.refused is None else plain(f"no: {peer.refused}", "red"),
        )
    return table


def reservations_table(reservations: Sequence[ReservationRecord]) -> RenderableType:
    """What is set aside for others, a row for each of the peer's orders in it."""
    if not reservations:
        return Text("nothing is reserved")
    columns = ("for peer", "and its order", "own order", "side", "price", "quantity", "expires in", "lock")
    table = _table(*columns, right=("price", "quantity", "expires in"))
    for reservation in reservations:
        for fill in reservation.fills:
            table.add_row(
                plain(reservation.peer),
                plain(reservation.for_order),
                plain(fill.order_id),
                side_text(fill.side),
                plain(fill.price),
                plain(fill.quantity),
                f"{reservation.expires_in_s:.1f} s",
                plain(reservation.lock_id),
            )
    return table


def doubts_table(doubts: Sequence[DoubtRecord]) -> RenderableType:
    """What other peers have not answered."""
    if not doubts:
        return Text("nothing is in doubt")
    columns = ("match", "own order", "side", "quantity", "prices", "maker", "at", "asked")
    table = _table(*columns, right=("quantity", "asked"))
    for doubt in doubts:
        prices = dict.fromkeys(fill.price for fill in doubt.fills)
        table.add_row(
            plain(doubt.match_id),
            plain(doubt.order_id),
            side_text(doubt.side),
            plain(doubt.quantity),
            plain(", ".join(prices)),
            plain(doubt.maker),
            plain(doubt.destination),
            f"{doubt.asked} times",
        )
    return table


# -- replay, reconciliation, demo ------------------------------------------------------------------------


def counts_line(counts: Counts) -> str:
    """A replay in one line."""
    rejected = "".join(f", {printable(code)} {count}" for code, count in counts.rejected.most_common())
    return (
        f"{counts.rows:,} rows in {counts.elapsed_s:.1f} s, {counts.orders_per_s:,.0f} requests/s: "
        f"{counts.accepted:,} of {counts.submitted:,} orders accepted, {counts.cancelled:,} cancelled, "
        f"{counts.too_late:,} cancels too late (traded){rejected}"
    )


def network_table(figures: Sequence[Health]) -> Table:
    """One row for each peer and market; narrow enough for 80 columns."""
    names = ("open\norders", "reservations", "local\ntrades", "cross-peer\ntrades", "best bid", "best ask")
    table = _table("peer", "market", *names, right=names)
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for health in figures:
        for name, market in health.markets.items():
            table.add_row(
                plain(health.peer),
                plain(name),
                f"{market.open_orders:,}",
                f"{market.reservations:,}",
                f"{market.trades - market.cross_peer_trades:,}",
                f"{market.cross_peer_trades:,}",
                plain(market.best_bid or ""),
                plain(market.best_ask or ""),
            )
    return table


def network_line(figures: Sequence[Health]) -> str:
    """All peers together in one line."""
    markets = [market for health in figures for market in health.markets.values()]
    cross = sum(market.cross_peer_trades for market in markets)
    return (
        f"{sum(market.open_orders for market in markets):,} open orders, "
        f"{sum(market.reservations for market in markets):,} reservations, "
        f"{sum(market.trades for market in markets) - cross:,} local trades, "
        f"{cross // 2:,} cross-peer trades"
    )


def report_view(report: Report) -> RenderableType:
    """What was checked, on how much, and what was found."""
    table = _table("", "rule", "checked", "broken", right=("checked", "broken"))
    broken = report.broken()
    for rule, text in RULES.items():
        count = broken.get(rule, 0)
        mark = Text("✗", "bold red") if count else Text("✓", "green")
        table.add_row(mark, text, f"{report.checked[rule]:,}", f"{count:,}" if count else "")
    parts: list[RenderableType] = [table]
    parts += [plain(finding, "red") for finding in report.findings[:FINDINGS_SHOWN]]
    if len(report.findings) > FINDINGS_SHOWN:
        parts.append(Text(f"… and {len(report.findings) - FINDINGS_SHOWN:,} more; --json has all of them"))
    if report.unchecked:
        parts.append(
            Text(f"{report.unchecked:,} orders of old trades are forgotten: their limits were not checked")
        )
    parts.append(Text(verdict(report), "bold green" if report.ok else "bold red"))
    return Group(*parts)


def verdict(report: Report) -> str:
    """The outcome in a sentence."""
    scope = (
        f"{report.peers} peers, {report.orders:,} orders ({report.open_orders:,} open), "
        f"{report.local_trades:,} local and {report.cross_peer_trades:,} cross-peer trades"
    )
    if report.ok:
        return f"All books agree: {scope}; nothing lost, nothing doubled."
    return f"The books do not agree: {len(report.findings):,} findings in {scope}."
