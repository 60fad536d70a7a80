"""``GET /metrics``: what a peer's markets hold and have done, for Prometheus. No IO."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from grenache_py import __version__
from grenache_py.prometheus import Page

from .hosted import HostedMarket
from .worker import Worker

COUNTED = {
    "offer": (
        "orderbook_announcements_total",
        "Orders announced by other peers, by what they were offered here.",
        ("offered", "nothing", "contended", "quota", "cool_off", "full"),
    ),
    "lock": (
        "orderbook_reservations_ended_total",
        "Reservations for other peers, by how they ended.",
        ("committed", "released", "expired", "refused", "left"),
    ),
    "confirmation": (
        "orderbook_confirmations_received_total",
        "Confirmations of other peers, by the answer or the reason of its refusal.",
        ("committed", "repeated", "lock_gone", "not_reserved", "forgotten", "other_journal"),
    ),
    "match": (
        "orderbook_confirmations_sent_total",
        "Own confirmations, by what came of each time that one was sent.",
        ("committed", "rejected", "unanswered"),
    ),
    "request": (
        "orderbook_requests_refused_total",
        "Requests of other peers that were refused with an error, by its code.",
        ("protocol", "invalid_field", "journal"),
    ),
    "answer": (
        "orderbook_answers_refused_total",
        "Answers of other peers that were not believed.",
        ("not_believed",),
    ),
    "duplicate": (
        "orderbook_duplicate_peers_total",
        "Times that two processes were heard to have one name and key: this peer's, or another's.",
        ("of_us", "of_another"),
    ),
}
"""Of what is counted by ``Market.counts``: the metric, what it says, and the reasons there may be."""


def render(worker: Worker) -> bytes:
    """The page."""
    page = Page()
    info = {"version": __version__, "peer": worker.name, "key": worker.key}
    page.metric("orderbook_info", "gauge", "The peer.", [(info, 1)])

    def gauge(name: str, text: str, value: Callable[[HostedMarket], float]) -> None:
        labelled = [({"market": market}, value(hosted)) for market, hosted in worker.markets.items()]
        page.metric(f"orderbook_{name}", "gauge", text, labelled)

    gauge("open_orders", "Live orders.", lambda h: len(h.market.book.orders))
    gauge("orders_known", "Orders that can be asked for.", lambda h: h.market.ledger.order_count)
    gauge("reservations", "Reservations for other peers.", lambda h: len(h.market.book.reservations))
    gauge("under_way", "Own orders and confirmations in the network.", lambda h: h.negotiator.under_way)
    gauge("in_doubt", "Confirmations not answered in time.", lambda h: h.negotiator.in_doubt)
    gauge("peers", "Peers that orders are announced to.", lambda h: len(h.market.roster.trading()))
    gauge("market_open", "0 while an operator has restricted or halted it.", lambda h: h.market.trades)
    gauge("journal_events_waiting", "Events that are not durable yet.", lambda h: h.journal.waiting)
    gauge("journal_trouble", "1 while the journal can't be written.", lambda h: bool(h.journal.trouble))
    trades: list[tuple[dict[str, str], float]] = []
    for name, each in worker.markets.items():
        ledger = each.market.ledger
        cross = ledger.cross_peer_trades
        trades.append(({"market": name, "kind": "local"}, ledger.trade_count - cross))
        trades.append(({"market": name, "kind": "cross_peer"}, cross))
    page.metric("orderbook_trades_total", "counter", "Trades, each once at either peer.", trades)
    for what, (metric, text, reasons) in COUNTED.items():
        page.metric(metric, "counter", text, _counts(worker.markets, what, reasons))
    return bytes(page)


def _counts(
    markets: dict[str, HostedMarket], what: str, reasons: tuple[str, ...]
) -> Iterable[tuple[dict[str, str], float]]:
    for name, hosted in markets.items():
        counts = hosted.market.counts.get(what, {})
        for reason in dict.fromkeys((*reasons, *counts)):
            yield {"market": name, "reason": reason}, counts.get(reason, 0)
