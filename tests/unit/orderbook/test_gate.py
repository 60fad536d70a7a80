"""What passes a gate and what does not: fields changed one by one, messages repeated, late or misplaced."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook import limits
from orderbook.errors import OrderBookError, ProtocolError
from orderbook.signing.gate import Gate
from orderbook.signing.identity import Identity
from orderbook.signing.keyring import Allowed, Nonces
from orderbook.signing.seals import Opened, Sealed, canonical, seal

START_MS = 1_700_000_000_000
KEYS = {name: Identity.from_seed(name.encode().ljust(32)) for name in ("alice", "bob", "carol", "mallory")}
OFFER = {"lock_id": "l", "quantity": "1", "lease": 5000, "from": "bob"}


class Clock:
    """One for all, set by hand; ``ahead_ms`` puts one gate's time of day off the others'."""

    now = 100.0

    def __init__(self, ahead_ms: int = 0):
        self.ahead_ms = ahead_ms

    def monotonic(self) -> float:
        return Clock.now

    def time_ms(self) -> int:
        return START_MS + int(1000 * (Clock.now - 100.0)) + self.ahead_ms


@pytest.fixture(autouse=True)
def noon() -> None:
    Clock.now = 100.0


def gate(
    name: str,
    market: str = "SIM",
    *,
    key: str = "",
    ahead_s: float = 0.0,
    allowed: Allowed | None = None,
    unsigned: bool = False,
) -> Gate:
    count = itertools.count()
    return Gate(
        name,
        market,
        KEYS[key or name],
        clock=Clock(int(1000 * ahead_s)),
        new_nonce=lambda: f"{key}{name}-{next(count)}",
        allowed=allowed,
        unsigned=unsigned,
    )


def envelope(sender: str = "alice") -> dict[str, Any]:
    return {"type": "Heartbeat", "from": sender, "payload": {"sequence": 1, "best_bid": "99"}}


def travelled(message: Any) -> Any:
    """As it comes out at the other end of a connection."""
    return json.loads(json.dumps(message))


def refusal(gate: Gate, message: Any) -> str:
    """Why ``gate`` refuses ``message``."""
    with pytest.raises(OrderBookError) as caught:
        gate.open(travelled(message))
    return str(caught.value)


@pytest.fixture
def alice() -> Gate:
    return gate("alice")


@pytest.fixture
def bob() -> Gate:
    return gate("bob")


# -- requests --------------------------------------------------------------------------------------------


def test_a_sealed_request_passes_as_it_is(alice: Gate, bob: Gate) -> None:
    sent = alice.seal(envelope())
    got = bob.open(travelled(sent.message))
    assert (got.message, got.digest) == (sent.message, sent.digest)
    assert got.key == alice.key == KEYS["alice"].key
    assert got.message.items() >= envelope().items()
    assert (got.message["market"], got.message["time"]) == ("SIM", START_MS)


TAMPERED: list[tuple[dict[str, Any], str]] = [
    ({"type": "Goodbye"}, "forged or altered"),
    ({"payload": {"sequence": 1, "best_bid": "98"}}, "forged or altered"),
    ({"payload": {"sequence": 2, "best_bid": "99"}}, "forged or altered"),
    ({"payload": None}, "forged or altered"),
    ({"from": "carol"}, "forged or altered"),
    ({"time": START_MS + 1}, "forged or altered"),
    ({"nonce": "another"}, "forged or altered"),
    ({"more": 1}, "forged or altered"),
    ({"more": "\ud800"}, "can't be signed"),
    ({"to": KEYS["bob"].key}, "forged or altered"),
    ({"key": KEYS["carol"].key}, "forged or altered"),
    ({"key": "00" * 32}, "forged or altered"),
    ({"sig": "00" * 64}, "forged or altered"),
    ({"market": "OTHER"}, "market must be SIM"),
    ({"to": KEYS["carol"].key}, "to is the key of another peer"),
    ({"time": START_MS - 1}, "from before this peer started"),
    ({"time": -1}, r"`int` >= 0"),
    ({"time": 2**53}, r"`int` <= 9007199254740991"),
    ({"time": 1.5}, "Expected `int`, got `float`"),
    ({"nonce": ""}, "length >= 1"),
    ({"nonce": "x" * 65}, "length <= 64"),
    ({"key": KEYS["alice"].key.upper()}, "regex"),
    ({"key": None}, "Expected `str`, got `null` - at `$.key`"),
    ({"sig": None}, "Expected `str`, got `null` - at `$.sig`"),
    ({"sig": "zz"}, "regex"),
    ({"to": "bob"}, "regex"),
    ({"from": "a b"}, "from must be 1 to 64 letters"),
    ({"from": 5}, r"at `\$.from`"),
]


@pytest.mark.parametrize(("change", "reason"), TAMPERED)
def test_a_request_with_any_field_changed_is_refused(
    alice: Gate, bob: Gate, change: dict[str, Any], reason: str
) -> None:
    sent = alice.seal(envelope())
    with pytest.raises(OrderBookError, match=reason.replace("$", r"\$").replace(r"\\$", r"\$")):
        bob.open({**sent.message, **change})
    assert bob.open(sent.message)[:2] == (sent.message, sent.digest), "refusing it has changed nothing"


@pytest.mark.parametrize("field", ["type", "from", "payload", "market", "time", "nonce", "key", "sig"])
def test_a_request_that_lacks_a_field_is_refused(alice: Gate, bob: Gate, field: str) -> None:
    message = dict(alice.seal(envelope()).message)
    del message[field]
    assert f"missing required field `{field}`" in refusal(bob, message)


@pytest.mark.parametrize("junk", [None, 5, "x", [], {}, [1], {"from": "alice"}])
def test_what_is_no_signed_request_is_refused(bob: Gate, junk: object) -> None:
    assert refusal(bob, junk).startswith("sig is required")


def test_an_unsigned_request_is_refused_with_the_way_out(bob: Gate) -> None:
    assert "--open" in refusal(bob, envelope())


def test_a_request_passes_once(alice: Gate, bob: Gate) -> None:
    sent = alice.seal(envelope())
    bob.open(sent.message)
    assert "used before" in refusal(bob, sent.message)
    Clock.now += limits.SIGNED_WINDOW_S
    assert "used before" in refusal(bob, sent.message)
    Clock.now += 0.001
    assert "behind this peer's clock" in refusal(bob, sent.message)
    assert bob.open(alice.seal(envelope()).message), "the same said again is another message"


def test_a_request_for_another_peer_or_market_is_refused(alice: Gate, bob: Gate) -> None:
    for_carol = alice.seal(envelope(), to=KEYS["carol"].key)
    assert "not for this one" in refusal(bob, for_carol.message)
    assert bob.open(alice.seal(envelope(), to=bob.key).message)
    elsewhere = gate("alice", "OTHER").seal(envelope())
    assert "market must be SIM" in refusal(bob, elsewhere.message)


@pytest.mark.parametrize("ahead_s", [-limits.SIGNED_WINDOW_S, 0.0, limits.SIGNED_WINDOW_S])
def test_clocks_may_differ_within_the_window(bob: Gate, ahead_s: float) -> None:
    Clock.now += 60.0  # after bob's start by any clock
    assert bob.open(gate("alice", ahead_s=ahead_s).seal(envelope()).message)


@pytest.mark.parametrize(
    ("ahead_s", "reason"), [(31.0, "31 s ahead of this peer's clock"), (-3600.0, "3600 s behind this peer's")]
)
def test_clocks_that_differ_more_are_told_so(bob: Gate, ahead_s: float, reason: str) -> None:
    Clock.now += 7200.0
    said = refusal(bob, gate("alice", ahead_s=ahead_s).seal(envelope()).message)
    assert reason in said
    assert "are both clocks right?" in said


def test_what_an_earlier_process_may_have_taken_is_refused(alice: Gate, bob: Gate) -> None:
    sent = alice.seal(envelope())
    bob.open(sent.message)
    Clock.now += 1.0
    restarted = gate("bob")
    assert "from before this peer started" in refusal(restarted, sent.message)
    assert restarted.open(alice.seal(envelope()).message)


def test_a_message_that_is_too_long_is_refused_before_its_signature_is_looked_at(
    alice: Gate, bob: Gate
) -> None:
    longest = alice.seal({**envelope(), "payload": "x" * (limits.SIGNED_BYTES - 1000)})
    assert bob.open(longest.message)
    message = {**longest.message, "nonce": "new", "payload": "x" * limits.SIGNED_BYTES}
    assert f"at most {limits.SIGNED_BYTES} bytes" in refusal(bob, message)


def test_a_message_as_deep_as_no_message_is_refused(alice: Gate, bob: Gate) -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    message = {**alice.seal(envelope()).message, "payload": deep}
    with pytest.raises(ProtocolError, match="can't be signed"):
        bob.open(message)


# -- names and keys --------------------------------------------------------------------------------------


def test_a_name_belongs_to_the_key_that_uses_it_first(alice: Gate, bob: Gate) -> None:
    bob.open(alice.seal(envelope()).message)
    impostor = gate("alice", key="mallory")
    said = refusal(bob, impostor.seal(envelope()).message)
    assert f"alice is the name of another key, {alice.key}" in said
    assert bob.keyring.key_of("alice") == alice.key
    assert bob.open(alice.seal(envelope()).message), "the first is not affected"


def test_a_name_is_free_when_its_key_has_been_silent_or_has_left(alice: Gate, bob: Gate) -> None:
    bob.open(alice.seal(envelope()).message)
    heir = gate("alice", key="mallory")
    Clock.now += limits.NAME_HELD_S - 0.01
    refusal(bob, heir.seal(envelope()).message)
    Clock.now += 0.01
    assert bob.open(heir.seal(envelope()).message)
    assert "another key" in refusal(bob, alice.seal(envelope()).message)
    bob.keyring.left("alice")
    assert bob.open(alice.seal(envelope()).message)


def test_one_key_speaks_for_one_name(alice: Gate, bob: Gate) -> None:
    bob.open(alice.seal(envelope()).message)
    renamed = gate("carol", key="alice")
    assert "that of alice" in refusal(bob, renamed.seal(envelope("carol")).message)
    Clock.now += limits.NAME_HELD_S
    assert bob.open(renamed.seal(envelope("carol")).message)
    assert (bob.keyring.key_of("alice"), bob.keyring.key_of("carol")) == (None, alice.key)


def test_our_own_name_and_key_are_ours(bob: Gate) -> None:
    assert bob.open(bob.seal(envelope("bob")).message), "our own broadcast comes back"
    twin = gate("bob", key="mallory")
    assert "name of this peer" in refusal(bob, twin.seal(envelope("bob")).message)
    thief = gate("carol", key="bob")
    assert "a key of its own" in refusal(bob, thief.seal(envelope("carol")).message)


def test_a_list_lets_pass_only_those_that_are_on_it(alice: Gate) -> None:
    bob = gate("bob", allowed={alice.key: None, KEYS["carol"].key: "carol"})
    assert bob.open(alice.seal(envelope()).message)
    stranger = gate("mallory")
    assert f"key {stranger.key} is not among those" in refusal(
        bob, stranger.seal(envelope("mallory")).message
    )
    carol = gate("carol")
    assert "allowed as carol here, not as alice" in refusal(bob, carol.seal(envelope()).message)
    posing = gate("carol", key="alice")
    assert "another key on this peer's list" in refusal(bob, posing.seal(envelope("carol")).message)
    assert bob.open(carol.seal(envelope("carol")).message)


# -- without signatures ----------------------------------------------------------------------------------


def test_an_open_gate_takes_both_but_no_unsigned_message_in_the_name_of_a_key(alice: Gate) -> None:
    bob = gate("bob", unsigned=True)
    assert bob.open(envelope("learner")) == Opened(envelope("learner"), "", None)
    assert bob.open(envelope("alice"))
    assert bob.open(alice.seal(envelope()).message).key == alice.key
    assert "alice is the name of a peer that signs" in refusal(bob, envelope("alice"))
    assert "peer that signs" in refusal(bob, envelope("bob"))
    assert "SignedEnvelope" in refusal(bob, {**envelope("learner"), "key": alice.key})
    Clock.now += limits.NAME_HELD_S
    assert bob.open(envelope("alice"))
    with pytest.raises(ProtocolError, match="Envelope"):
        bob.open({"type": 5})


def test_who_does_not_sign_gets_plain_answers(alice: Gate) -> None:
    bob = gate("bob", unsigned=True)
    assert bob.answer(bob.open(envelope("learner")), OFFER) == OFFER
    assert "sig" in bob.answer(bob.open(alice.seal(envelope()).message), OFFER)


# -- answers ---------------------------------------------------------------------------------------------


def exchange(alice: Gate, bob: Gate, content: Any = OFFER) -> tuple[Sealed, Any]:
    """A request of alice's, and bob's answer to it."""
    request = alice.seal(envelope())
    return request, travelled(bob.answer(bob.open(travelled(request.message)), content))


def test_an_answer_is_signed_and_bound_to_its_request(alice: Gate, bob: Gate) -> None:
    request, answer = exchange(alice, bob)
    assert answer.items() >= OFFER.items()
    assert alice.check_answer(request, answer)
    assert alice.check_answer(request, answer, key=bob.key)
    other = alice.seal(envelope())
    with pytest.raises(ProtocolError, match="not the answer to ours"):
        alice.check_answer(other, answer)
    with pytest.raises(ProtocolError, match="key must be"):
        alice.check_answer(request, answer, key=KEYS["carol"].key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quantity": "2"}, "forged or altered"),
        ({"lease": 5001}, "forged or altered"),
        ({"more": None}, "forged or altered"),
        ({"from": "carol"}, "forged or altered"),
        ({"from": "alice"}, "name of this peer"),
        ({"key": KEYS["carol"].key}, "forged or altered"),
        ({"key": KEYS["alice"].key}, "a key of its own"),
        ({"sig": "00" * 64}, "forged or altered"),
        ({"request": "00" * 32}, "not the answer to ours"),
        ({"request": None}, "SignedAnswer"),
        ({"from": None}, "SignedAnswer"),
        ({"sig": None}, "SignedAnswer"),
    ],
)
def test_an_answer_with_any_field_changed_is_not_believed(
    alice: Gate, bob: Gate, change: dict[str, Any], reason: str
) -> None:
    request, answer = exchange(alice, bob)
    with pytest.raises(OrderBookError, match=reason):
        alice.check_answer(request, {**answer, **change})
    assert alice.check_answer(request, answer)


def test_an_answer_in_the_name_of_another_is_not_believed(alice: Gate, bob: Gate) -> None:
    request, _ = exchange(alice, bob)
    alice.open(gate("carol").seal(envelope("carol")).message)
    posing = seal({**OFFER, "from": "carol", "request": request.digest}, KEYS["mallory"]).message
    with pytest.raises(ProtocolError, match="carol is the name of another key"):
        alice.check_answer(request, posing)


@pytest.mark.parametrize("answer", [5, "x", [], {}, {"contended": True}, OFFER])
def test_an_unsigned_answer_is_not_believed_unless_the_gate_is_open(alice: Gate, answer: object) -> None:
    with pytest.raises(ProtocolError, match="sig is required"):
        alice.check_answer(alice.seal(envelope()), answer)
    learner = gate("carol", unsigned=True)
    request = learner.seal(envelope("carol"))
    assert learner.check_answer(request, answer) is None
    with pytest.raises(ProtocolError, match="must be signed"):
        learner.check_answer(request, answer, key=KEYS["bob"].key)


def test_an_open_gate_believes_no_unsigned_answer_in_the_name_of_a_key(bob: Gate) -> None:
    learner = gate("carol", unsigned=True)
    request = learner.seal(envelope("carol"))
    learner.open(bob.seal(envelope("bob")).message)
    with pytest.raises(ProtocolError, match="bob is the name of a peer that signs"):
        learner.check_answer(request, OFFER)


def test_null_needs_no_signature_and_nor_does_what_nobody_acts_on(alice: Gate, bob: Gate) -> None:
    for content in (None, {"released": True}):
        request, answer = exchange(alice, bob, content)
        assert answer == content
    assert alice.check_answer(request, None) is None


# -- bounds ----------------------------------------------------------------------------------------------


def test_the_memory_of_one_sender_is_bounded_in_count(
    alice: Gate, bob: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NONCES_PER_PEER", 10)
    messages = []
    for _ in range(30):
        messages.append(alice.seal(envelope()).message)
        bob.open(messages[-1])
        Clock.now += 0.1
    assert len(bob.keyring._by_key[alice.key].nonces) == 10
    assert all("used before" in refusal(bob, message) for message in messages[-10:])
    forgotten = [refusal(bob, message) for message in messages[:-10]]
    assert all("more messages than this peer remembers" in said for said in forgotten), "none is taken again"


def test_the_memory_of_one_sender_is_bounded_in_age(alice: Gate, bob: Gate) -> None:
    for _ in range(100):
        bob.open(alice.seal(envelope()).message)
        Clock.now += 1.0
    assert len(bob.keyring._by_key[alice.key].nonces) <= limits.SIGNED_WINDOW_S + 1


def test_who_has_started_with_a_wrong_clock_listens_when_it_is_set_right(alice: Gate) -> None:
    """As machines do that get the time of day from the network after they have started."""
    fast = gate("bob", ahead_s=3_600.0)
    assert isinstance(fast.clock, Clock)
    assert "behind this peer's clock" in refusal(fast, alice.seal(envelope()).message)
    fast.clock.ahead_ms = 0
    assert "before this peer started" in refusal(fast, alice.seal(envelope()).message)
    Clock.now += 2 * limits.SIGNED_WINDOW_S
    message = alice.seal(envelope()).message
    fast.open(message)
    assert "used before" in refusal(fast, message)


def test_messages_may_overtake_each_other_within_the_memory() -> None:
    nonces = Nonces()
    for time_ms in (50, 10, 40, 20, 30):
        nonces.check(str(time_ms), time_ms)
        nonces.add(str(time_ms), time_ms, 50)
    with pytest.raises(ProtocolError, match="used before"):
        nonces.check("10", 10)


def stranger(number: int) -> tuple[Identity, str]:
    return Identity.from_seed(str(number).encode().ljust(32)), f"peer{number}"


def test_peers_are_bounded_and_room_comes_back(
    bob: Gate, monkeypatch: pytest.MonkeyPatch, alice: Gate
) -> None:
    monkeypatch.setattr(limits, "PEERS", 3)

    def call(number: int) -> Callable[[], Any]:
        signer, name = stranger(number)
        sealed = Gate(name, "SIM", signer, clock=Clock(), new_nonce=lambda: "n").seal(envelope(name))
        return lambda: bob.open(sealed.message)

    for number in range(3):
        call(number)()
    with pytest.raises(ProtocolError, match="too many others"):
        call(3)()
    request = bob.seal(envelope("bob"))
    with pytest.raises(ProtocolError, match="too many others"):
        bob.check_answer(
            request, seal({**OFFER, "from": "carol", "request": request.digest}, KEYS["carol"]).message
        )
    assert len(bob.keyring) == 3
    Clock.now += limits.SIGNED_WINDOW_S
    late = call(0)
    with pytest.raises(ProtocolError, match="used before"):
        late()
    Clock.now += limits.SIGNED_WINDOW_S + 0.001
    call(3)()
    assert len(bob.keyring) == 1, "the silent are forgotten once nothing of theirs could be repeated"


# -- the canonical form ----------------------------------------------------------------------------------


def test_the_canonical_form_is_sorted_utf_8_without_white_space_or_signature() -> None:
    message = {"b": [1, {"z": None, "a": True}], "sig": "x", "a": 'é😀\x7f"\\\t\x1f\u2028/'}
    text = r'{"a":"é😀DEL\"\\\t\u001fLS/","b":[1,{"a":true,"z":null}]}'
    assert canonical(message).decode() == text.replace("DEL", "\x7f").replace("LS", "\u2028")
    assert canonical(dict(reversed(message.items()))) == canonical(message)


# -- anything at all -------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
members = st.sampled_from(
    ["type", "from", "payload", "market", "time", "nonce", "to", "key", "sig", "request", "else"]
)


@given(st.dictionaries(members, anything), st.booleans())
def test_whatever_comes_is_refused_or_taken_and_never_more(change: dict[str, Any], unsigned: bool) -> None:
    alice, bob = gate("alice"), gate("bob", unsigned=unsigned)
    request = alice.seal(envelope())
    answer = bob.answer(bob.open(request.message), OFFER)
    for check in (
        lambda: bob.open({**request.message, "nonce": "new", **change}),
        lambda: bob.open(change),
        lambda: alice.check_answer(request, {**answer, **change}),
        lambda: alice.check_answer(request, change),
    ):
        try:
            check()
        except OrderBookError:
            pass
