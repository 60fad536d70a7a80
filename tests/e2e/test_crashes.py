"""Real processes, real Grapes of both kinds, and ``kill -9`` in the middle of trading."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests

from grenache_py import Grape
from orderbook import limits
from tests.harness import Process, eventually
from tests.node_grapes import NodeGrape

ROOT = Path(__file__).resolve().parents[2]
MARKET = "BTC-USD"
TRADERS = 6
"""For each peer, so that at any moment some confirmation is likely to be under way."""
RESTING = 2
"""Orders of a trader that it leaves in the book: where many rest, each peer finds all it needs at home, and
none asks another one to confirm."""


class PeerProcess:
    """``orderbook peer`` with a journal; it can be killed and started again."""

    def __init__(self, name: str, grape: str, journals: Path):
        self.name = name
        self._grape = grape
        self._journals = journals / name
        self.launch()

    def start(self) -> None:
        self.launch()
        self.ready()

    def launch(self) -> None:
        argv = [sys.executable, "-m", "tests.e2e.dying_peer", "peer", "--name", self.name]
        argv += ["--grape", self._grape, "--market", MARKET, "--api", "127.0.0.1:0", "--host", "127.0.0.1"]
        argv += ["--journal", str(self._journals), "--ready-json"]
        self.process = Process(argv, env={"DIES_WHEN": str(self._journals)}, cwd=ROOT)

    def ready(self) -> None:
        """Wait until it has started."""
        self.url: str = self.process.next_json()["ready"]["api"]

    def dies_as(self, role: str) -> None:
        """Wait until it has killed itself in the middle of a confirmation, as ``"maker"`` or ``"taker"``."""
        when = self._journals / role
        when.touch()
        self.process.wait(60)
        when.unlink()

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=10).json()

    def order(self, id: str) -> Any:
        return self.get(f"/orders/{id}")["order"]

    def orders(self) -> dict[str, Any]:
        """All its orders by id, read page by page."""
        found: dict[str, Any] = {}
        after: int | None = 0
        while after is not None:
            page = self.get(f"/orders?market={MARKET}&after={after}&limit={limits.PAGE_MAX}")
            found |= {order["id"]: order for order in page["orders"]}
            after = page["next"]
        return found

    def fields(self, side: str, price: str, quantity: str) -> dict[str, str]:
        owner = f"{self.name}-{side}"
        return {"market": MARKET, "side": side, "price": price, "quantity": quantity, "owner": owner}

    def submit(self, side: str, price: str, quantity: str) -> Any:
        answer = requests.post(self.url + "/orders", json=self.fields(side, price, quantity), timeout=30)
        assert answer.status_code == 201, answer.text
        return answer.json()["order"]

    def submit_later(self, side: str, price: str, quantity: str) -> None:
        """Submit an order whose answer may take long."""
        threading.Thread(target=self.submit, args=(side, price, quantity), daemon=True).start()

    def verified(self) -> Any:
        """What ``orderbook journal verify`` says of its journal, while it does not run."""
        return json.loads(self._journal("verify", "--json"))

    def exported(self) -> list[Any]:
        return [json.loads(line) for line in self._journal("export").splitlines()]

    def _journal(self, command: str, *options: str) -> str:
        path = str(self._journals / f"{MARKET}.journal")
        argv = [sys.executable, "-m", "orderbook", "journal", command, path, *options]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout

    @property
    def market(self) -> Any:
        return self.get("/healthz")["markets"][MARKET]


@pytest.fixture
def grapes(node_grape: Callable[..., NodeGrape]) -> Iterator[list[str]]:
    """A Node Grape and one of ours in one network."""
    node = node_grape()
    with Grape(dht_port=0, api_port=0, host="127.0.0.1", bootstrap=[node.dht_address]) as ours:
        yield [node.url, ours.url]


@pytest.fixture
def peers(grapes: list[str], tmp_path: Path) -> Iterator[list[PeerProcess]]:
    started = [PeerProcess(name, grapes[n % 2], tmp_path) for n, name in enumerate(("alice", "bob", "carol"))]
    for peer in started:
        peer.ready()
    for peer in started:
        eventually(lambda peer=peer: peer.market["peers"] == 2, 30.0, "the peers to meet")
    yield started
    for peer in started:
        peer.process.stop()


class Trader(threading.Thread):
    """Submits orders that cross, at one peer, as fast as it answers, until told to stop; the older ones that
    rest it takes back."""

    def __init__(self, peer: PeerProcess, seed: int):
        super().__init__(daemon=True)
        self.peer = peer
        self._seed = seed
        self._random = Random(seed)
        self._http = requests.Session()
        self._http.trust_env = False  # its proxies; pytest changes the environment meanwhile
        self._stopped = threading.Event()
        self.told: dict[str, Any] = {}
        self.count = 0
        self._resting: list[str] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            self.count += 1
            order = {
                "market": MARKET,
                "side": self._random.choice(("buy", "sell")),
                "price": str(self._random.randint(99, 101)),
                "quantity": str(self._random.randint(1, 5)),
                "owner": f"{self.peer.name}{self._seed}-{self.count}",
            }
            try:
                self._note(self._http.post(self.peer.url + "/orders", json=order, timeout=10))
                if len(self._resting) > RESTING:
                    oldest = self._resting.pop(0)
                    self._note(self._http.delete(f"{self.peer.url}/orders/{oldest}", timeout=10))
            except requests.RequestException:
                self._stopped.wait(0.02)  # it is down

    def _note(self, answer: requests.Response) -> None:
        if answer.status_code < 300:
            told = answer.json()["order"]
            self.told[told["id"]] = told
            if told["open"] != "0":
                self._resting.append(told["id"])

    def stop(self) -> None:
        self._stopped.set()
        self.join(30)
        self._http.close()


def kill_anywhere(victim: PeerProcess, random: Random) -> None:
    """``kill -9`` at a moment of its own, while it trades."""
    traded = victim.market["cross_peer_trades"]
    eventually(lambda: victim.market["cross_peer_trades"] > traded, 30.0, f"{victim.name} to trade")
    threading.Event().wait(random.uniform(0.0, 0.05))  # anywhere in what it is doing
    victim.process.kill()
    victim.start()


def kill_taker(victim: PeerProcess) -> None:
    """With a confirmation of its own unanswered, by its journal."""
    victim.dies_as("taker")
    assert victim.verified()["unanswered_confirmations"] > 0
    victim.start()


def kill_maker(victim: PeerProcess, others: list[PeerProcess]) -> None:
    """With a confirmation executed and unanswered: somebody else is in doubt."""
    victim.dies_as("maker")
    eventually(lambda: any(peer.market["in_doubt"] for peer in others), 30.0, "somebody to be in doubt")
    victim.start()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_in_the_middle_of_confirmations_loses_and_doubles_nothing(
    peers: list[PeerProcess], seed: int
) -> None:
    random = Random(seed)
    traders = [Trader(peer, 10 * seed + n) for n, peer in enumerate(peers * TRADERS)]
    for trader in traders:
        trader.start()
    kinds = ["anywhere", "taker", "maker"] * 2
    random.shuffle(kinds)
    try:
        for kind in kinds:
            victim = random.choice(peers)
            if kind == "taker":
                kill_taker(victim)
            elif kind == "maker":
                kill_maker(victim, [peer for peer in peers if peer is not victim])
            else:
                kill_anywhere(victim, random)
    finally:
        for trader in traders:
            trader.stop()

    for peer in peers:
        eventually(lambda peer=peer: not peer.market["in_doubt"], 60.0, f"{peer.name} to know")
    reconcile = [sys.executable, "-m", "orderbook", "reconcile", "--json"]
    for peer in peers:
        reconcile += ["--api", peer.url]
    result = subprocess.run(reconcile, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    orders = {peer.name: peer.orders() for peer in peers}
    for trader in traders:
        for id, told in trader.told.items():
            now = orders[trader.peer.name][id]
            assert Decimal(now["filled"]) >= Decimal(told["filled"]), f"acknowledged {told}, and now {now}"
            if told["status"] == "cancelled":
                assert now["status"] == "cancelled"

    for peer in peers:
        assert peer.process.stop() == 0
    assert_journals_agree(peers)


def assert_journals_agree(peers: list[PeerProcess]) -> None:
    """Each trade between peers stands in both their journals, in the same words, once, and is proven by both;
    no order trades more than it is."""
    kept: dict[str, list[str]] = {}
    proven: Counter[tuple[str, str]] = Counter()
    matches: dict[str, set[str]] = {}
    with ThreadPoolExecutor() as several:
        read = list(several.map(lambda peer: (peer.verified(), peer.exported()), peers))
    for peer, (report, journal) in zip(peers, read, strict=True):
        assert report["unanswered_confirmations"] == 0
        filled: Counter[str] = Counter()
        ordered: dict[str, Decimal] = {}
        for line in journal:
            if line["type"] == "accepted":
                ordered[line["order_id"]] = Decimal(line["quantity"])
            elif line["type"] == "executed":
                for side in ("maker", "taker"):
                    if line[f"{side}_peer"] == peer.name:
                        filled[line[f"{side}_order_id"]] += Decimal(line["quantity"])
                if line["maker_peer"] != line["taker_peer"]:
                    said = json.dumps({key: value for key, value in line.items() if key != "number"})
                    kept.setdefault(said, []).append(peer.name)
                    matches.setdefault(line["match_id"], set()).add(peer.name)
            elif line["type"] == "signed":
                proven[peer.name, line["match_id"]] += 1
        assert all(quantity <= ordered[id] for id, quantity in filled.items())
    assert kept
    for said, keepers in kept.items():
        trade = json.loads(said)
        assert sorted(keepers) == sorted([trade["maker_peer"], trade["taker_peer"]]), said
    for match_id, names in matches.items():
        assert all(proven[name, match_id] == 1 for name in names), match_id


def test_a_restarted_peer_finds_what_came_while_it_was_down(peers: list[PeerProcess]) -> None:
    """It announces itself and its resting orders again: nobody has to submit anything."""
    alice, bob, _ = peers
    resting = alice.submit("sell", "100", "3")
    alice.process.kill()
    eventually(lambda: bob.market["peers"] < 2, 30.0, "bob to miss alice")
    waiting = bob.submit("buy", "101", "2")
    assert (waiting["status"], waiting["open"]) == ("open", "2")
    alice.start()
    eventually(lambda: bob.order(waiting["id"])["status"] == "filled", 30.0, "the two to meet")
    assert alice.order(resting["id"])["filled"] == "2"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_a_full_disk_stops_new_orders_and_says_so_until_there_is_room(peers: list[PeerProcess]) -> None:
    alice, bob, _ = peers
    resting = alice.submit("sell", "100", "3")
    unlimited = resource.prlimit(alice.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(alice.process.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))

    # Who asks a peer that can't write gets no promise: it stays in doubt.
    bob.submit_later("buy", "100", "1")
    eventually(lambda: alice.get("/healthz")["status"] != "ok", 30.0, "alice to notice")
    assert "the journal can't be written" in alice.get("/healthz")["status"]
    refused = requests.post(alice.url + "/orders", json=alice.fields("buy", "1", "1"), timeout=10)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "journal"
    assert "no new orders: the journal can't be written" in refused.json()["error"]["message"]
    eventually(lambda: bob.market["in_doubt"], 30.0, "bob to be in doubt")

    resource.prlimit(alice.process.pid, resource.RLIMIT_FSIZE, unlimited)
    eventually(lambda: alice.get("/healthz")["status"] == "ok", 30.0, "alice to go on")
    eventually(lambda: not bob.market["in_doubt"], 30.0, "bob to know")
    assert bob.market["cross_peer_trades"] == alice.market["cross_peer_trades"] == 1
    assert alice.order(resting["id"])["filled"] == "1"
    alice.submit("buy", "1", "1")


def test_a_peer_says_why_it_can_not_start(
    peers: list[PeerProcess], grapes: list[str], tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "orderbook", "peer", "--name", "alice", "--grape", grapes[0]]
    argv += ["--api", "127.0.0.1:0", "--journal", str(tmp_path / "alice")]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "in use by another process: stop it first" in second.stderr
    assert json.dumps(peers[0].get("/healthz")["status"]) == '"ok"'
