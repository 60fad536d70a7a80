"""Sessions between two peers: how they are opened, what they carry, and what each attack on them meets.

Whoever attacks here sits on the wire: it has every message, and sends what it likes in any order. What it
does not have is keys.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult

from orderbook import limits
from orderbook.envelopes import encode, request
from orderbook.errors import OrderBookError, ProtocolError
from orderbook.messages import Goodbye
from orderbook.signing import handshake, session
from orderbook.signing.gate import Gate
from orderbook.signing.handshake import derive
from orderbook.signing.keyring import Keyring, Nonces
from orderbook.signing.seals import canonical, digest_of, seal
from orderbook.signing.session import MAC_BYTES, Session
from tests.harness import IS_COMPILED
from tests.unit.orderbook.session_ends import KEYS, SECRETS, End, agreed
from tests.unit.orderbook.signing_peers import Clock, travelled


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alice(clock: Clock) -> End:
    return End("alice", clock)


@pytest.fixture
def bob(clock: Clock) -> End:
    return End("bob", clock)


def refused(reason: str, act: Callable[..., Any], *args: Any) -> None:
    """``act`` is refused for this reason."""
    said = ""
    try:
        act(*args)
    except OrderBookError as error:
        said = str(error)
    assert reason in said, f"{said!r}, where {reason!r} was expected"


# -- what it is for --------------------------------------------------------------------------------------


def test_both_ends_take_what_the_other_says(alice: End, bob: End) -> None:
    ours, theirs = agreed(alice, bob)
    assert (ours.name, ours.key, ours.market) == ("bob", bob.key, "SIM")
    assert (theirs.name, theirs.key, theirs.market) == ("alice", alice.key, "SIM")
    for text in (b"", b"one", b"two", b"one", bytes(100_000)):
        assert theirs.unwrap(ours.wrap(text)) == text
        assert ours.unwrap(theirs.wrap(text)) == text


def test_each_session_has_keys_of_its_own(alice: End, bob: End) -> None:
    first, second = (agreed(alice, bob)[0].wrap(b"the same") for _ in range(2))
    assert first[MAC_BYTES:] == second[MAC_BYTES:]
    assert first[:MAC_BYTES] != second[:MAC_BYTES], "though the ephemeral keys were the same"


def test_the_bytes_are_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """For other implementations: docs/signing.md says how to get there."""
    monkeypatch.setattr(End, "nonces", itertools.count(1))
    alice, bob = two()
    opening = alice.asks(bob)
    answer, theirs = bob.sessions.accept(opening.request.message)
    keys = derive(alice.secret, answer["ephemeral"], digest_of(canonical(answer)))
    ours = opening.answered(answer)
    first, second = ours.wrap(b'[1,"a",null]'), ours.wrap(b'[2,"b",null]')
    assert [theirs.unwrap(first), theirs.unwrap(second)] == [b'[1,"a",null]', b'[2,"b",null]']
    found = {
        "opener's signing key": KEYS["alice"].key,
        "answerer's signing key": KEYS["bob"].key,
        "opener's X25519 secret": alice.secret.hex(),
        "answerer's X25519 secret": bob.secret.hex(),
        "request": opening.request.data.decode(),
        "answer": encode(answer).decode(),
        "digest of the answer": digest_of(canonical(answer)),
        "X25519": crypto_scalarmult(alice.secret, bytes.fromhex(answer["ephemeral"])).hex(),
        "opener's key": keys.opener.hex(),
        "answerer's key": keys.answerer.hex(),
        "opener's first frame": first.hex(),
        "opener's second frame": second.hex(),
        "answerer's first frame": theirs.wrap(b"[1,null,5]").hex(),
    }
    assert found == VECTORS


VECTORS = json.loads((Path(__file__).parents[1] / "data" / "orderbook_session.json").read_text())


def test_the_bytes_follow_from_each_other_as_the_documentation_says() -> None:
    """With nothing but a hash function."""

    def hashed(data: bytes, key: str, size: int) -> str:
        return hashlib.blake2b(data, key=bytes.fromhex(key), digest_size=size).hexdigest()

    signed = {name: value for name, value in json.loads(VECTORS["answer"]).items() if name != "sig"}
    said = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(said)
    assert digest.hexdigest() == VECTORS["digest of the answer"]
    for side, frame, count, text in (
        ("opener", "opener's first frame", 0, b'[1,"a",null]'),
        ("opener", "opener's second frame", 1, b'[2,"b",null]'),
        ("answerer", "answerer's first frame", 0, b"[1,null,5]"),
    ):
        key = hashed(f"orderbook session 1 {side}".encode() + digest.digest(), VECTORS["X25519"], 32)
        assert key == VECTORS[f"{side}'s key"]
        time_ms = json.loads(VECTORS["request"])["time"].to_bytes(8, "big")
        mac = hashed(count.to_bytes(8, "big") + time_ms + text, key, 16)
        assert VECTORS[frame] == mac + time_ms.hex() + text.hex()


# -- attacks on the opening ------------------------------------------------------------------------------


def two() -> tuple[End, End]:
    clock = Clock()
    return End("alice", clock), End("bob", clock)


def a_forged_request() -> None:
    alice, bob = two()
    asked = alice.asks(bob).request.message
    mallory = End("alice", alice.clock, key="mallory")
    own = mallory.asks(bob).request.message
    for change in (
        {"sig": own["sig"]},
        {"payload": own["payload"]},
        {"time": asked["time"] + 1},
        {"from": "carol"},
        {"nonce": "new"},
        {"key": mallory.key},
    ):
        refused("forged", bob.sessions.accept, {**asked, **change})
    assert len(bob.sessions) == 0
    bob.sessions.accept(asked)  # refusing them has changed nothing


def a_forged_answer() -> None:
    alice, bob = two()
    opening = alice.asks(bob)
    answer, _ = bob.sessions.accept(opening.request.message)
    mallory = End("bob", alice.clock, key="mallory")
    posing = seal({**unsigned(answer), "from": "bob"}, mallory.signer).message
    for forged, reason in (
        ({**answer, "ephemeral": SECRETS["mallory"].hex()}, "forged"),
        ({**answer, "sig": posing["sig"]}, "forged"),
        ({**answer, "from": "carol"}, "forged"),
        (posing, "key must be"),
        (unsigned(answer), "sig is required"),
        (None, "sig is required"),
        ({**answer, "request": "00" * 32}, "not the answer to ours"),
    ):
        refused(reason, opening.answered, forged)
    opening.answered(answer)


def unsigned(message: Any) -> Any:
    return {name: value for name, value in message.items() if name not in ("sig", "key")}


def a_reflected_request() -> None:
    """Alice's own request comes back to her, as if from a peer."""
    alice, bob = two()
    asked = alice.asks(bob)
    refused("key of another peer", alice.sessions.accept, asked.request.message)
    refused("SignedAnswer", asked.answered, asked.request.message)


def a_replayed_request() -> None:
    alice, bob = two()
    asked = alice.asks(bob).request.message
    bob.sessions.accept(asked)
    refused("repetition", bob.sessions.accept, asked)
    alice.clock.now += 1.0
    refused("before this peer started", End("bob", bob.clock).sessions.accept, asked)
    alice.clock.now += limits.SIGNED_WINDOW_S
    refused("behind this peer's clock", bob.sessions.accept, {**asked, "nonce": "new"})


def a_replayed_answer() -> None:
    alice, bob = two()
    answer, _ = bob.sessions.accept(alice.asks(bob).request.message)
    refused("not the answer to ours", alice.asks(bob).answered, answer)


def swapped_roles() -> None:
    """What one side has said in its role is of no use in the other one."""
    alice, bob = two()
    opening = alice.asks(bob)
    answer, theirs = bob.sessions.accept(opening.request.message)
    refused("SignedEnvelope", alice.sessions.accept, answer)
    ours = opening.answered(answer)
    refused("mac is not", ours.unwrap, ours.wrap(b"x"))
    refused("mac is not", theirs.unwrap, theirs.wrap(b"x"))


def another_market() -> None:
    alice, bob = two()
    elsewhere = End("bob", bob.clock, market="OTHER")
    refused("market must be OTHER", elsewhere.sessions.accept, alice.asks(bob).request.message)
    _, theirs = agreed(alice, bob)
    refused("market must be OTHER", elsewhere.gate.check_in_session, theirs, "alice")
    bob.gate.check_in_session(theirs, "alice")


def an_unknown_key() -> None:
    alice, bob = two()
    picky = End("bob", bob.clock, allowed={KEYS["carol"].key: None})
    refused("not among those", picky.sessions.accept, alice.asks(bob).request.message)
    listed = End("alice", alice.clock, allowed={KEYS["carol"].key: None})
    opening = listed.asks(bob)
    answer, _ = bob.sessions.accept(opening.request.message)
    refused("not among those", opening.answered, answer)


def a_name_of_another_key() -> None:
    alice, bob = two()
    agreed(alice, bob)
    posing = End("alice", alice.clock, key="mallory")
    refused("name of another key", bob.sessions.accept, posing.asks(bob).request.message)


def another_name_in_the_session() -> None:
    """Who has a session speaks in no name but its own, and with no key but its own."""
    alice, bob = two()
    ours, theirs = agreed(alice, bob)
    hers = travelled(request("alice", Goodbye()))
    bob.gate.open(hers, theirs)
    refused("from must be alice", bob.gate.open, {**hers, "from": "carol"}, theirs)
    carol = End("carol", alice.clock)
    signed = seal({**alice.gate.seal(hers).message, "key": carol.key}, carol.signer).message
    refused("key must be", bob.gate.open, signed, theirs)
    sent = alice.gate.seal(hers)
    others: list[Any] = [{"from": "carol"}, {}, [], 5]
    for said in others:
        refused("from must be bob", alice.gate.check_answer, sent, said, None, ours)
    lent = seal({"from": "bob", "request": sent.digest}, carol.signer).message
    refused("key must be", alice.gate.check_answer, sent, lent, None, ours)


def a_man_in_the_middle() -> None:
    """Who passes an opening on in its own name shares no keys with either side; who leaves it as it is is a
    wire."""
    alice, bob = two()
    mallory = End("mallory", alice.clock)
    opening = alice.asks(bob)
    stolen = {**unsigned(opening.request.message), "from": "mallory"}
    answer, to_mallory = bob.sessions.accept(seal(stolen, mallory.signer).message)
    refused("not the answer to ours", opening.answered, answer)
    answer, to_alice = bob.sessions.accept({**opening.request.message})
    ours = opening.answered(answer)
    refused("mac is not", to_mallory.unwrap, ours.wrap(b"x"))
    ours, to_alice = agreed(alice, bob)
    assert to_alice.unwrap(ours.wrap(b"x")) == b"x"


def an_ephemeral_key_that_is_none() -> None:
    """With a point of small order everybody would know the secret."""
    alice, bob = two()
    for point in (bytes(32), b"\1" + bytes(31)):
        asked = unsigned(alice.asks(bob).request.message)
        asked["payload"]["ephemeral"] = point.hex()
        asked = seal(asked, alice.signer).message
        refused("ephemeral is no key", bob.sessions.accept, asked)
    assert len(bob.sessions) == 0


# -- attacks on what it carries --------------------------------------------------------------------------


def a_tampered_frame() -> None:
    for position in range(len(FRAME)):
        ours, theirs = agreed(*two())
        frame = bytearray(ours.wrap(b"text"))
        frame[position] ^= 1
        refused("mac is not", theirs.unwrap, bytes(frame))


def a_truncated_frame() -> None:
    for length in range(len(FRAME)):
        ours, theirs = agreed(*two())
        refused("mac is not", theirs.unwrap, ours.wrap(b"text")[:length])


FRAME = bytes(MAC_BYTES + 8) + b"text"


def a_repeated_frame() -> None:
    ours, theirs = agreed(*two())
    frame = ours.wrap(b"x")
    theirs.unwrap(frame)
    refused("mac is not", theirs.unwrap, frame)


def a_frame_before_its_turn() -> None:
    ours, theirs = agreed(*two())
    ours.wrap(b"first")
    refused("mac is not", theirs.unwrap, ours.wrap(b"second"))


def a_dropped_frame() -> None:
    ours, theirs = agreed(*two())
    theirs.unwrap(ours.wrap(b"first"))
    ours.wrap(b"dropped")
    refused("mac is not", theirs.unwrap, ours.wrap(b"third"))


def a_frame_of_another_session() -> None:
    alice, bob = two()
    ours, theirs = agreed(alice, bob)
    frame = ours.wrap(b"x")
    theirs.unwrap(frame)
    refused("mac is not", agreed(alice, bob)[1].unwrap, frame)
    refused("mac is not", agreed(bob, alice)[1].unwrap, frame)


def a_frame_that_was_held_back() -> None:
    alice, bob = two()
    ours, theirs = agreed(alice, bob)
    frame = ours.wrap(b"x")
    alice.clock.now += limits.SIGNED_WINDOW_S + 0.001
    refused("behind this peer's clock", theirs.unwrap, frame)


def another_frame_after_a_bad_one() -> None:
    """The first one that is wrong is the end: there is one guess at a MAC for each session."""
    ours, theirs = agreed(*two())
    good = ours.wrap(b"x")
    refused("mac is not", theirs.unwrap, good[:-1])
    refused("session is over", theirs.unwrap, good)


def keys_that_are_stolen_afterwards() -> None:
    """Who has recorded everything and then gets an identity can open sessions in its name, but say no word in
    this one: what its keys were made of is kept by neither end."""
    alice, bob = two()
    ours, theirs = agreed(alice, bob)
    theirs.unwrap(ours.wrap(b"first"))
    assert not [name for end in (ours, theirs) for name in dir(end) if isinstance(getattr(end, name), bytes)]
    thief = End("alice", alice.clock)
    thief.secret = SECRETS["mallory"]
    stolen, _ = agreed(thief, bob)
    stolen.wrap(b"first")
    refused("mac is not", theirs.unwrap, stolen.wrap(b"second"))


ATTACKS = {
    attack.__name__: attack
    for attack in (
        a_forged_request,
        a_forged_answer,
        a_reflected_request,
        a_replayed_request,
        a_replayed_answer,
        swapped_roles,
        another_market,
        an_unknown_key,
        a_name_of_another_key,
        another_name_in_the_session,
        a_man_in_the_middle,
        an_ephemeral_key_that_is_none,
        a_tampered_frame,
        a_truncated_frame,
        a_repeated_frame,
        a_frame_before_its_turn,
        a_dropped_frame,
        a_frame_of_another_session,
        a_frame_that_was_held_back,
        another_frame_after_a_bad_one,
        keys_that_are_stolen_afterwards,
    )
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_comes_to_nothing(attack: str) -> None:
    ATTACKS[attack]()


# -- sessions broken on purpose: the attacks have to notice --------------------------------------------


def skip_the_mac(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "compare_digest", lambda one, other: True)


def leave_the_count_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_sent", property(lambda _: 0, lambda *_: None), raising=False)
    patch.setattr(Session, "_received", property(lambda _: 0, lambda *_: None), raising=False)


def leave_the_time_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "check_time", lambda *_: None)


def go_on_after_a_bad_frame(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_over", property(lambda _: False, lambda *_: None), raising=False)


def use_one_key_for_both_directions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handshake, "LABELS", (b"one", b"one"))


def leave_the_agreement_out_of_the_keys(patch: pytest.MonkeyPatch) -> None:
    agree = handshake.derive
    patch.setattr(handshake, "derive", lambda secret, other, digest: agree(secret, other, "00" * 32))


def leave_the_ephemeral_keys_out_of_the_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handshake, "crypto_scalarmult", lambda secret, other: bytes(32))


def let_anybody_answer(patch: pytest.MonkeyPatch) -> None:
    check = Gate.check_answer
    patch.setattr(Gate, "check_answer", lambda self, sent, said, *_: check(self, sent, said))


def let_an_answer_be_unsigned(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "check_answer", lambda *_: True)


def believe_any_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "_check_signature", lambda *_: None)


def forget_nonces(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Nonces, "check", lambda *_: None)


def let_who_has_a_session_use_any_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "check_in_session", lambda *_: None)


def forget_whose_names_are_whose(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keyring, "check", lambda *_: None)


MUTATIONS: dict[Callable[[pytest.MonkeyPatch], None], set[str]] = {
    skip_the_mac: {"a_tampered_frame", "a_truncated_frame", "a_repeated_frame", "a_dropped_frame"},
    leave_the_count_out: {"a_repeated_frame", "a_frame_before_its_turn", "a_dropped_frame"},
    leave_the_time_out: {"a_frame_that_was_held_back"},
    go_on_after_a_bad_frame: {"another_frame_after_a_bad_one"},
    use_one_key_for_both_directions: {"swapped_roles"},
    leave_the_agreement_out_of_the_keys: {"a_frame_of_another_session"},
    leave_the_ephemeral_keys_out_of_the_keys: {"an_ephemeral_key_that_is_none"},
    let_anybody_answer: {"a_forged_answer"},
    let_an_answer_be_unsigned: {"a_forged_answer", "a_replayed_answer"},
    believe_any_signature: {"a_forged_request", "a_forged_answer"},
    forget_nonces: {"a_replayed_request"},
    let_who_has_a_session_use_any_name: {"another_name_in_the_session", "another_market"},
    forget_whose_names_are_whose: {"an_unknown_key", "a_name_of_another_key"},
}


@pytest.mark.skipif(IS_COMPILED, reason="methods of compiled classes can't be replaced")
@pytest.mark.parametrize(
    ("mutation", "attack"),
    [(mutation, attack) for mutation, attacks in MUTATIONS.items() for attack in sorted(attacks)],
)
def test_a_broken_session_is_caught(
    mutation: Callable[[pytest.MonkeyPatch], None], attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    with pytest.raises(AssertionError):
        ATTACKS[attack]()


# -- bounds ----------------------------------------------------------------------------------------------


def test_sessions_are_bounded_for_each_key_and_in_all(
    clock: Clock, bob: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSIONS_PER_KEY", 2)
    monkeypatch.setattr(limits, "SESSIONS", 3)
    alice, carol = End("alice", clock), End("carol", clock)
    _, first = agreed(alice, bob)
    agreed(alice, bob)
    refused("at most 2 sessions are open for one key", agreed, alice, bob)
    agreed(carol, bob)
    refused("at most 3 sessions are open at once", agreed, End("mallory", clock), bob)
    assert len(bob.sessions) == 3
    bob.sessions.ended(first)
    agreed(alice, bob)
    assert len(bob.sessions) == 3


def test_a_session_is_replaced_in_time_and_ends_all_the_same(alice: End, bob: End) -> None:
    ours, theirs = agreed(alice, bob)
    alice.clock.now += limits.SESSION_S - 1.0
    assert not ours.spent
    alice.clock.now += 2.0
    assert ours.spent
    assert theirs.unwrap(ours.wrap(b"late")) == b"late", "what is under way still arrives"
    alice.clock.now += limits.SESSION_S
    refused("too old", theirs.unwrap, ours.wrap(b"too late"))


def test_a_session_is_for_so_many_frames(alice: End, bob: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSION_FRAMES", 3)
    ours, theirs = agreed(alice, bob)
    for n in range(7):
        assert ours.spent is theirs.spent is (n > 3)
        theirs.unwrap(ours.wrap(b"x"))
    refused("too old", theirs.unwrap, ours.wrap(b"x"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "Heartbeat"}, "type must be OpenSession"),
        ({"payload": {"version": 2, "ephemeral": "00" * 32}}, "version must be 1"),
        ({"payload": {"version": 1, "ephemeral": "00"}}, "ephemeral"),
        ({"payload": {"version": 1}}, "ephemeral"),
        ({"payload": None}, "OpenSession"),
        ({"to": None}, "to is required"),
        ({"sig": None}, "sig"),
    ],
)
def test_what_opens_no_session_is_refused_before_its_signature_is_looked_at(
    alice: End, bob: End, change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**alice.asks(bob).request.message, **change}
    monkeypatch.setattr(bob.gate, "_verify", lambda *_: pytest.fail("too much work"))
    refused(reason, bob.sessions.accept, asked)


def test_who_does_not_sign_opens_no_sessions(alice: End, bob: End) -> None:
    bob.gate.signs = False
    refused("does not sign", agreed, alice, bob)


@given(
    st.dictionaries(st.sampled_from(["type", "from", "payload", "to", "key", "sig"]), st.text() | st.none())
)
def test_whatever_comes_is_refused_and_never_more(change: dict[str, Any]) -> None:
    alice, bob = two()
    opening = alice.asks(bob)
    answer, _ = bob.sessions.accept(opening.request.message)
    for act in (
        lambda: bob.sessions.accept({**alice.asks(bob).request.message, **change}),
        lambda: bob.sessions.accept(change),
        lambda: opening.answered({**answer, **change}),
        lambda: opening.answered(change),
    ):
        try:
            act()
        except OrderBookError:
            pass


@pytest.mark.parametrize("length", range(8))
def test_a_frame_that_is_too_short_is_refused_though_its_mac_is_right(
    alice: End, bob: End, length: int
) -> None:
    ours, theirs = agreed(alice, bob)
    mac = ours._sending.copy()
    mac.update(bytes(8 + length))
    refused("at least 24 bytes", theirs.unwrap, mac.digest() + bytes(length))


@given(st.binary(max_size=100))
def test_whatever_frame_comes_is_no_frame(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        agreed(*two())[1].unwrap(frame)
