"""``orderbook doubts`` with real processes: a maker dies for good between its execution and its answer."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from grenache_py import Grape
from orderbook.cli import main
from tests.harness import Process, eventually

MARKET = "BTC-USD"

ROOT = Path(__file__).resolve().parents[2]


class Peer:
    """``orderbook peer`` with a journal."""

    def __init__(self, name: str, grape: str, journals: Path, *, module: str = "orderbook"):
        self.journal = journals / f"{MARKET}.journal"
        argv = [sys.executable, "-m", module, "peer", "--name", name, "--grape", grape, "--market", MARKET]
        argv += ["--api", "127.0.0.1:0", "--host", "127.0.0.1", "--journal", str(journals), "--ready-json"]
        self._argv = argv
        self._journals = journals
        self.start()

    def start(self) -> None:
        self.process = Process(self._argv, env={"DIES_WHEN": str(self._journals)}, cwd=ROOT)
        self.api: str = self.process.next_json()["ready"]["api"]

    def submit(self, side: str, quantity: str) -> Any:
        order = {"market": MARKET, "side": side, "price": "100", "quantity": quantity, "owner": f"{side}er"}
        answer = requests.post(f"{self.api}/orders", json=order, timeout=30)
        assert answer.status_code == 201, answer.text
        return answer.json()["order"]

    def order(self, id: str) -> Any:
        return requests.get(f"{self.api}/orders/{id}", timeout=10).json()["order"]

    @property
    def market(self) -> Any:
        return requests.get(f"{self.api}/healthz", timeout=10).json()["markets"][MARKET]


def run(*arguments: str) -> Any:
    """What a command says with --json."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def exported(journal: Path) -> list[Any]:
    """All lines of a journal whose peer does not run."""
    result = CliRunner().invoke(main, ["journal", "export", str(journal)])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


class Doubt:
    """A taker in doubt about 2 of the 3 lots that it has bought, and the maker that will not come back."""

    def __init__(self, maker: Peer, taker: Peer, start: Callable[..., Peer], order_id: str):
        self.maker, self.taker, self.start, self.order_id = maker, taker, start, order_id

    @property
    def order(self) -> Any:
        return self.taker.order(self.order_id)

    def listed(self) -> list[Any]:
        doubts: list[Any] = run("doubts", "list", "--api", self.taker.api)["doubts"]
        return doubts

    def resolve(self, *how: str) -> Any:
        (doubt,) = self.listed()
        return run("doubts", "resolve", doubt["match_id"], *how, "--api", self.taker.api)

    def kept_by_the_maker(self, kind: str) -> Any:
        (line,) = [line for line in exported(self.maker.journal) if line["type"] == kind]
        return line


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    """``started("alice", journals="elsewhere", grape=url)``: a peer that ends with the test."""
    peers: list[Peer] = []
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as shared:

        def start(name: str, *, journals: str | None = None, grape: str = shared.url, **options: Any) -> Peer:
            peers.append(Peer(name, grape, tmp_path / (journals or name), **options))
            return peers[-1]

        yield start
        for peer in peers:
            peer.process.stop()


@pytest.fixture
def doubt(started: Callable[..., Peer]) -> Doubt:
    maker = started("maker", module="tests.e2e.dying_peer")
    taker = started("taker")
    for peer in (maker, taker):
        eventually(lambda peer=peer: peer.market["peers"] == 1, 30.0, "the two to meet")
    maker.submit("sell", "2")
    (maker.journal.parent / "maker").touch()
    bought = taker.submit("buy", "3")
    eventually(lambda: maker.process.returncode is not None, 10.0, "the maker to die")
    eventually(lambda: taker.market["in_doubt"] == 1, 30.0, "the taker to be in doubt")
    return Doubt(maker, taker, started, bought["id"])


def assert_settled(doubt: Doubt, settled: Any) -> None:
    """Its 2 lots have traded, once, exactly as in the maker's journal; the third is open; also after a
    restart."""
    (trade,) = settled["trades"]
    kept = doubt.kept_by_the_maker("executed")
    same = ("match_id", "price", "quantity", "maker_order_id", "taker_order_id", "maker_peer", "taker_peer")
    assert {name: trade[name] for name in same} == {name: kept[name] for name in same}
    before = doubt.order
    assert (before["status"], before["filled"], before["open"]) == ("partially_filled", "2", "1")
    assert (before["reserved"], before["in_doubt"]) == ("0", "0")
    assert doubt.listed() == []

    doubt.taker.process.kill()
    doubt.taker.start()
    assert doubt.order == before
    assert (doubt.listed(), doubt.taker.market["in_doubt"]) == ([], 0)
    assert doubt.taker.market["cross_peer_trades"] == 1
    assert doubt.taker.process.stop() == 0
    assert run("journal", "verify", str(doubt.taker.journal))["unanswered_confirmations"] == 0
    executed = [line for line in exported(doubt.taker.journal) if line["type"] == "executed"]
    assert [line["match_id"] for line in executed] == [kept["match_id"]]


def test_a_doubt_is_shown_and_outlives_the_taker(doubt: Doubt) -> None:
    for _ in range(2):
        order = eventually(
            lambda: doubt.order["open"] == "1" and doubt.order, 30.0, "what is not in doubt to open"
        )
        assert (order["filled"], order["reserved"], order["in_doubt"]) == ("0", "2", "2")
        (listed,) = doubt.listed()
        assert (listed["maker"], listed["quantity"], listed["order_id"]) == ("maker", "2", doubt.order_id)
        assert listed["match_id"] == doubt.kept_by_the_maker("executed")["match_id"]
        doubt.taker.process.kill()
        doubt.taker.start()


def test_the_proof_in_the_makers_journal_settles_it(doubt: Doubt, tmp_path: Path) -> None:
    signed, file = doubt.kept_by_the_maker("signed"), tmp_path / "proof.json"
    file.write_text(json.dumps(signed))
    assert_settled(doubt, doubt.resolve("--proof", str(file)))
    (kept,) = [line for line in exported(doubt.taker.journal) if line["type"] == "signed"]
    assert (kept["request"], kept["answer"]) == (signed["request"], signed["answer"])


def test_the_proof_behind_an_api_settles_it(doubt: Doubt) -> None:
    """A copy of the maker's journal is opened in a network of its own, where nobody meets it."""
    shutil.copytree(doubt.maker.journal.parent, doubt.maker.journal.parent.with_name("copy"))
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as alone:
        copy = doubt.start("maker", journals="copy", grape=alone.url)
        assert_settled(doubt, doubt.resolve("--proof-from", copy.api))
        assert copy.process.stop() == 0
    assert [line["type"] for line in exported(doubt.taker.journal)].count("signed") == 1


def test_somebodys_word_settles_it(doubt: Doubt) -> None:
    assert_settled(doubt, doubt.resolve("--committed", "--by", "ann"))
    types = [line["type"] for line in exported(doubt.taker.journal)]
    assert (types.count("resolved"), types.count("signed")) == (1, 0)
    (resolved,) = [line for line in exported(doubt.taker.journal) if line["type"] == "resolved"]
    assert (resolved["outcome"], resolved["by"]) == ("committed", "ann")


def test_a_changed_proof_settles_nothing(doubt: Doubt, tmp_path: Path) -> None:
    signed, file = doubt.kept_by_the_maker("signed"), tmp_path / "proof.json"
    signed["answer"]["trades"][0]["price"] = "1.00"
    file.write_text(json.dumps(signed))
    (listed,) = doubt.listed()
    argv = ["doubts", "resolve", listed["match_id"], "--proof", str(file), "--api", doubt.taker.api]
    refused = CliRunner().invoke(main, argv)
    assert refused.exit_code == 1, refused.output
    (now,) = doubt.listed()
    assert {**now, "asked": 0} == {**listed, "asked": 0}, "but that it is asked again and again"
    assert (doubt.order["filled"], doubt.order["in_doubt"]) == ("0", "2")
