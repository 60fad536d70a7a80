"""The Node peer of ``examples/node-peer`` in a market with a Python peer, on a Node Grape and one of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from grenache_py import Grape, Link, PeerRPCClient, PeerRPCServer
from grenache_py.errors import RemoteError
from orderbook.errors import InvalidFieldError
from orderbook.model import Instrument
from tests.harness import Process, eventually, need_node, start_node

MARKET = "BTC-USD"
FOLDER = Path(__file__).parents[2] / "examples" / "node-peer"


class NodePeer:
    """``node examples/node-peer/peer.js``; ``seen`` is all that it has said."""

    def __init__(self, name: str, grape: str, *options: str):
        argv = [need_node(), str(FOLDER / "peer.js"), "--name", name, "--grape", grape, "--market", MARKET]
        self.name = name
        self.process = Process([*argv, *options])
        self.seen: list[Any] = []
        try:
            self.port: int = self.wait_for("ready")["port"]
        except BaseException:
            self.process.stop()
            raise
        self.destination = f"127.0.0.1:{self.port}"

    def wait_for(self, kind: str, match: Callable[[Any], bool] = lambda said: True) -> Any:
        """The next thing of this kind that it says."""
        while True:
            said = self.process.next_json()
            self.seen.append(said)
            if kind in said and match(said[kind]):
                return said[kind]

    def submit(self, side: str, quantity: str, price: str) -> Any:
        """Place an order on its standard input, and return it when its way through the network is over."""
        self.process.send_line(f"{side} {quantity} {price}")
        return self.wait_for("order")

    @property
    def orders(self) -> dict[str, Any]:
        self.process.send_line("orders")
        return {order["id"]: order for order in self.wait_for("orders")}

    @property
    def trades(self) -> list[Any]:
        """All so far, of which it has told."""
        assert self.orders is not None
        return [said["trade"] for said in self.seen if "trade" in said]


class PythonPeer:
    """``orderbook peer`` and its client API."""

    def __init__(self, name: str, grape: str):
        self.name = name
        argv = [sys.executable, "-m", "orderbook", "peer", "--name", name, "--grape", grape, "--ready-json"]
        self.process = Process(
            [*argv, "--market", MARKET, "--host", "127.0.0.1", "--open", "--api", "127.0.0.1:0"]
        )
        try:
            self.api: str = self.process.next_json()["ready"]["api"]
        except BaseException:
            self.process.stop()
            raise

    def get(self, path: str) -> Any:
        return requests.get(self.api + path, timeout=10).json()

    def submit(self, side: str, quantity: str, price: str) -> Any:
        order = {"market": MARKET, "side": side, "quantity": quantity, "price": price, "owner": self.name}
        return requests.post(f"{self.api}/orders", json=order, timeout=10).json()

    def cancel(self, id: str) -> Any:
        return requests.delete(f"{self.api}/orders/{id}", timeout=10).json()["order"]

    @property
    def health(self) -> Any:
        return self.get("/healthz")["markets"][MARKET]

    @property
    def trades(self) -> list[Any]:
        trades: list[Any] = self.get("/trades")["trades"]
        return trades


class Network:
    """Both Grapes, Python's alice, and as many Node peers as a test starts."""

    def __init__(self, node_grape: str, our_grape: str):
        self.grapes = [node_grape, our_grape]
        self.alice = PythonPeer("alice", our_grape)
        self.node_peers: list[NodePeer] = []

    def node_peer(self, name: str, *options: str) -> NodePeer:
        """One that has met all others, and they it."""
        peer = NodePeer(name, self.grapes[len(self.node_peers) % 2], *options)
        self.node_peers.append(peer)
        everyone = len(self.node_peers)
        eventually(
            lambda: self.alice.health["peers"] == everyone, 20.0, "the Python peer to meet the Node peers"
        )
        for one in self.node_peers:
            eventually(lambda one=one: self._met(one) == everyone, 20.0, f"{one.name} to meet the others")
        return peer

    def _met(self, peer: NodePeer) -> int:
        assert peer.orders is not None  # it answers, and what it said before is read
        return len({said["met"]["name"] for said in peer.seen if "met" in said})

    def stop(self) -> list[int]:
        """Returns the exit statuses."""
        return [peer.process.stop() for peer in (*self.node_peers, self.alice)]

    def check(self) -> None:
        """At rest nothing is lost or doubled: quantities conserve, both sides of each trade agree."""
        eventually(lambda: not self.alice.health["reservations"], 10.0, "no reservation to be left")
        known: dict[tuple[str, str], list[Any]] = {}
        filled: dict[str, Decimal] = {}
        books = {order["id"]: order for order in self.alice.get("/orders")["orders"]}
        for peer in self.node_peers:
            books.update(peer.orders)
        for peer in (self.alice, *self.node_peers):
            for trade in peer.trades:
                known.setdefault((trade["match_id"], trade["maker_order_id"]), []).append(trade)
        for trades in known.values():
            assert len(trades) == 2, f"kept by both sides, once each: {trades}"
            common = trades[0].keys() & trades[1].keys()
            assert {"price", "quantity", "maker_peer", "taker_peer", "time"} <= common
            assert [trades[0][key] for key in common] == [trades[1][key] for key in common]
            for id in (trades[0]["maker_order_id"], trades[0]["taker_order_id"]):
                filled[id] = filled.get(id, Decimal(0)) + Decimal(trades[0]["quantity"])
        for id, order in books.items():
            parts = [Decimal(order.get(part, "0")) for part in ("open", "reserved", "filled", "cancelled")]
            assert sum(parts) == Decimal(order["quantity"]), order
            assert min(parts) >= 0
            assert filled.get(id, Decimal(0)) == Decimal(order["filled"]), order


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        process, ready = start_node("grape.js")
        stack.callback(process.stop)
        bootstrap = [f"127.0.0.1:{ready['dht_port']}"]
        ours = stack.enter_context(Grape(dht_port=0, api_port=0, host="127.0.0.1", bootstrap=bootstrap))
        network = Network(f"http://127.0.0.1:{ready['api_port']}", ours.url)
        stack.callback(network.stop)
        yield network
        statuses = network.stop()
        assert statuses == [0] * len(statuses), "they end in good order"


def test_python_and_node_peers_trade_in_both_directions(network: Network) -> None:
    alice, nina = network.alice, network.node_peer("nina", "--sell", "0.5@101.00", "--buy", "2@90.00")

    # A Python order fills against the Node peer's resting order, at its price.
    placed = alice.submit("buy", "0.2", "103.00")
    assert placed["order"]["status"] == "filled"
    [trade] = placed["trades"]
    assert (trade["price"], trade["quantity"], trade["maker_peer"]) == ("101.00", "0.2", "nina")
    assert nina.wait_for("trade")["match_id"] == trade["match_id"]
    assert nina.orders[trade["maker_order_id"]]["open"] == "0.3"

    # A Node order fills against Python's resting order, and what is left of it rests.
    resting = alice.submit("buy", "1", "100.00")["order"]
    order = nina.submit("sell", "1.5", "99.99")
    assert (order["filled"], order["open"]) == ("1", "0.5")
    taken = nina.trades[-1]
    assert (taken["price"], taken["quantity"], taken["maker_peer"]) == ("100.00", "1", "alice")
    assert taken["maker_order_id"] == resting["id"]
    assert alice.get(f"/orders/{resting['id']}")["order"]["status"] == "filled"

    # The rest of it trades with a Python order that comes later, best price first.
    placed = alice.submit("buy", "0.7", "101.00")
    assert [(trade["price"], trade["quantity"]) for trade in placed["trades"]] == [
        ("99.99", "0.5"),
        ("101.00", "0.2"),
    ]
    network.check()


def test_the_best_price_is_taken_and_the_other_lock_released(network: Network) -> None:
    nina = network.node_peer("nina", "--sell", "1@101.00")
    nora = network.node_peer("nora", "--sell", "1@102.00")
    alice = network.alice

    # The Python peer takes the better of two Node peers, who are both asked.
    placed = alice.submit("buy", "1", "105.00")
    assert [trade["maker_peer"] for trade in placed["trades"]] == ["nina"]
    [offered] = [nora.wait_for("offered")]
    assert nora.wait_for("released") == {"lock_id": offered["lock_id"], "by": "alice"}
    [order] = nora.orders.values()
    assert (order["open"], order["reserved"]) == ("1", "0")

    # A Node peer takes the better of a Python and a Node peer, and combines them when it needs more.
    resting = alice.submit("sell", "1", "103.00")["order"]
    assert nina.submit("buy", "0.4", "104.00")["filled"] == "0.4"
    assert [trade["maker_peer"] for trade in nina.trades[1:]] == ["nora"]
    eventually(lambda: not alice.health["reservations"], what="the lock at alice to be released")
    order = nina.submit("buy", "1", "103.00")
    assert (order["filled"], order["open"]) == ("1", "0")
    taken = {trade["maker_peer"]: (trade["price"], trade["quantity"]) for trade in nina.trades[2:]}
    assert taken == {"nora": ("102.00", "0.6"), "alice": ("103.00", "0.4")}
    assert alice.get(f"/orders/{resting['id']}")["order"]["open"] == "0.6"
    network.check()


def test_orders_that_have_not_met_find_each_other(network: Network) -> None:
    """A late joiner: nobody announced the older order to it, the heartbeats tell."""
    alice = network.alice
    resting = alice.submit("sell", "1", "100.00")["order"]
    nina = NodePeer("nina", network.grapes[0])
    network.node_peers.append(nina)
    nina.submit("buy", "1", "100.00")
    path = f"/orders/{resting['id']}"
    eventually(lambda: alice.get(path)["order"]["status"] == "filled", 20.0, "the orders to meet")
    eventually(lambda: [order["filled"] for order in nina.orders.values()] == ["1"])
    network.check()


class Stranger:
    """A peer that speaks the protocol by hand, to see what the Node peer answers."""

    def __init__(self, client: PeerRPCClient, peer: NodePeer, name: str = "stranger"):
        self._client = client
        self._peer = peer
        self.name = name

    def ask(self, type: str, payload: Any) -> Any:
        envelope = {"type": type, "from": self.name, "payload": payload}
        return self._client.request_to(self._peer.destination, f"orderbook:{MARKET}", envelope, timeout=10)

    def announce(self, quantity: str, /, *, price: str = "100.00", round: int = 1, **changes: Any) -> Any:
        order = {"id": "order", "market": MARKET, "side": "buy", "price": price, "quantity": quantity}
        return self.ask("AnnounceOpenOrder", {"order": {**order, **changes}, "round": round})

    def confirm(self, match_id: str, offer: Any) -> Any:
        payload = {"match_id": match_id, "lock_id": offer["lock_id"], "fills": offer["fills"]}
        return self.ask("CrossPeerMatch", payload)


@pytest.fixture
def client(network: Network) -> Iterator[PeerRPCClient]:
    with Link(network.grapes[1]) as link, PeerRPCClient(link) as client:
        yield client


def test_a_lease_that_runs_out_frees_the_quantity(network: Network, client: PeerRPCClient) -> None:
    nina = network.node_peer("nina", "--sell", "1@100.00", "--lease", "0.3")
    stranger = Stranger(client, nina)
    offer = stranger.announce("0.6")
    assert offer["fully_matched"] is True
    assert 0 < offer["lease"] <= 300
    assert stranger.announce("1", round=2)["fills"][0]["quantity"] == "0.4", "no lot is promised twice"
    assert stranger.announce("1", round=3) == {"contended": True, "from": "nina"}
    [order] = nina.orders.values()
    assert (order["open"], order["reserved"]) == ("0", "1")

    expired = nina.wait_for("expired", lambda lock: lock["lock_id"] == offer["lock_id"])
    assert expired["of"] == "stranger"
    late = stranger.confirm("m-1", offer)
    assert (late["status"], late["from"]) == ("rejected", "nina")
    assert "lock_gone" in late["reason"]
    assert stranger.confirm("m-1", offer) == late, "the answer never changes"
    placed = network.alice.submit("buy", "1", "100.00")
    assert placed["order"]["status"] == "filled"
    network.check()


def test_what_a_node_peer_answers(network: Network, client: PeerRPCClient) -> None:
    nina = network.node_peer("nina", "--sell", "1@100.00", "--sell", "0.00000001@100.01", "--buy", "3@99.99")
    stranger, other = Stranger(client, nina), Stranger(client, nina, "other")

    heartbeat = stranger.ask("Heartbeat", {"sequence": 1, "instrument": Instrument(MARKET).fingerprint})
    assert (heartbeat["from"], heartbeat["best_bid"], heartbeat["best_ask"]) == ("nina", "99.99", "100.00")
    assert heartbeat["instrument"] == Instrument(MARKET).fingerprint

    # The same announcement is one announcement.
    offer = stranger.announce("2", price="100.01")
    assert [fill["quantity"] for fill in offer["fills"]] == ["1", "0.00000001"]
    assert (offer["quantity"], offer["fully_matched"]) == ("1.00000001", False)
    assert stranger.announce("2", price="100.01")["lock_id"] == offer["lock_id"]
    assert other.announce("1") == {"contended": True, "from": "nina"}
    assert stranger.announce("1", price="99.00", round=8) is None

    # A lock belongs to whom it was made for.
    assert other.ask("ReleaseLock", {"lock_id": offer["lock_id"]}) == {"released": False}
    assert other.confirm("m-1", offer)["status"] == "rejected"
    assert stranger.ask("ReleaseLock", {"lock_id": offer["lock_id"]}) == {"released": True}
    assert stranger.ask("ReleaseLock", {"lock_id": offer["lock_id"]}) == {"released": False}

    # Confirming less than was reserved frees the rest; the answer to a repeated confirmation is the same.
    offer = stranger.announce("1", round=2)
    [fill] = offer["fills"]
    answer = stranger.confirm("m-2", {**offer, "fills": [{**fill, "quantity": "0.25"}]})
    assert answer["status"] == "committed"
    [trade] = answer["trades"]
    assert (trade["quantity"], trade["taker_order_id"], trade["taker_peer"]) == ("0.25", "order", "stranger")
    assert stranger.confirm("m-2", offer) == answer
    with pytest.raises(RemoteError, match="belongs to another match"):
        other.confirm("m-2", offer)
    order = nina.orders[fill["order_id"]]
    assert (order["open"], order["reserved"], order["filled"]) == ("0.75", "0", "0.25")

    # What is not within the reservation is refused, and ends it.
    for round, wrong in enumerate(({"quantity": "0.8"}, {"price": "99.00"}, {"order_id": "x"}), 3):
        offer = stranger.announce("0.5", round=round)
        [fill] = offer["fills"]
        answer = stranger.confirm(f"m-{round}", {**offer, "fills": [{**fill, **wrong}]})
        assert answer["status"] == "rejected"
        assert nina.orders[fill["order_id"]]["open"] == "0.75"

    # Who leaves needs its locks no more.
    assert stranger.announce("0.75", round=9)["fully_matched"] is True
    assert stranger.ask("Goodbye", {}) is None
    assert other.announce("0.75")["fully_matched"] is True
    assert other.ask("Goodbye", {}) is None

    # What is no request of the protocol changes nothing and ends nothing.
    nonsense = [
        None,
        5,
        [],
        {},
        {"type": "Heartbeat", "from": "x y", "payload": {}},
        {"type": "a", "from": "b"},
    ]
    for payload in nonsense:
        with pytest.raises(RemoteError, match="ERR_ORDERBOOK_"):
            client.request_to(nina.destination, f"orderbook:{MARKET}", payload, timeout=10)
    for changes in ({"side": "hold"}, {"market": "ETH-USD"}, {"price": "1e3"}, {"quantity": 5}, {"id": ""}):
        with pytest.raises(RemoteError, match="ERR_ORDERBOOK_"):
            stranger.announce("1", **changes)
    for instrument in ("0123", 5):
        with pytest.raises(RemoteError, match="disagree on what they trade"):
            stranger.ask("Heartbeat", {"sequence": 1, "instrument": instrument})
    with pytest.raises(RemoteError, match="ERR_ORDERBOOK_UNKNOWN_MARKET"):
        client.request_to(nina.destination, "orderbook:ETH-USD", {}, timeout=10)
    assert nina.orders[fill["order_id"]]["open"] == "0.75"


class Maker:
    """A maker whose answers a test decides; ``asked`` is what it was told, by type."""

    def __init__(self, link: Link, name: str):
        self.name = name
        self.asked: dict[str, list[Any]] = {"AnnounceOpenOrder": [], "CrossPeerMatch": [], "ReleaseLock": []}
        self.answers: dict[str, list[Any]] = {"AnnounceOpenOrder": [], "CrossPeerMatch": []}
        self._service = PeerRPCServer(link).transport("server")
        self._service.on("request", self._serve)
        self._service.listen(0, "127.0.0.1")
        link.announce(f"orderbook:{MARKET}", self._service.port)

    def _serve(self, rid: Any, key: Any, payload: Any, handler: Any) -> None:
        if payload["type"] == "Heartbeat":
            fingerprint = Instrument(MARKET).fingerprint
            handler.reply(None, {"sequence": 1, "instrument": fingerprint, "from": self.name})
        elif payload["type"] in self.asked:
            self.asked[payload["type"]].append(payload["payload"])
            answers = self.answers.get(payload["type"])
            handler.reply(None, answers.pop(0) if answers else None)
        else:
            handler.reply(None, None)

    def offer(self, lock_id: str, price: str, quantity: str) -> None:
        """Answer the next announcement with this."""
        fills = [{"order_id": "resting", "price": price, "quantity": quantity}]
        offer = {"lock_id": lock_id, "fills": fills, "quantity": quantity, "lease": 5000, "from": self.name}
        self.answers["AnnounceOpenOrder"].append(offer)

    def stop(self) -> None:
        self._service.stop()


@pytest.fixture
def maker(network: Network) -> Iterator[Maker]:
    with Link(network.grapes[1]) as link:
        maker = Maker(link, "mike")
        yield maker
        maker.stop()


def test_a_node_taker_asks_again_until_it_knows(network: Network, maker: Maker) -> None:
    nina = NodePeer("nina", network.grapes[1])
    network.node_peers.append(nina)
    maker.offer("lock-1", "100.00", "1")
    committed = {"status": "committed", "trades": [{"time": 17}], "from": "mike"}
    elsewhere = {**committed, "from": "another"}
    maker.answers["CrossPeerMatch"] += [None, elsewhere, {"status": "perhaps", "from": "mike"}, committed]
    order = nina.submit("buy", "1", "100.00")
    assert (order["reserved"], order["filled"]) == ("1", "0"), "in doubt"
    trade = nina.wait_for("trade")
    assert (trade["price"], trade["quantity"], trade["time"]) == ("100.00", "1", 17)
    asked = maker.asked["CrossPeerMatch"]
    assert len(asked) == 4
    assert all(question == asked[0] for question in asked), "the same question"
    [order] = nina.orders.values()
    assert (order["reserved"], order["filled"]) == ("0", "1")

    # Refused after some doubt: the quantity is the order's again.
    maker.offer("lock-2", "100.00", "1")
    maker.answers["CrossPeerMatch"] += [None, {"status": "rejected", "reason": "no", "from": "mike"}]
    order = nina.submit("buy", "2", "100.00")
    assert (order["open"], order["reserved"]) == ("1", "1")
    eventually(lambda: nina.orders[order["id"]]["open"] == "2", what="the quantity to be open again")


def test_a_node_taker_looks_elsewhere_when_it_is_refused(network: Network, maker: Maker) -> None:
    nina = NodePeer("nina", network.grapes[1])
    network.node_peers.append(nina)
    maker.offer("lock-1", "100.00", "1")
    maker.answers["CrossPeerMatch"].append({"status": "rejected", "reason": "no", "from": "mike"})
    maker.offer("lock-2", "101.00", "1")
    maker.answers["CrossPeerMatch"].append({"status": "committed", "trades": [], "from": "mike"})
    order = nina.submit("buy", "1.5", "101.00")
    assert (order["filled"], order["open"], order["reserved"]) == ("1", "0.5", "0")
    assert [asked["round"] for asked in maker.asked["AnnounceOpenOrder"]] == [1, 2]
    assert [asked["lock_id"] for asked in maker.asked["CrossPeerMatch"]] == ["lock-1", "lock-2"]


def test_offers_that_are_none_are_released(network: Network, maker: Maker) -> None:
    nina = NodePeer("nina", network.grapes[1])
    network.node_peers.append(nina)
    for price, quantity, rule in (
        ("100.01", "1", "outside the limit"),
        ("100.00", "1.1", "more is offered"),
        ("99.999", "1", "multiple of 0.01"),
        ("99", "one", "decimal string"),
    ):
        maker.offer(rule, price, quantity)
        order = nina.submit("buy", "1", "100.00")
        assert (order["open"], order["filled"]) == ("1", "0")
        assert any(rule in said.get("error", "") for said in nina.seen)
        eventually(lambda rule=rule: {"lock_id": rule} in maker.asked["ReleaseLock"], what="a release")
    assert maker.asked["CrossPeerMatch"] == []


DECIMALS = ["0.5", "78318.00", "1", "0.00000001", "9007199254740993.25", "92233720368.54775807"]
DECIMALS += ["92233720368.54775808", "90071992547409.91", "90071992547409.92", "1.50", "100", "0.30", "0.750"]
DECIMALS += [
    "",
    "0",
    "0.0",
    "-1",
    "+1",
    "1e3",
    ".5",
    "5.",
    "00.5",
    " 1",
    "1\n",
    "0.000000001",
    "0.001",
    "1" * 41,
]
UNITS = [("0.01", "0.00000001"), ("0.5", "1"), ("25", "0.25"), ("0.30", "10")]


def test_node_counts_as_python_does() -> None:
    """Instruments, their fingerprints and decimals are the same in both languages."""
    program = """
      const { Instrument } = require(process.argv[1])
      const { units, decimals } = JSON.parse(process.argv[2])
      const attempt = (step) => { try { return String(step()) } catch (error) { return null } }
      console.log(JSON.stringify(units.map(([tick, lot]) => {
        const instrument = new Instrument('BTC-USD', tick, lot)
        return [instrument.fingerprint, decimals.map((text) => [
          attempt(() => instrument.price(text)),
          attempt(() => instrument.priceText(instrument.price(text))),
          attempt(() => instrument.quantity(text)),
          attempt(() => instrument.quantityText(instrument.quantity(text)))
        ])]
      })))
    """
    argument = json.dumps({"units": UNITS, "decimals": DECIMALS})
    argv = [need_node(), "-e", program, str(FOLDER / "instrument.js"), argument]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr

    def attempt(step: Callable[[], object]) -> str | None:
        try:
            return str(step())
        except InvalidFieldError:
            return None

    expected = []
    for tick, lot in UNITS:
        instrument = Instrument(MARKET, tick=tick, lot=lot)
        rows = [
            [
                attempt(lambda i=instrument, text=text: i.price(text)),
                attempt(lambda i=instrument, text=text: i.price_text(i.price(text))),
                attempt(lambda i=instrument, text=text: i.quantity(text)),
                attempt(lambda i=instrument, text=text: i.quantity_text(i.quantity(text))),
            ]
            for text in DECIMALS
        ]
        expected.append([instrument.fingerprint, rows])
    found = json.loads(result.stdout)
    assert found == expected
    assert any(row[0] is not None for _, rows in found for row in rows)


def test_a_node_peer_that_can_not_start_says_why() -> None:
    for options, rule in (
        (["--tick", "0"], "tick must be a positive decimal"),
        (["--name", "a b"], "name must be 1 to 64 letters"),
        (["--lease", "x"], "--lease must be seconds"),
    ):
        argv = [need_node(), str(FOLDER / "peer.js"), "--grape", "http://127.0.0.1:1", *options]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert result.returncode == 1
        assert rule in result.stderr
