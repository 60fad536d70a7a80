"""The command line: what it prints, its exit status, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from orderbook.audit import snapshots
from orderbook.cli import host_and_port, main
from orderbook.flow.files import read_flow
from orderbook.flow.synthetic import synthesize
from tests.harness import free_port
from tests.unit.orderbook.fake_api import QUIET, FakePeer, order_record, refusal, trade_record

GRAPE = "http://127.0.0.1:1"
"""Where nobody is: a peer that starts asks again and again."""

Peers = Callable[..., list[FakePeer]]


@pytest.fixture
def fakes() -> Iterator[Peers]:
    """``fakes("alice", "bob")`` serves fake peers from a loop in another thread: commands run their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: list[FakePeer] = []

    def start(*names: str) -> list[FakePeer]:
        peers = [FakePeer(name) for name in names]
        for peer in peers:
            asyncio.run_coroutine_threadsafe(peer.start(), loop).result(10)
            started.append(peer)
        return peers

    yield start
    for peer in started:
        asyncio.run_coroutine_threadsafe(peer.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def answer(result: Result) -> Any:
    """The one line of JSON that a command printed."""
    [line] = result.stdout.splitlines()
    return json.loads(line)


def refusing(response: Callable[[], web.Response]) -> Callable[[web.Request], Any]:
    async def refuse(request: web.Request) -> web.Response:
        return response()

    return refuse


# -- trading ---------------------------------------------------------------------------------------------


def test_submit_shows_the_order_and_its_trades(fakes: Peers) -> None:
    [peer] = fakes("alice")
    result = run("submit", "buy", "0.5", "78318.00", "--owner", "bob", "--api", peer.api)
    assert result.exit_code == 0
    assert peer.submitted == [
        {"market": "BTC-USD", "side": "buy", "quantity": "0.5", "price": "78318.00", "owner": "bob"}
    ]
    assert "alice-1" in result.stdout
    assert "78318.00" in result.stdout


def test_submit_says_all_that_an_order_can_be(fakes: Peers) -> None:
    [peer] = fakes("alice")
    options = ("--owner", "bob", "--market", "M", "--api", peer.api, "--json")
    run("submit", "buy", "1", "10", "--fok", "--self-trade", "decrement", *options)
    run("submit", "buy", "1", "10", "--until", "2030-01-31T18:00+00:00", "--display", "0.1", *options)
    run("submit", "buy", "1", "10", "--post-only", *options)
    run("submit", "buy", "1", "market", "--stop", "12", "--ioc", *options)
    same = ("owner", "market", "side", "quantity")
    assert [{k: v for k, v in order.items() if k not in same} for order in peer.submitted] == [
        {"price": "10", "time_in_force": "fok", "self_trade": "decrement"},
        {"price": "10", "time_in_force": "gtd", "expires_ms": 1896112800000, "display": "0.1"},
        {"price": "10", "post_only": "reject"},
        {"type": "market", "time_in_force": "ioc", "stop_price": "12"},
    ]
    assert run("submit", "buy", "1", "10", "--fok", "--ioc", *options).exit_code == 2
    assert run("submit", "buy", "1", "10", "--until", "soon", *options).exit_code == 2


def test_a_pair_says_all_of_both_orders(fakes: Peers) -> None:
    [peer] = fakes("alice")
    options = ("--stop-limit", "74900", "--client-order-id", "oco")
    result = run("pair", "sell", "0.5", "82000", "75000", *options, "--owner", "bob", "--api", peer.api)
    assert result.exit_code == 0, result.output
    assert peer.submitted == [
        {
            "market": "BTC-USD",
            "side": "sell",
            "owner": "bob",
            "resting": {"quantity": "0.5", "price": "82000", "client_order_id": "oco"},
            "stop": {
                "quantity": "0.5",
                "stop_price": "75000",
                "price": "74900",
                "client_order_id": "oco.stop",
            },
        }
    ]


def test_a_mass_quote_says_all_of_its_orders(fakes: Peers) -> None:
    [peer] = fakes("alice")
    quotes = ("--bid", "b1", "0.5", "78310", "--ask", "a1", "0", "78330", "--bid", "b2", "1", "78300")
    result = run("quote", *quotes, "--owner", "mia", "--api", peer.api)
    assert result.exit_code == 0, result.output
    rows = [("b1", "buy", "0.5", "78310"), ("b2", "buy", "1", "78300"), ("a1", "sell", "0", "78330")]
    names = ("client_order_id", "side", "quantity", "price")
    expected = [dict(zip(names, row, strict=True)) for row in rows]
    assert peer.submitted == [{"market": "BTC-USD", "owner": "mia", "quotes": expected}]
    assert "78310" in result.stdout
    assert "78330" not in result.stdout, "it is not there any more"
    assert run("quote", "--owner", "mia", "--api", peer.api).exit_code == 2


def test_doubts_are_listed_and_settled(fakes: Peers, tmp_path: Path) -> None:
    [peer] = fakes("alice")
    assert "nothing is in doubt" in run("doubts", "list", "--api", peer.api).stdout
    fill = {"order_id": "theirs", "price": "10.00", "quantity": "1"}
    doubt = {"match_id": "m-1", "market": "BTC-USD", "order_id": "o1", "side": "buy", "quantity": "1"}
    peer.doubts = [
        {
            **doubt,
            "maker": "bob\x1b[31m",
            "key": None,
            "destination": "127.0.0.1:1",
            "asked": 7,
            "fills": [fill],
        }
    ]
    text = run("doubts", "list", "--api", peer.api).stdout
    assert "m-1" in text
    assert "7 times" in text
    assert "\x1b[31m" not in text
    peer.orders["o1"] = order_record("o1")
    assert run("doubts", "resolve", "m-1", "--refused", "--by", "ann", "--api", peer.api).exit_code == 0
    proof = tmp_path / "proof.json"
    proof.write_text('{"request": {"a": 1}, "answer": {"b": 2}}')
    assert run("doubts", "resolve", "m-1", "--proof", str(proof), "--api", peer.api).exit_code == 0
    assert peer.settled == [
        {"outcome": "refused", "by": "ann"},
        {"proof": {"request": {"a": 1}, "answer": {"b": 2}}},
    ]
    for wrong in ((), ("--refused",), ("--by", "ann"), ("--refused", "--by", "ann", "--proof", str(proof))):
        assert run("doubts", "resolve", "m-1", *wrong, "--api", peer.api).exit_code == 2


def test_amend_changes_what_is_named(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.orders["o1"] = order_record("o1")
    result = run("amend", "o1", "--quantity", "3", "--api", peer.api)
    assert result.exit_code == 0
    assert peer.log[-1] == ("PATCH", "/orders/o1")
    assert (peer.orders["o1"]["quantity"], peer.orders["o1"]["price"]) == ("3", "10.00")
    assert run("amend", "o1", "--api", peer.api).exit_code == 2


def test_a_cancelled_order_says_why_and_an_uncertain_one_how_much(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.orders = {
        "o1": order_record("o1", status="cancelled", reason="broken", time_in_force="fok"),
        "o2": order_record("o2", in_doubt="0.5", price=None, type="market", time_in_force="ioc"),
    }
    text = run("orders", "--market", "BTC-USD", "--api", peer.api).stdout
    assert "cancelled: broken" in text
    assert "open, 0.5 in doubt" in text
    assert "ioc market" in text


def test_submit_for_programs(fakes: Peers) -> None:
    [peer] = fakes("alice")
    options = ("--owner", "bob", "--market", "ETH-USD", "--client-order-id", "c-1", "--json")
    result = run("submit", "sell", "2", "3.5", *options, "--api", peer.api)
    said = answer(result)
    assert said["order"]["id"] == "alice-1"
    assert said["trades"] == []
    assert peer.submitted[0]["market"] == "ETH-USD"
    assert peer.submitted[0]["client_order_id"] == "c-1"


def test_the_api_may_stand_in_the_environment(fakes: Peers) -> None:
    [peer] = fakes("alice")
    assert run("peers", env={"ORDERBOOK_API": peer.api}).exit_code == 0
    assert peer.log == [("GET", "/peers")]


def test_cancel(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.orders["o1"] = order_record("o1")
    assert answer(run("cancel", "o1", "--api", peer.api, "--json"))["order"]["status"] == "cancelled"
    peer.orders["o2"] = order_record("o2")
    assert "cancelled" in run("cancel", "o2", "--api", peer.api).stdout


def test_an_order_is_shown_or_waited_for(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.orders["o1"] = order_record("o1")
    shown = answer(run("order", "o1", "--api", peer.api, "--json"))
    assert (shown["order"]["status"], shown["trades"]) == ("open", [])
    late = run("order", "o1", "--wait", "--timeout", "0.1", "--api", peer.api)
    assert (late.exit_code, late.stderr) == (1, "Error: order o1 is open after 0.1 s: 0 of 1 filled\n")
    late = run("order", "o1", "--wait", "--timeout", "0", "--api", peer.api, "--json")
    assert (late.exit_code, answer(late)["error"]["code"]) == (1, "not_yet")
    peer.orders["o1"] = order_record("o1", status="filled", open="0", filled="1")
    result = run("order", "o1", "--wait", "--api", peer.api)
    assert result.exit_code == 0
    assert "filled" in result.stdout
    assert "wait_ms" not in peer.queries[0]
    assert all(int(query["wait_ms"]) >= 0 for query in peer.queries[1:])


def test_orders_by_page(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.orders = {f"o{n}": order_record(f"o{n}") for n in range(5)}
    result = run("orders", "--limit", "2", "--api", peer.api)
    assert "o0" in result.stdout
    assert "o2" not in result.stdout
    assert "--after 2" in result.stderr
    said = answer(run("orders", "--after", "2", "--status", "live", "--json", "--api", peer.api))
    assert [order["id"] for order in said["orders"]] == ["o2", "o3", "o4"]
    assert said["next"] is None
    assert peer.queries[-1]["status"] == "live"


def test_trades_by_page(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.trades = [trade_record(f"m{n}", maker_order_id=f"maker{n}") for n in range(3)]
    result = run("trades", "--limit", "2", "--api", peer.api)
    assert "maker1" in result.stdout
    assert "maker2" not in result.stdout
    assert [trade["match_id"] for trade in answer(run("trades", "--json", "--api", peer.api))["trades"]] == [
        "m0",
        "m1",
        "m2",
    ]


def test_book_and_peers(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.book = {"market": "BTC-USD", "bids": [["10.00", "1.5"]], "asks": [["11.00", "2"]]}
    peer.peers = [
        {
            "name": "bob",
            "destination": "127.0.0.1:5",
            "market": "BTC-USD",
            "heard_s_ago": None,
            "refused": "other tick",
        }
    ]
    assert "1.5" in run("book", "--api", peer.api).stdout
    assert answer(run("book", "BTC-USD", "--json", "--api", peer.api))["asks"] == [["11.00", "2"]]
    assert "no: other tick" in run("peers", "--api", peer.api).stdout
    assert answer(run("peers", "--json", "--api", peer.api))["peers"][0]["name"] == "bob"


def test_where_there_are_several_markets_one_must_be_named(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.markets["ETH-\x1b[31m"] = dict(QUIET)
    result = run("book", "--api", peer.api)
    assert result.exit_code == 2
    assert "BTC-USD, ETH-\\x1b[31m" in result.stderr


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("order_closed", "nothing left to cancel"),
        ("unknown_order", "is this the right --api"),
        ("busy", "another peer"),
        ("something_new", ""),
    ],
)
def test_refusals_say_what_to_do_and_end_with_1(fakes: Peers, code: str, hint: str) -> None:
    [peer] = fakes("alice")
    peer.before = refusing(lambda: refusal(code, "no\x1b[31m!", 409))
    result = run("cancel", "o1", "--api", peer.api)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no\\x1b[31m!\n")
    assert hint in result.stderr
    assert result.stdout == ""


def test_refusals_for_programs(fakes: Peers) -> None:
    [peer] = fakes("alice")
    peer.before = refusing(lambda: refusal("invalid_field", "price must be more", field="price"))
    result = run("submit", "buy", "1", "0", "--owner", "a", "--market", "M", "--json", "--api", peer.api)
    assert result.exit_code == 1
    assert answer(result) == {
        "error": {"code": "invalid_field", "message": "price must be more", "field": "price"}
    }


def test_a_peer_whose_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        api = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("peer", "--name", "alice", "--api", api, "--host", "127.0.0.1", "--grape", GRAPE)
    assert result.exit_code == 1
    assert "choose another --api or --port" in result.stderr


def test_nobody_at_the_api() -> None:
    result = run("orders", "--api", f"127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert "orderbook peer" in result.stderr


def test_an_answer_that_is_lost_leaves_the_outcome_open(fakes: Peers) -> None:
    async def cut(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    [peer] = fakes("alice")
    peer.before = cut
    result = run("submit", "buy", "1", "1", "--owner", "a", "--market", "M", "--api", peer.api)
    assert result.exit_code == 1
    assert "may have been done" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "hold", "1", "1", "--owner", "a"),
        ("submit", "buy", "1", "1"),
        ("orders", "--status", "lost"),
        ("orders", "--limit", "0"),
        ("order", "o1", "--timeout", "1"),
        ("orders", "--api", "ftp://x"),
        ("replay", "no-such-file.csv"),
        ("reconcile", "--api", "127.0.0.1:1", "--api", "http://127.0.0.1:1/"),
        ("peer", "--name", "alice", "--api", "8081"),
        ("peer", "--name", "not a name", "--api", "127.0.0.1:0"),
        ("peer", "--name", "alice", "--tick", "0"),
        ("peer", "--name", "alice", "--grape", "nowhere"),
        ("peer", "--name", "alice", "--policy", "best"),
        ("demo", "--peers", "0"),
        ("flow", "--rows", "-1"),
        ("no-such-command",),
    ],
)
def test_what_is_not_well_formed_ends_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8081", ("::1", 8081)), ("h:65535", ("h", 65535))],
)
def test_host_and_port(text: str, parts: tuple[str, int]) -> None:
    assert host_and_port(text) == parts


def test_every_command_has_help() -> None:
    for name in main.commands:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert len(result.stdout) > 200


# -- flow, replay, reconcile -----------------------------------------------------------------------------


def test_flow_to_standard_output_and_to_files(tmp_path: Path) -> None:
    result = run("flow", "--rows", "20", "--seed", "5")
    path = tmp_path / "flow.csv"
    path.write_text(result.stdout)
    assert list(read_flow(path)) == list(synthesize(20, 5))
    packed = tmp_path / "flow.csv.gz"
    for _ in range(2):
        assert run("flow", "--rows", "20", "--seed", "5", "--output", str(packed)).exit_code == 0
        assert gzip.decompress(packed.read_bytes()).decode() == result.stdout
    assert run("flow", "--output", str(tmp_path / "none" / "flow.csv")).exit_code == 1


def test_replay_over_several_peers(fakes: Peers, tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    run("flow", "--rows", "300", "--output", str(path))
    peers = fakes("alice", "bob")
    apis = [argument for peer in peers for argument in ("--api", peer.api)]
    said = answer(run("replay", str(path), *apis, "--rows", "200", "--window", "8", "--json"))
    assert said["rows"] == 200
    assert said["accepted"] == said["submitted"] == sum(len(peer.submitted) for peer in peers)
    assert all(peer.submitted for peer in peers)
    assert said["cancelled"] == sum(method == "DELETE" for peer in peers for method, _ in peer.log)
    result = run("replay", str(path), *apis, "--rows", "50")
    assert result.exit_code == 0
    assert result.stdout.startswith("50 rows in ")


def test_replay_of_a_broken_flow(fakes: Peers, tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    path.write_text("elapsed_ms,action,id,side,price,quantity\n0,new,1,buy,1,0\n")
    [peer] = fakes("alice")
    result = run("replay", str(path), "--api", peer.api)
    assert result.exit_code == 1
    assert "the flow: line 2: quantity must be more than zero" in result.stderr


def test_replay_at_a_peer_that_fails(fakes: Peers, tmp_path: Path) -> None:
    async def fail(request: web.Request) -> web.Response | None:
        return refusal("internal", "a fault", 500) if request.method == "POST" else None

    path = tmp_path / "flow.csv"
    run("flow", "--rows", "50", "--output", str(path))
    [peer] = fakes("alice")
    peer.before = fail
    result = run("replay", str(path), "--api", peer.api)
    assert result.exit_code == 1
    assert f"Error: {peer.api}: a fault" in result.stderr


def test_reconcile(fakes: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "POLL_S", 0.001)
    alice, bob = fakes("alice", "bob")
    apis = ("--api", alice.api, "--api", bob.api)
    result = run("reconcile", *apis)
    assert result.exit_code == 0
    assert "All books agree: 2 peers" in result.stdout
    assert answer(run("reconcile", *apis, "--json"))["ok"] is True

    bob.orders = {"o1": order_record("o1", open="2")}
    bob.markets["BTC-USD"]["best_bid"] = "10.00"
    result = run("reconcile", *apis)
    assert result.exit_code == 1
    assert "conservation: order o1 at bob: quantity 1 is not open 2" in result.stdout
    said = run("reconcile", *apis, "--json")
    assert said.exit_code == 1
    assert [finding["rule"] for finding in answer(said)["findings"]] == ["conservation"]
