"""Link against a scripted Grape, in both flavours."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
from typing import Any

import pytest

from grenache_py import errors, limits
from grenache_py.dht.items import Item as DhtItem
from grenache_py.grape_api import Item
from grenache_py.put_report import PutReport
from grenache_py.signing import Signer
from tests.harness import eventually, free_port
from tests.scripted import Asked, ScriptedServer, Step, reply

KEY = "e28910ea0adb94dd45ced75fbff3e135c01bc437"


def paths(grape: ScriptedServer) -> list[str]:
    return [asked.head.split(" ")[1] for asked in grape.asked]


def by_path(**replies: str) -> list[Step]:
    """A script that answers by path: ``by_path(lookup="[]", announce="1")``."""

    def answer(asked: Asked) -> bytes:
        return reply(replies[asked.head.split(" ")[1].lstrip("/")])

    return [answer]


# --- look-ups


def test_what_a_lookup_looks_like(flavour):
    with ScriptedServer([reply('["127.0.0.1:6001"]')]) as grape:
        assert flavour.link(grape.url).lookup("rpc_test") == ["127.0.0.1:6001"]
        asked = grape.asked[0]
        assert asked.head.startswith("POST /lookup HTTP/1.1\r\n")
        assert asked.body == f'{{"rid":"{asked.json["rid"]}","data":"rpc_test"}}'.encode()
        assert asked.headers["content-type"] == "application/json"


def test_lookups_are_remembered_and_can_be_made_afresh(flavour):
    with ScriptedServer([reply('["127.0.0.1:6001"]')], [reply('["127.0.0.1:6002"]')]) as grape:
        link = flavour.link(grape.url)
        assert link.known("rpc_test") is None
        assert link.lookup("rpc_test") == ["127.0.0.1:6001"]
        assert link.lookup("rpc_test") == ["127.0.0.1:6001"]
        assert link.known("rpc_test") == ["127.0.0.1:6001"]
        assert len(grape.asked) == 1
        assert link.lookup("rpc_test", fresh=True) == ["127.0.0.1:6002"]
        assert link.lookup("rpc_test") == ["127.0.0.1:6002"]
        assert len(grape.asked) == 2


def test_what_a_caller_does_to_its_list_stays_its_own_affair(flavour):
    with ScriptedServer([reply('["127.0.0.1:6001"]')]) as grape:
        link = flavour.link(grape.url)
        link.lookup("rpc_test").clear()
        link.lookup("rpc_test").clear()
        link.known("rpc_test").clear()
        assert link.lookup("rpc_test") == ["127.0.0.1:6001"]


def test_lookups_are_forgotten_after_their_age(flavour):
    with ScriptedServer([reply('["127.0.0.1:6001"]')]) as grape:
        link = flavour.link(grape.url, cache_age=0.05)
        link.lookup("rpc_test")
        eventually(lambda: link.known("rpc_test") is None)
        link.lookup("rpc_test")
        assert len(grape.asked) == 2


def test_an_empty_lookup_is_not_remembered(flavour):
    with ScriptedServer([reply("[]")], [reply('["127.0.0.1:6001"]')]) as grape:
        link = flavour.link(grape.url)
        with pytest.raises(errors.LookupEmptyError):
            link.lookup("rpc_test")
        assert link.lookup("rpc_test") == ["127.0.0.1:6001"]


def test_a_destination_that_failed_is_left_out_while_others_remain(flavour):
    with ScriptedServer([reply('["127.0.0.1:6001","127.0.0.1:6002"]')]) as grape:
        link = flavour.link(grape.url)
        link.lookup("rpc_test")
        link.forget("rpc_test", "127.0.0.1:6001")
        assert link.lookup("rpc_test") == ["127.0.0.1:6002"]
        assert link.lookup("rpc_test", fresh=True) == ["127.0.0.1:6002"]
        link.forget("rpc_test", "127.0.0.1:6002")
        assert link.known("rpc_test") is None
        assert sorted(link.lookup("rpc_test")) == ["127.0.0.1:6001", "127.0.0.1:6002"]


def at_the_same_time(count, call):
    """Results and errors of ``count`` calls from as many threads."""
    outcomes: list[object] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(call())
        except errors.GrenacheError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_identical_requests_at_the_same_time_share_one(flavour):
    answered = threading.Event()

    def wait_for_all(asked: Asked) -> bytes:
        answered.wait(10)
        return reply('["127.0.0.1:6001"]')

    with ScriptedServer([wait_for_all]) as grape:
        link = flavour.link(grape.url, timeout=10)
        release = threading.Timer(0.2, answered.set)
        release.start()
        outcomes = at_the_same_time(8, lambda: link.lookup("rpc_test", fresh=True))
        release.join()
        assert outcomes == [["127.0.0.1:6001"]] * 8
        assert len(grape.asked) == 1


def test_an_error_is_shared_too(flavour):
    answered = threading.Event()

    def fail(asked: Asked) -> bytes:
        answered.wait(10)
        return reply('"ERR_GRAPE_LOOKUP"')

    with ScriptedServer([fail]) as grape:
        link = flavour.link(grape.url, timeout=10)
        release = threading.Timer(0.2, answered.set)
        release.start()
        outcomes = at_the_same_time(4, lambda: link.lookup("rpc_test"))
        release.join()
        assert [type(outcome) for outcome in outcomes] == [errors.GrapeReplyError] * 4
        assert len(grape.asked) == 1


def test_who_gives_up_early_takes_nothing_from_the_others(flavour):
    answered = threading.Event()

    def late(asked: Asked) -> bytes:
        answered.wait(10)
        return reply('["127.0.0.1:6001"]')

    with ScriptedServer([late]) as grape:
        link = flavour.link(grape.url, timeout=10)
        outcomes: dict[str, object] = {}

        def hurried() -> None:
            with pytest.raises(errors.GrapeUnreachableError) as caught:
                link.lookup("rpc_test", timeout=0.15)
            outcomes["hurried"] = caught.value.code

        def patient() -> None:
            outcomes["patient"] = link.lookup("rpc_test")

        first = threading.Thread(target=hurried)
        first.start()
        eventually(lambda: grape.asked)
        second = threading.Thread(target=patient)
        second.start()
        first.join()
        answered.set()
        second.join()
        assert outcomes == {"hurried": "ERR_TIMEOUT", "patient": ["127.0.0.1:6001"]}


# --- tries and time limits


@pytest.mark.parametrize(
    ("method", "arguments", "tries"),
    [("lookup", ["svc"], 3), ("announce", ["svc", 1], 3), ("put", ["x"], 1), ("get", [KEY], 1)],
)
@pytest.mark.parametrize(
    "script", [[reply("ERR_GRAPE_PAYLOAD_INVALID", "500 Internal Server Error")], ["close"]]
)
def test_how_often_a_failing_grape_is_tried(flavour, method, arguments, tries, script):
    with ScriptedServer(script) as grape:
        with pytest.raises(errors.GrapeError) as caught:
            getattr(flavour.link(grape.url), method)(*arguments)
        assert len(grape.asked) == tries
        assert len({asked.json["rid"] for asked in grape.asked}) == tries
        assert type(caught.value) is (
            errors.GrapeUnreachableError if script == ["close"] else errors.GrapeReplyError
        )
        assert caught.value.grape == grape.url


def test_a_refusal_is_not_tried_again(flavour):
    with ScriptedServer([reply("ERR_GRAPE_PAYLOAD_SIZE", "413 Payload Too Large")]) as grape:
        with pytest.raises(errors.GrapeReplyError) as caught:
            flavour.link(grape.url).lookup("svc")
        assert (caught.value.status, caught.value.code) == (413, "ERR_GRAPE_PAYLOAD_SIZE")
        assert len(grape.asked) == 1


def test_a_second_try_that_works(flavour):
    with ScriptedServer(["close"], [reply('["127.0.0.1:6001"]')]) as grape:
        assert flavour.link(grape.url).lookup("svc") == ["127.0.0.1:6001"]


def test_a_silent_grape(flavour):
    with ScriptedServer(["hold"]) as grape:
        link = flavour.link(grape.url, timeout=0.1)
        started = time.monotonic()
        with pytest.raises(errors.GrapeUnreachableError) as caught:
            link.lookup("svc")
        assert 0.25 < time.monotonic() - started < 2  # three tries
        assert caught.value.code == "ERR_TIMEOUT"
        assert isinstance(caught.value.__cause__, errors.RequestTimeout)


def test_a_grape_that_is_not_there(flavour):
    link = flavour.link(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(errors.GrapeUnreachableError) as caught:
        link.lookup("svc")
    assert isinstance(caught.value.__cause__, errors.ConnectError)
    assert "refused" in str(caught.value)


# --- announcements


def test_what_an_announcement_looks_like(flavour):
    with ScriptedServer([reply("2")]) as grape:
        assert flavour.link(grape.url).announce("rpc_test", 6001) == 2
        assert grape.asked[0].head.startswith("POST /announce HTTP/1.1\r\n")
        assert grape.asked[0].json["data"] == ["rpc_test", 6001]


@pytest.mark.parametrize("text", ["No nodes to query", "All queries failed"])
def test_an_outdated_table_of_the_grape_is_renewed_by_a_lookup(flavour, text):
    with ScriptedServer([reply(f'"{text}"')], [reply("[]")], [reply("1")]) as grape:
        assert flavour.link(grape.url).announce("rpc_test", 6001) == 1
        assert paths(grape) == ["/announce", "/lookup", "/announce"]


@pytest.mark.parametrize(
    ("text", "asked"),
    [("No nodes to query", ["/announce", "/lookup", "/announce"]), ("ERR_GRAPE_ANNOUNCE", ["/announce"])],
)
def test_an_announcement_that_nobody_took_is_an_error(flavour, text, asked):
    with ScriptedServer(by_path(announce=f'"{text}"', lookup="[]")) as grape:
        with pytest.raises(errors.AnnounceError) as caught:
            flavour.link(grape.url).announce("rpc_test", 6001)
        assert caught.value.text == text
        assert paths(grape) == asked


def test_announcing_goes_on_until_it_is_stopped(flavour):
    with ScriptedServer([reply("1")]) as grape:
        link = flavour.link(grape.url)
        assert link.start_announcing("rpc_test", 6001, interval=0.02) is True
        assert len(grape.asked) >= 1
        assert link.start_announcing("rpc_test", 6001, interval=0.02) is True  # changes nothing
        eventually(lambda: len(grape.asked) >= 4)
        assert link.stop_announcing("rpc_test", 6001) is True
        assert link.stop_announcing("rpc_test", 6001) is False
        # One that was under way may still arrive, and is withdrawn too.
        settled = len(grape.asked)
        stopped = time.monotonic()
        while time.monotonic() - stopped < 0.2:
            time.sleep(0.02)
        assert len(grape.asked) <= settled + 2
        assert "/withdraw" in paths(grape)
        assert {tuple(asked.json["data"]) for asked in grape.asked} == {("rpc_test", 6001)}


def test_several_names_are_announced_side_by_side(flavour):
    with ScriptedServer([reply("1")]) as grape:
        link = flavour.link(grape.url)
        for number in range(5):
            assert link.start_announcing(f"svc{number}", 6000 + number, interval=0.03)
        eventually(
            lambda: all(
                [asked.json["data"][0] for asked in grape.asked].count(f"svc{number}") >= 3
                for number in range(5)
            )
        )


def test_failures_never_end_announcing_and_are_logged(flavour, monkeypatch, caplog):
    monkeypatch.setattr(limits, "ANNOUNCE_RETRY_S", 0.01)
    failing = reply("oops", "500 Internal Server Error")
    with ScriptedServer([failing], [failing], [failing], [failing], [failing], [reply("1")]) as grape:
        link = flavour.link(grape.url, tries=1)
        with caplog.at_level(logging.WARNING, "grenache_py"):
            assert link.start_announcing("rpc_test", 6001, interval=60) is False
            eventually(lambda: len(grape.asked) >= 6)
        messages = [record.getMessage() for record in caplog.records if "rpc_test" in record.getMessage()]
        assert len(messages) == 5
        assert "announcing 'rpc_test' on port 6001 failed: announce: oops" in messages[0]


def test_stopping_the_link_ends_its_announcements(flavour):
    with ScriptedServer([reply("1")]) as grape:
        link = flavour.link(grape.url)
        link.start_announcing("rpc_test", 6001, interval=0.02)
        link.stop()
        settled = len(grape.asked)
        stopped = time.monotonic()
        while time.monotonic() - stopped < 0.1:
            time.sleep(0.02)
        assert len(grape.asked) == settled


# --- put and get


def test_put_and_get(flavour):
    item = json.dumps({"id": KEY, "token": None, "v": "hello"})
    with ScriptedServer([reply(f'"{KEY}"')], [reply(item)], [reply("")]) as grape:
        link = flavour.link(grape.url)
        assert link.put("hello") == KEY
        assert link.get(KEY) == Item("hello")
        assert link.get(KEY) is None
        assert paths(grape) == ["/put", "/get", "/get"]
        assert [asked.json["data"] for asked in grape.asked] == [{"v": "hello"}, KEY, KEY]


SEED = bytes(range(32))
SIGNER = Signer(SEED, b"salt")


def signed_reply(value: str, version: int, **changes: object) -> str:
    """What a Grape tells of a version that SIGNER signed."""
    told = {"v": value, "k": SIGNER.k.hex(), "sig": SIGNER.sign(value, version).hex(), "seq": version}
    return json.dumps({"id": KEY, "token": "00"} | told | changes)


def test_a_signed_value_is_put(flavour):
    with ScriptedServer([reply(f'"{SIGNER.hash}"')]) as grape:
        link = flavour.link(grape.url)
        assert link.put_mutable("hello", SEED, salt=b"salt", seq=4, cas=3) == SIGNER.hash
        (asked,) = grape.asked
        data = asked.json["data"]
        assert data["salt"] == {"type": "Buffer", "data": list(b"salt")}
        assert (data["v"], data["seq"], data["cas"]) == ("hello", 4, 3)
        item = DhtItem(b"hello", bytes.fromhex(data["k"]), bytes.fromhex(data["sig"]), 4, b"salt")
        assert item.signature_valid()
        assert item.target.hex() == SIGNER.hash


@pytest.mark.parametrize(
    ("newest", "expected"), [("", (1, None)), (signed_reply("old", 7), (8, 7))], ids=["first", "next"]
)
def test_without_seq_the_present_version_is_followed(flavour, newest, expected):
    with ScriptedServer([reply(newest)], [reply(f'"{SIGNER.hash}"')]) as grape:
        link = flavour.link(grape.url)
        link.put_mutable("new", SEED, salt=b"salt")
        get, put = [asked.json["data"] for asked in grape.asked]
        assert (get["hash"], get["cache"]) == (SIGNER.hash, False)
        assert (put["seq"], put.get("cas")) == expected


@pytest.mark.parametrize(
    ("key", "salt", "field"), [(b"short", None, "key"), ("text", None, "key"), (SEED, b"", "salt")]
)
def test_keys_that_are_none(flavour, key, salt, field):
    with ScriptedServer([reply("")]) as grape:
        with pytest.raises(errors.ArgumentError, match=field):
            flavour.link(grape.url).put_mutable("v", key, salt=salt, seq=1)
        assert grape.asked == []


def test_a_clash_has_its_status(flavour):
    with ScriptedServer(
        [reply('"301 CAS mismatch, re-read and try again"', "301 Moved Permanently")]
    ) as grape:
        with pytest.raises(errors.GrapeReplyError, match="CAS mismatch") as caught:
            flavour.link(grape.url).put_mutable("v", SEED, seq=2, cas=1)
        assert caught.value.status == 301


FORGED = {
    "another value": signed_reply("true", 1, v="false"),
    "another seq": signed_reply("true", 1, seq=2),
    "another key": signed_reply("true", 1, k="00" * 32),
    "no signature": signed_reply("true", 1, sig="00" * 64),
    "a signature that is too short": signed_reply("true", 1, sig="00"),
    "no key": json.dumps({"v": "true"}),
}


@pytest.mark.parametrize("told", FORGED.values(), ids=FORGED)
def test_what_was_not_signed_is_not_believed(flavour, told):
    with ScriptedServer([reply(told)]) as grape:
        link = flavour.link(grape.url)
        with pytest.raises(errors.GrapeReplyError, match="not what"):
            link.get(SIGNER.hash, salt=b"salt")
        assert link.get(SIGNER.hash, salt=b"salt", verify=False) is not None


def test_what_was_signed_is_believed(flavour):
    with ScriptedServer([reply(signed_reply("12", 1))]) as grape:
        link = flavour.link(grape.url)
        assert link.get(SIGNER.hash, salt=b"salt").value == "12"
        with pytest.raises(errors.GrapeReplyError, match="not what"):
            link.get(SIGNER.hash, salt=b"pepper")


@pytest.mark.parametrize(("v", "text"), [(b"text", "text"), (b"5", "5"), (5, "5"), (-7, "-7"), (b"", "")])
def test_immutable_values_are_checked(flavour, v, text):
    with ScriptedServer([reply(json.dumps({"v": text}))]) as grape:
        link = flavour.link(grape.url)
        assert link.get(DhtItem(v).target.hex()) == Item(text)
        with pytest.raises(errors.GrapeReplyError, match="not what"):
            link.get(DhtItem(b"other").target.hex())


def test_a_put_that_nobody_stored(flavour):
    with ScriptedServer([reply('"All queries failed"')]) as grape:
        link = flavour.link(grape.url)
        with pytest.raises(errors.GrapeReplyError, match="put: All queries failed"):
            link.put("hello")


REPORTED = "grenache-put: asked=4 stored=2 silent=1 refused=301\r\n"


def test_a_put_is_reported(flavour):
    with ScriptedServer([reply(f'"{KEY}"', headers=REPORTED)]) as grape:
        link = flavour.link(grape.url)
        assert link.put_report("hello") == (KEY, PutReport(4, 2, 1, (301,)))
        assert link.put_report("hello", SEED, seq=1) == (KEY, PutReport(4, 2, 1, (301,)))
        assert link.put("hello") == link.put_mutable("hello", SEED, seq=1) == KEY
        signed = {"k": SIGNER.k, "sig": SIGNER.sign("hello", 5), "seq": 5, "salt": b"salt"}
        link.put_report("hello", **signed)
        data = [asked.json["data"] for asked in grape.asked]
        assert [each.get("seq") for each in data] == [None, 1, None, 1, 5]
        with pytest.raises(errors.ArgumentError, match="give the key or those two"):
            link.put_report("hello", SEED, **signed)


def test_a_grape_that_reports_nothing(flavour):
    with ScriptedServer([reply(f'"{KEY}"')]) as grape:
        assert flavour.link(grape.url).put_report("hello") == (KEY, None)


@pytest.mark.parametrize(
    ("body", "status"), [('"All queries failed"', "200 OK"), ('"302 sequence"', "302 Found"), ("", "200 OK")]
)
def test_a_put_that_failed_is_reported(flavour, body, status):
    with ScriptedServer([reply(body, status, headers=REPORTED)]) as grape:
        with pytest.raises(errors.GrapeReplyError) as caught:
            flavour.link(grape.url).put("hello")
        assert caught.value.report == PutReport(4, 2, 1, (301,))
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.report) == (str(caught.value), caught.value.report)


# --- arguments and the end


@pytest.mark.parametrize(
    ("method", "arguments", "options", "field"),
    [
        ("lookup", [""], {}, "name"),
        ("lookup", [5], {}, "name"),
        ("lookup", ["svc"], {"timeout": 0}, "timeout"),
        ("forget", ["svc", "nonsense"], {}, "destination"),
        ("announce", ["svc", 0], {}, "port"),
        ("announce", ["svc", 70000], {}, "port"),
        ("announce", ["svc", "6001"], {}, "port"),
        ("start_announcing", ["", 6001], {}, "name"),
        ("start_announcing", ["svc", 6001], {"interval": -1}, "interval"),
        ("put", [None], {}, "value"),
        ("get", ["zzzz"], {}, "hash"),
    ],
)
def test_bad_arguments_are_named_and_reach_no_grape(flavour, method, arguments, options, field):
    with ScriptedServer([reply("1")]) as grape:
        link = flavour.link(grape.url)
        with pytest.raises(errors.ArgumentError) as caught:
            getattr(link, method)(*arguments, **options)
        assert caught.value.field == field
        assert grape.asked == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"grape": "nonsense"}, "grape"),
        ({"timeout": 0}, "timeout"),
        ({"tries": 0}, "tries"),
        ({"cache_age": 0}, "cache_age"),
    ],
)
def test_bad_options_are_named(flavour, options, field):
    with pytest.raises(errors.ArgumentError) as caught:
        flavour.module.Link(**options)
    assert caught.value.field == field


def test_a_stopped_link_refuses_everything(flavour):
    link = flavour.link("http://127.0.0.1:1")
    link.stop()
    link.stop()
    calls: list[tuple[str, list[Any]]] = [
        ("lookup", ["svc"]),
        ("announce", ["svc", 1]),
        ("start_announcing", ["svc", 1]),
        ("put", ["x"]),
        ("get", [KEY]),
    ]
    for method, arguments in calls:
        with pytest.raises(errors.ClosedError):
            getattr(link, method)(*arguments)
    with pytest.raises(errors.ClosedError):
        flavour.client(link)


def test_stopping_a_link_stops_what_was_built_on_it(flavour):
    link = flavour.link("http://127.0.0.1:1")
    client = flavour.client(link)
    service = flavour.service(lambda rid, key, payload, handler: handler.reply(None, payload), link)
    destination = f"127.0.0.1:{service.port}"
    assert client.request_to(destination, "k", 1) == 1
    link.stop()
    with pytest.raises(errors.ClosedError):
        client.request_to(destination, "k", 1)
    other = flavour.client(flavour.link("http://127.0.0.1:1"))
    with pytest.raises(errors.ConnectError):
        other.request_to(destination, "k", 1)


def test_stopping_while_a_lookup_waits(flavour):
    with ScriptedServer(["hold"]) as grape:
        link = flavour.link(grape.url, timeout=0.5, tries=1)
        outcomes: list[object] = []

        def look() -> None:
            try:
                outcomes.append(link.lookup("svc"))
            except errors.GrenacheError as error:
                outcomes.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        eventually(lambda: grape.asked)
        link.stop()
        thread.join(10)
        assert isinstance(outcomes[0], (errors.ClosedError, errors.GrapeUnreachableError))


# --- several Grapes


def test_another_grape_is_asked_when_one_does_not_answer(flavour):
    gone = f"http://127.0.0.1:{free_port()}"
    with ScriptedServer([reply('["10.0.0.1:5"]')]) as grape:
        link = flavour.link([gone, grape.url])
        assert link.grape == gone
        assert link.lookup("svc") == ["10.0.0.1:5"]
        assert link.grape == grape.url
        assert link.lookup("svc", fresh=True) == ["10.0.0.1:5"]
        assert len(grape.asked) == 2


def test_a_grape_that_hangs_or_breaks_is_left_too(flavour):
    oops = reply("oops", "500 Internal Server Error")
    with (
        ScriptedServer(["hold"]) as silent,
        ScriptedServer([oops]) as broken,
        ScriptedServer([reply("1")]) as good,
    ):
        link = flavour.link([silent.url, broken.url, good.url], timeout=0.2)
        assert link.announce("svc", 5) == 1
        assert link.grape == good.url


def test_all_grapes_are_asked_before_giving_up(flavour):
    gone = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    with ScriptedServer([reply("")]) as last:
        assert flavour.link([*gone, last.url], tries=1).get("ab" * 20) is None
    with pytest.raises(errors.GrapeUnreachableError):
        flavour.link(gone, tries=1).lookup("svc")


def test_nothing_is_stored_twice(flavour):
    key = reply(json.dumps("ab" * 20))
    with ScriptedServer(["close"]) as rude, ScriptedServer([key]) as other:
        with pytest.raises(errors.GrapeUnreachableError):
            flavour.link([rude.url, other.url]).put("text")
        assert other.asked == []
        # Where nothing was sent there is no doubt.
        gone = f"http://127.0.0.1:{free_port()}"
        assert flavour.link([gone, other.url]).put("text") == "ab" * 20


@pytest.mark.parametrize("grapes", [[], ["nonsense"], 5, None, {"http://127.0.0.1:1"}])
def test_bad_grapes_are_named(flavour, grapes):
    with pytest.raises(errors.ArgumentError) as caught:
        flavour.link(grapes)
    assert caught.value.field == "grape"
