"""The cache of look-ups, the choice of destinations, the pauses between announcements: on a clock of our
own.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from grenache_py import limits
from grenache_py.checks import POLICIES
from grenache_py.discovery import Attempts, Chooser, LookupCache, announce_pause_s
from grenache_py.errors import (
    ArgumentError,
    ConnectError,
    ConnectionLost,
    RemoteError,
    RequestTimeout,
    StatusError,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_entry_lives_for_its_age():
    clock = Clock()
    cache = LookupCache(clock, max_age_s=10)
    assert cache.get("svc") is None
    cache.put("svc", ["a:1", "b:1"])
    clock.now += 9.999
    assert cache.get("svc") == ["a:1", "b:1"]
    clock.now += 0.001
    assert cache.get("svc") is None
    assert len(cache) == 0


def test_the_oldest_name_makes_room():
    cache = LookupCache(Clock(), max_size=2)
    for name in ("one", "two", "three"):
        cache.put(name, ["a:1"])
    assert [cache.get(name) for name in ("one", "two", "three")] == [None, ["a:1"], ["a:1"]]


def test_a_destination_that_failed_leaves_at_once_and_stays_away_a_while():
    clock = Clock()
    cache = LookupCache(clock, max_age_s=10)
    cache.put("svc", ["a:1", "b:1"])
    cache.put("other", ["a:1"])
    cache.forget("svc", "a:1")
    assert cache.get("svc") == ["b:1"]
    assert cache.get("other") == ["a:1"]  # each call that fails says so itself
    clock.now += 9
    assert cache.put("svc", ["a:1", "b:1", "c:1"]) == ["b:1", "c:1"]
    clock.now += 1
    assert cache.put("svc", ["a:1", "b:1", "c:1"]) == ["a:1", "b:1", "c:1"]


def test_the_last_destination_takes_the_entry_with_it():
    cache = LookupCache(Clock())
    cache.put("svc", ["a:1"])
    cache.forget("svc", "a:1")
    assert cache.get("svc") is None
    # Nobody else: it may have been restarted, so it is worth a try.
    assert cache.put("svc", ["a:1"]) == ["a:1"]


def test_forgetting_what_is_not_there_changes_nothing():
    cache = LookupCache(Clock())
    cache.put("svc", ["a:1"])
    cache.forget("svc", "z:1")
    cache.forget("nobody", "a:2")
    assert cache.get("svc") == ["a:1"]


class CacheMachine(RuleBasedStateMachine):
    """Never over its bounds, never an answer that is too old or was reported to have failed since."""

    MAX = 3
    AGE = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = LookupCache(self.clock, self.AGE, self.MAX)
        self.stored: dict[str, float] = {}
        self.failed_since_put: dict[str, set[str]] = {}

    names = st.sampled_from("uvwxyz")
    places = st.sampled_from(["a:1", "b:1", "c:1", "d:1"])

    @rule(name=names, destinations=st.lists(places, min_size=1, unique=True))
    def put(self, name: str, destinations: list[str]) -> None:
        kept = self.cache.put(name, destinations)
        assert kept
        assert set(kept) <= set(destinations)
        self.stored[name] = self.clock.now
        self.failed_since_put[name] = set()

    @rule(name=names, destination=places)
    def forget(self, name: str, destination: str) -> None:
        self.cache.forget(name, destination)
        self.failed_since_put.setdefault(name, set()).add(destination)

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(name=names)
    def get(self, name: str) -> None:
        found = self.cache.get(name)
        if found is not None:
            assert self.clock.now < self.stored[name] + self.AGE
            assert found
            assert not set(found) & self.failed_since_put[name]

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) <= self.MAX
        assert len(self.cache._failed) <= self.MAX


TestCacheMachine = CacheMachine.TestCase


def chooser(policy: str, probe: bool = False) -> Chooser:
    return Chooser(policy, min, lambda: 0.0 if probe else 0.99)


@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.sets(st.sampled_from("abcdef")))
def test_who_was_not_tried_is_chosen_first(destinations, tried):
    for policy in POLICIES:
        chosen = chooser(policy).choose(destinations, tried)
        assert chosen in destinations
        assert chosen not in tried or set(destinations) <= tried


def test_the_least_loaded_is_chosen():
    choice = chooser("least-loaded")
    for expected in "abcabc":
        assert choice.choose("abc") == expected
        choice.started(expected)
    choice.ended("b", 1.0, failed=False)
    assert choice.choose("abc") == "b"
    for place in "aabcc":
        choice.ended(place, 1.0, failed=False)
    assert choice._under_way == {}


def test_the_fastest_is_chosen_once_all_are_known():
    choice = chooser("fastest")
    for expected, seconds in zip("abc", (0.3, 0.1, 0.2), strict=True):
        assert choice.choose("abc") == expected
        choice.ended(expected, seconds, failed=False)
    assert choice.choose("abc") == "b"
    for _ in range(10):
        choice.ended("b", 0.5, failed=False)
    assert choice.choose("abc") == "c"
    choice.ended("c", 0.001, failed=True)  # failing quickly is not being fast
    assert choice.choose("abc") == "a"


def test_now_and_then_a_slow_one_gets_a_chance():
    choice = chooser("fastest", probe=True)
    choice.ended("a", 9.0, failed=False)
    choice.ended("b", 0.1, failed=False)
    assert choice.choose("ab") == "a"


def test_what_is_known_of_destinations_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "LOOKUP_CACHE_SIZE", 3)
    choice = chooser("fastest")
    for number in range(10):
        choice.ended(str(number), 1.0, failed=False)
    assert list(choice._seconds) == ["7", "8", "9"]


def test_an_unknown_policy_is_named():
    with pytest.raises(ArgumentError) as caught:
        chooser("best")
    assert caught.value.field == "choice"


BUSY = StatusError("a", 503, "")
BUSY.code = "ERR_BUSY"


@pytest.mark.parametrize(
    ("retry", "idempotent", "error", "others", "again"),
    [
        (1, False, ConnectError("a", ""), "b", True),
        (1, False, ConnectError("a", ""), "a", False),
        (1, False, ConnectError("a", ""), "", False),
        (1, False, BUSY, "ab", True),
        (1, False, ConnectionLost("a", ""), "ab", False),
        (1, True, ConnectionLost("a", ""), "ab", True),
        (1, True, RequestTimeout("a", ""), "ab", False),
        (2, False, RequestTimeout("a", ""), "ab", True),
        (2, False, ConnectionLost("a", ""), "a", True),
        (5, True, RemoteError("a", "ERR_NO"), "ab", False),
        (2, False, StatusError("a", 404, ""), "ab", True),
    ],
)
def test_whether_a_request_is_tried_again(retry, idempotent, error, others, again):
    assert Attempts(retry, idempotent).go_on("a", error, others) is again


def test_each_peer_is_asked_once_when_all_refuse():
    attempts = Attempts(1, False)
    asked = []
    for place in "abc":
        asked.append(attempts.go_on(place, ConnectError(place, ""), "abc"))
    assert asked == [True, True, False]


def test_doubt_is_kept():
    attempts = Attempts(1, True)
    assert attempts.go_on("a", ConnectionLost("a", ""), "ab")
    last = ConnectError("b", "")
    attempts.go_on("b", last, "ab")
    assert last.in_doubt


def test_announcements_are_spread_and_failures_retried_sooner():
    def low(a: float, b: float) -> float:
        return a

    def high(a: float, b: float) -> float:
        return b

    assert announce_pause_s(120, 0, low) == 60
    assert announce_pause_s(120, 0, high) == 180
    means = [announce_pause_s(120, failures, low) / 0.5 for failures in range(1, 12)]
    assert means == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120, 120]
    assert announce_pause_s(0.2, 1, low) == 0.1
    assert announce_pause_s(120, 10_000, high) == 180
