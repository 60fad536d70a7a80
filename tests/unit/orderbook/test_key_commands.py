"""``keygen`` and ``verify-trade``, and the options of ``peer`` about keys."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from orderbook.cli import main
from orderbook.signing.keyfile import load_key
from tests.unit.orderbook.fake_api import FakePeer, refusal
from tests.unit.orderbook.signing_peers import Clock, SigningPeer, confirmation


def run(*arguments: str, input: str | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def proof() -> dict[str, Any]:
    """Of a trade: bob has bought 4 at 100 of alice."""
    alice, bob = SigningPeer("alice", Clock()), SigningPeer("bob", Clock(), "alice")
    confirm, request = confirmation(bob, alice)
    answer = alice.answer(request.message)
    bob.told(confirm, request, answer)
    return {"match_id": confirm.match_id, "request": request.message, "answer": answer}


# -- keygen ----------------------------------------------------------------------------------------------


def test_keygen_makes_a_file_for_its_owner_and_shows_the_public_key(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    result = run("keygen", "--out", str(path))
    assert result.exit_code == 0
    assert result.stdout.strip() == load_key(path).key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = run("keygen", "--out", str(path))
    assert (again.exit_code, again.stdout) == (1, "")
    assert "exists already" in again.stderr
    said = json.loads(run("keygen", "--out", str(tmp_path / "bob.key"), "--json").stdout)
    assert said == {"key": load_key(tmp_path / "bob.key").key, "file": str(tmp_path / "bob.key")}


# -- verify-trade ----------------------------------------------------------------------------------------


def test_a_proof_in_a_file_or_on_standard_input(proof: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(proof))
    for result in (run("verify-trade", str(path)), run("verify-trade", "-", input=json.dumps(proof))):
        assert result.exit_code == 0, result.stderr
        assert "valid: bob bought of alice" in result.stdout
        assert f"maker alice signed with key {proof['answer']['key']}" in result.stdout
        assert f"taker bob signed with key {proof['request']['key']}" in result.stdout
        assert proof["match_id"] in result.stdout


def test_what_it_says_for_programs_is_a_proof_again(proof: dict[str, Any]) -> None:
    result = run("verify-trade", "-", "--json", input=json.dumps(proof))
    said = json.loads(result.stdout)
    assert said["valid"] is True
    assert said["maker"] == {"name": "alice", "key": proof["answer"]["key"]}
    assert said["taker"] == {"name": "bob", "key": proof["request"]["key"]}
    assert (said["side"], said["trades"]) == ("buy", proof["answer"]["trades"])
    assert run("verify-trade", "-", "--json", input=result.stdout).stdout == result.stdout


def test_a_proof_that_is_none(proof: dict[str, Any]) -> None:
    proof["answer"]["trades"][0]["price"] = "99"
    result = run("verify-trade", "-", input=json.dumps(proof))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "this proves no trade: answer's trades are not the fills of the request" in result.stderr
    said = json.loads(run("verify-trade", "-", "--json", input=json.dumps(proof)).stdout)
    assert said["error"]["code"] == "invalid_proof"


@pytest.mark.parametrize(
    "junk", ["", "{", "[]", "{}", '{"request": 5, "answer": {}}', "\x00", "x" * 2_000_000]
)
def test_what_is_no_proof_at_all(junk: str) -> None:
    result = run("verify-trade", "-", input=junk)
    assert result.exit_code == 1
    assert "no proof" in result.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = run("verify-trade", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "nowhere can't be read" in result.stderr
    assert "--api URL" in result.stderr


@pytest.fixture
def fake() -> Iterator[FakePeer]:
    """A fake peer, served from a loop in another thread: commands run their own."""
    loop, peer = asyncio.new_event_loop(), FakePeer()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(peer.start(), loop).result(10)
    yield peer
    asyncio.run_coroutine_threadsafe(peer.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_proof_asked_of_a_peer(proof: dict[str, Any], fake: FakePeer) -> None:
    async def before(request: web.Request) -> web.Response | None:
        if request.path == f"/trades/{proof['match_id']}/proof":
            return web.json_response(proof)
        return refusal("unknown_proof", "no proof of match 'm' here", 404)

    fake.before = before
    result = run("verify-trade", proof["match_id"], "--api", fake.api)
    assert result.exit_code == 0, result.stderr
    assert "valid: bob bought of alice" in result.stdout
    result = run("verify-trade", "m", "--api", fake.api)
    assert result.exit_code == 1
    assert "no proof of match 'm' here" in result.stderr


# -- peer ------------------------------------------------------------------------------------------------


def test_a_peer_says_what_is_wrong_with_its_keys(tmp_path: Path) -> None:
    peer = ("peer", "--name", "alice", "--grape", "http://127.0.0.1:1", "--api", "127.0.0.1:0")
    result = run(*peer, "--key", str(tmp_path / "nowhere"))
    assert (result.exit_code, "nowhere can't be read" in result.stderr) == (1, True)
    path = tmp_path / "alice.key"
    run("keygen", "--out", str(path))
    path.chmod(0o644)
    result = run(*peer, "--key", str(path))
    assert (result.exit_code, f"run chmod 600 {path}" in result.stderr) == (1, True)
    result = run(*peer, "--allow", "bob")
    assert (result.exit_code, "--allow: must be a key" in result.stderr) == (2, True)
    result = run(*peer, "--allow", "00" * 32, "--open")
    assert (result.exit_code, "contradict each other" in result.stderr) == (2, True)
