"""What people see: complete, and harmless whatever a peer says."""

from __future__ import annotations

import io
import logging
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType

from orderbook.audit.reconcile import Finding, Report
from orderbook.commands import views
from orderbook.commands.terminal import SafeFormatter
from orderbook.demo.display import LineDisplay, LiveDisplay, make_display
from orderbook.flow.replay import Counts
from orderbook.messages import TradeRecord
from orderbook.records import BookRecord, Health, OrderRecord, PeerRecord
from tests.unit.orderbook.fake_api import QUIET, order_record, trade_record

NASTY = "\x1b[31m[bold]\u202eevil\r\n\x07\x9b"


def shown(view: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def order(**fields: Any) -> OrderRecord:
    return msgspec.convert(order_record(**fields), OrderRecord)


def trade(**fields: Any) -> TradeRecord:
    return msgspec.convert(trade_record(**fields), TradeRecord)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain é ✓", "plain é ✓"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202eabc", "\\u202eabc"),
        ("\x9b", "\\x9b"),
        ("", ""),
    ],
)
def test_printable(text: str, safe: str) -> None:
    assert views.printable(text) == safe


@pytest.mark.parametrize(
    "view",
    [
        views.orders_table(
            [order(id=NASTY, market=NASTY, side=NASTY, price=NASTY, status=NASTY, owner=NASTY)]
        ),
        views.trades_table([trade(market=NASTY, price=NASTY, maker_peer=NASTY, taker_order_id=NASTY)]),
        views.book_table(BookRecord(NASTY, [(NASTY, NASTY)], [(NASTY, NASTY)])),
        views.book_table(BookRecord(NASTY, [], [])),
        views.peers_table([PeerRecord(NASTY, NASTY, NASTY, 1.0, NASTY)]),
        views.report_view(Report(findings=[Finding("fills", NASTY, NASTY, NASTY)])),
        views.network_table(
            [msgspec.convert({"status": "ok", "peer": NASTY, "markets": {NASTY: QUIET}}, Health)]
        ),
        views.plain(NASTY),
    ],
    ids=["orders", "trades", "book", "empty book", "peers", "report", "network", "line"],
)
def test_nothing_foreign_reaches_the_terminal_as_it_is(view: RenderableType) -> None:
    text = shown(view, width=1000)
    assert "\\x1b[31m[bold]\\u202eevil\\r\\n\\x07\\x9b" in text, "shown as text, also what looks like markup"
    assert not set(text) & set("\x1b\u202e\r\x07\x9b")


def test_orders_show_every_amount() -> None:
    text = shown(
        views.orders_table([order(id="o-77", open="0.25", filled="0.75", status="partially_filled")])
    )
    for part in ("o-77", "BTC-USD", "buy", "10.00", "0.25", "0.75", "partially_filled", "ann"):
        assert part in text


def test_empty_lists_say_so() -> None:
    assert shown(views.orders_table([])) == "no orders\n"
    assert shown(views.trades_table([])) == "no trades\n"
    assert shown(views.peers_table([])).startswith("no other peers")
    assert "empty" in shown(views.book_table(BookRecord("BTC-USD", [], [])))


def test_a_book_of_uneven_sides() -> None:
    text = shown(views.book_table(BookRecord("BTC-USD", [("10.00", "1"), ("9.00", "2")], [("11.00", "3")])))
    first, second = [line.split() for line in text.splitlines() if "00" in line]
    assert first == ["1", "10.00", "11.00", "3"]
    assert second == ["2", "9.00"]


def test_a_time_beyond_any_calendar_is_shown_as_it_is() -> None:
    assert views.time_text(10**20) == "1" + "0" * 20
    assert views.time_text(1_700_000_000_123).endswith(".123")


def test_counts_name_rejections() -> None:
    counts = Counts(rows=1234, submitted=1000, accepted=990)
    counts.rejected["busy"] = 10
    line = views.counts_line(counts)
    assert "1,234 rows" in line
    assert "990 of 1,000 orders accepted" in line
    assert line.endswith("busy 10")


def test_a_report_that_is_fine_and_one_that_is_not() -> None:
    fine = shown(views.report_view(Report(peers=3, orders=5)))
    assert "All books agree: 3 peers, 5 orders" in fine
    assert "✗" not in fine
    findings = [Finding("fills", "alice", f"order {n}", "is wrong") for n in range(25)]
    broken = shown(views.report_view(Report(findings=findings, unchecked=2)))
    assert "fills: order 0 at alice: is wrong" in broken
    assert "order 20" not in broken
    assert "and 5 more" in broken
    assert "2 orders of old trades" in broken
    assert "The books do not agree: 25 findings" in broken
    assert broken.count("✗") == 1


def figures() -> list[Health]:
    market = {**QUIET, "open_orders": 4, "trades": 10, "cross_peer_trades": 6, "reservations": 2}
    return [
        msgspec.convert({"status": "ok", "peer": name, "markets": {"BTC-USD": market}}, Health)
        for name in ("alice", "bob")
    ]


def test_a_network_in_one_line() -> None:
    assert views.network_line(figures()) == (
        "8 open orders, 4 reservations, 8 local trades, 6 cross-peer trades"
    )


def test_the_live_table_fits_an_ordinary_terminal() -> None:
    market = {**QUIET, "best_bid": "78318.00", "best_ask": "78319.00", "open_orders": 12345}
    health = msgspec.convert({"status": "ok", "peer": "alice", "markets": {"BTC-USD": market}}, Health)
    text = shown(views.network_table([health]), width=80)
    [row] = [line.split() for line in text.splitlines() if "alice" in line]
    assert row == ["alice", "BTC-USD", "12,345", "0", "0", "0", "78318.00", "78319.00"]


def test_without_a_terminal_the_demo_says_a_line_now_and_then() -> None:
    console = Console(file=io.StringIO(), width=200)
    display = make_display(console)
    assert isinstance(display, LineDisplay)
    display.note("starting")
    display.frame(Counts(rows=5), figures())
    display.frame(Counts(rows=6), figures())
    display.close()
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "starting"
    assert len(lines) == 2
    assert lines[1].startswith("5 rows, 0 requests/s, 8 open orders")


def test_in_a_terminal_the_demo_draws_a_table_in_place() -> None:
    console = Console(file=io.StringIO(), width=150, height=50, force_terminal=True)
    display = make_display(console)
    assert isinstance(display, LiveDisplay)
    display.note("starting")
    for rows in (5, 6):
        display.frame(Counts(rows=rows), figures())
    display.close()
    display.close()
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "alice" in text
    assert "6 rows" in text
    assert text.endswith("\x1b[?25h"), "the cursor is shown again"


def test_log_lines_cannot_be_forged() -> None:
    record = logging.LogRecord("orderbook", logging.WARNING, "", 0, "refused: %s", (NASTY,), None)
    line = SafeFormatter("%(levelname)s %(message)s").format(record)
    assert line == "WARNING refused: \\x1b[31m[bold]\\u202eevil\\r\\n\\x07\\x9b"
