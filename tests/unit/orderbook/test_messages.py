"""Messages read from JSON in one go are the same as those read with care, and only those without fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.envelopes import (
    UNREAD,
    decode,
    encode,
    parse,
    parse_request,
    plain,
    read_match_answer,
    read_offer,
    read_request,
    request,
)
from orderbook.errors import ProtocolError
from orderbook.messages import (
    AnnounceOpenOrder,
    CrossPeerMatch,
    Goodbye,
    Heartbeat,
    MatchAnswer,
    NoOffer,
    Offer,
    OfferedFill,
    OpenOrder,
    ReleaseLock,
)
from orderbook.model import Side

ORDER = OpenOrder("o-1", "SIM", Side.BUY, "100.5", "3")
FILL = OfferedFill("m-1", "100", "2")
MESSAGES = [
    AnnounceOpenOrder(ORDER, 2, "0123456789abcdef"),
    CrossPeerMatch("t-1", "m@1", [FILL], Side.BUY, "o-1"),
    CrossPeerMatch("t-1", "m@1", [FILL]),
    ReleaseLock("m@1"),
    Heartbeat(7, "99", None, "0123456789abcdef", "bob", True),
    Goodbye(),
]
OFFER = Offer("m@1", [FILL], "2", False, 5000, sender="m")
FIELDS = st.sampled_from(
    ["type", "from", "payload", "order", "id", "side", "price", "fills", "lock_id", "round", "sig", "extra"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_request_is_read_as_it_was_written(message: Any) -> None:
    said = request("bob", message)
    assert read_request(encode(said)) == ("bob", message) == parse_request(decode(encode(said)))


@given(st.sampled_from(MESSAGES), st.data())
def test_what_is_changed_is_read_the_same_or_not_at_once(message: Any, data: st.DataObject) -> None:
    said = json.loads(encode(request("bob", message)))
    place = data.draw(st.sampled_from([said, said["payload"], said["payload"].get("order", said)]))
    place[data.draw(FIELDS)] = data.draw(VALUES)
    read_both(json.dumps(said, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_request_raises_and_nothing_else(data: bytes) -> None:
    read_both(data)
    for read in (read_offer, read_match_answer):
        try:
            read(data)
        except UNREAD:
            pass


def read_both(data: bytes) -> None:
    try:
        quickly = read_request(data)
    except UNREAD:
        return  # the careful way says what is wrong
    assert quickly == parse_request(decode(data))


def test_answers() -> None:
    assert plain(read_offer(encode(OFFER))) == plain(OFFER)
    assert read_offer(b"null") is None
    with pytest.raises(UNREAD):
        read_offer(encode(NoOffer(True, "m")))
    rejected = MatchAnswer("rejected", reason="no", sender="m")
    assert plain(read_match_answer(encode(rejected))) == plain(rejected)
    assert parse(decode(encode(rejected)), MatchAnswer) == rejected
    with pytest.raises(UNREAD):
        read_match_answer(b"null")


def test_the_type_of_a_request_is_one_we_know() -> None:
    with pytest.raises(ProtocolError, match="type must be one of AnnounceOpenOrder, CrossPeerMatch"):
        parse_request({"type": "Offer", "from": "bob", "payload": {}})
    with pytest.raises(UNREAD):
        read_request(b'{"type": "Offer", "from": "bob", "payload": {}}')


@pytest.mark.parametrize("field", ["sig", "key", "request", "extra"])
def test_an_answer_that_says_more_is_not_read_at_once(field: str) -> None:
    for answer, read in ((OFFER, read_offer), (MatchAnswer("rejected"), read_match_answer)):
        said = {**plain(answer), field: "more"}
        with pytest.raises(UNREAD):
            read(json.dumps(said).encode())


@pytest.mark.parametrize("field", ["sig", "key", "to", "extra"])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_request_that_says_more_is_not_read_at_once(message: Any, field: str) -> None:
    said = {**json.loads(encode(request("bob", message))), field: None}
    with pytest.raises(UNREAD):
        read_request(json.dumps(said).encode())
    assert parse_request(said) == ("bob", message)
