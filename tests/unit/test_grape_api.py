"""Grape requests and replies, with the replies of a real Node Grape (grenache-grape 1.0.0)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py import grape_api, limits
from grenache_py.codec import compress
from grenache_py.errors import AnnounceError, ArgumentError, GrapeError, GrapeReplyError, LookupEmptyError
from grenache_py.grape_api import Item
from grenache_py.put_report import PutReport, read_put_report
from grenache_py.wire import HttpReply

GRAPE = "http://127.0.0.1:30001"
KEY = "e28910ea0adb94dd45ced75fbff3e135c01bc437"


def answer(body: str, status: int = 200) -> HttpReply:
    return HttpReply(status, "", body.encode())


def decoded(body: str, kind: str = "lookup", status: int = 200) -> object:
    return grape_api.decode_grape_reply(answer(body, status), GRAPE, kind)


def test_the_request_is_that_of_the_node_link():
    rid = "9c2537f5-6324-4f23-b17a-c6e6b0698e5a"
    assert grape_api.encode_grape_request(rid, "rpc_test") == f'{{"rid":"{rid}","data":"rpc_test"}}'.encode()
    assert (
        grape_api.encode_grape_request(rid, ["rpc_test", 6001])
        == f'{{"rid":"{rid}","data":["rpc_test",6001]}}'.encode()
    )


def test_lookup_replies():
    value = decoded('["127.0.0.1:6001","10.0.0.2:80"]')
    assert grape_api.lookup_result(value, GRAPE, "svc") == ["127.0.0.1:6001", "10.0.0.2:80"]
    assert grape_api.lookup_result(["a:1", 5, "b:2", "a:1"], GRAPE, "svc") == ["a:1", "b:2"]


@pytest.mark.parametrize("body", ["[]", "", "null", '["nonsense","","1.2.3.4:0"]'])
def test_empty_lookups(body):
    with pytest.raises(LookupEmptyError) as caught:
        grape_api.lookup_result(decoded(body), GRAPE, "svc")
    assert caught.value.code == "ERR_GRAPE_LOOKUP_EMPTY"
    assert caught.value.name == "svc"


@pytest.mark.parametrize(
    "body", ['"ERR_GRAPE_LOOKUP"', "{}", "5", "true", '[null,"ERR_API_ACTION_NOTFOUND",null]']
)
def test_lookup_errors_are_not_empty_lookups(body):
    with pytest.raises(GrapeReplyError):
        grape_api.lookup_result(decoded(body), GRAPE, "svc")


def test_a_grape_cannot_fill_the_memory_with_destinations():
    many = [f"10.0.{number // 256}.{number % 256}:80" for number in range(1000)]
    assert grape_api.lookup_result(many, GRAPE, "svc") == many[: limits.DESTINATIONS_MAX]


def test_announce_replies():
    assert grape_api.announce_result(decoded("1"), GRAPE) == 1
    assert grape_api.announce_result(decoded("20"), GRAPE) == 20


@pytest.mark.parametrize(
    "body", ['"No nodes to query"', '"All queries failed"', '"ERR_GRAPE_SERVICE_PORT"', "", "true", "[]"]
)
def test_announcements_that_nobody_took(body):
    with pytest.raises(AnnounceError) as caught:
        grape_api.announce_result(decoded(body, "announce"), GRAPE)
    assert caught.value.status == 200
    assert caught.value.text == (body.strip('"') or "null")


def test_put_replies():
    assert grape_api.decode_put_reply(answer(f'"{KEY}"'), GRAPE) == (KEY, None)
    for body in ('"All queries failed"', '"v must be less than 1000 bytes in put()"', "5", ""):
        with pytest.raises(GrapeReplyError):
            grape_api.decode_put_reply(answer(body), GRAPE)


REPORTS = {
    "asked=6 stored=6 silent=0 refused=0": PutReport(6, 6, 0),
    "asked=20 stored=0 silent=18 refused=301,302": PutReport(20, 0, 18, (301, 302)),
    "asked=21 stored=0 silent=0 refused=" + ",".join(["203"] * 21): PutReport(21, 0, 0, (203,) * 21),
}


@pytest.mark.parametrize("text", REPORTS)
def test_reports_of_puts(text):
    headers = [(b"Date", b"today"), (b"grenache-PUT", text.encode())]
    reply = HttpReply(200, "", f'"{KEY}"'.encode(), headers)
    assert grape_api.decode_put_reply(reply, GRAPE) == (KEY, REPORTS[text])
    assert str(REPORTS[text]) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "asked=1",
        "asked=-1 stored=1 silent=0 refused=0",
        "asked=1 stored=1 silent=0 refused=0,",
        "asked=12345 stored=1 silent=0 refused=0",
        "asked=1 stored=1 silent=0 refused=" + "1," * 500 + "1",
    ],
)
def test_what_is_no_report(text):
    assert read_put_report([(b"Grenache-Put", text.encode())]) is None


@given(st.binary(max_size=80))
def test_any_header_is_a_report_or_none(value):
    report = read_put_report([(b"Grenache-Put", value)])
    assert report is None or isinstance(report, PutReport)


def test_get_replies():
    assert grape_api.get_result(decoded(""), GRAPE) is None
    local = f'{{"id":"{KEY}","token":null,"v":"hello"}}'
    assert grape_api.get_result(decoded(local), GRAPE) == Item("hello")
    remote = f'{{"id":"{KEY}","k":"0a","seq":3,"sig":"0b0c","token":"00","v":"[object Object]","salt":"s"}}'
    assert grape_api.get_result(decoded(remote), GRAPE) == Item("[object Object]", 3, b"\x0a", b"\x0b\x0c")
    for body in ('"ERR_GRAPE_GENERIC"', "{}", '{"v":5}', "[]"):
        with pytest.raises(GrapeReplyError):
            grape_api.get_result(decoded(body), GRAPE)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (500, "ERR_GRAPE_PAYLOAD_INVALID", "ERR_GRAPE_PAYLOAD_INVALID"),
        (413, "ERR_GRAPE_PAYLOAD_SIZE", "ERR_GRAPE_PAYLOAD_SIZE"),
        (302, '"302 sequence number less than current"', "ERR_GRAPE_GENERIC"),
        (500, "Cannot read properties of null (reading 'data')", "ERR_GRAPE_GENERIC"),
        (404, "", "ERR_GRAPE_GENERIC"),
    ],
)
def test_statuses_other_than_2xx(status, body, code):
    with pytest.raises(GrapeReplyError) as caught:
        decoded(body, "put", status)
    assert (caught.value.status, caught.value.code, caught.value.kind) == (status, code, "put")
    if body:
        assert body.strip('"') in str(caught.value)


def test_a_text_that_is_no_json_is_an_error():
    with pytest.raises(GrapeReplyError, match="not JSON: <html>"):
        decoded("<html>")


def test_long_error_texts_are_cut():
    with pytest.raises(GrapeReplyError) as caught:
        decoded('"' + "x" * 5000 + '"', status=500)
    assert len(caught.value.text) == limits.ERROR_TEXT_MAX


@given(st.binary(max_size=60), st.sampled_from([200, 302, 500]), st.sampled_from(["", "gzip"]))
def test_any_reply_is_read_or_a_grape_error(body, status, encoding):
    for read in (
        lambda value: grape_api.lookup_result(value, GRAPE, "svc"),
        lambda value: grape_api.announce_result(value, GRAPE),
        lambda value: grape_api.get_result(value, GRAPE),
    ):
        try:
            read(grape_api.decode_grape_reply(HttpReply(status, encoding, body), GRAPE, "x"))
        except GrapeError:
            pass
    try:
        grape_api.decode_put_reply(HttpReply(status, encoding, body), GRAPE)
    except GrapeReplyError:
        pass


def test_a_gzip_bomb_from_a_grape():
    with pytest.raises(GrapeReplyError):
        grape_api.decode_grape_reply(
            HttpReply(200, "gzip", compress(b" " * (17 * 1024 * 1024))), GRAPE, "lookup"
        )


def test_put_requests():
    assert grape_api.put_request("hello") == {"v": "hello"}
    assert grape_api.put_request("") == {"v": ""}
    assert grape_api.put_request("x" * 999) == {"v": "x" * 999}
    assert grape_api.put_request("v", k=b"k" * 32, sig=b"s" * 64, seq=0, salt=b"[1,2]", cas=4) == {
        "v": "v",
        "k": (b"k" * 32).hex(),
        "sig": (b"s" * 64).hex(),
        "seq": 0,
        "salt": {"type": "Buffer", "data": [91, 49, 44, 50, 93]},
        "cas": 4,
    }


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"value": 5}, "value"),
        ({"value": None}, "value"),
        ({"value": b"x"}, "value"),
        ({"value": "x" * 1000}, "value"),
        ({"value": "é" * 500}, "value"),
        ({"value": "\ud800"}, "value"),
        ({"value": "x", "seq": 1}, "seq"),
        ({"value": "x", "salt": b"s"}, "salt"),
        ({"value": "x", "k": b"k", "sig": b"s" * 64, "seq": 1}, "k"),
        ({"value": "x", "k": "k" * 32, "sig": b"s" * 64, "seq": 1}, "k"),
        ({"value": "x", "k": b"k" * 32, "seq": 1}, "sig"),
        ({"value": "x", "k": b"k" * 32, "sig": b"s" * 63, "seq": 1}, "sig"),
        ({"value": "x", "k": b"k" * 32, "sig": b"s" * 64}, "seq"),
        ({"value": "x", "k": b"k" * 32, "sig": b"s" * 64, "seq": 1.0}, "seq"),
        ({"value": "x", "k": b"k" * 32, "sig": b"s" * 64, "seq": 1, "cas": "1"}, "cas"),
        ({"value": "x", "k": b"k" * 32, "sig": b"s" * 64, "seq": 1, "salt": b""}, "salt"),
        ({"value": "x", "k": b"k" * 32, "sig": b"s" * 64, "seq": 1, "salt": b"s" * 65}, "salt"),
    ],
)
def test_puts_that_a_grape_would_refuse_or_damage(arguments, field):
    with pytest.raises(ArgumentError) as caught:
        grape_api.put_request(**arguments)
    assert caught.value.field == field


def test_get_requests():
    assert grape_api.get_request(KEY) == KEY
    assert grape_api.get_request(KEY, b"foo") == {
        "hash": KEY,
        "salt": {"type": "Buffer", "data": [102, 111, 111]},
    }
    for arguments in (("zzzz",), (KEY, b""), (KEY, "foo")):
        with pytest.raises(ArgumentError):
            grape_api.get_request(*arguments)
