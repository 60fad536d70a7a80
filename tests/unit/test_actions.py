"""Actions: what is exported, what is found, how calls are answered, what the access log says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from typing import Any, cast

import pytest

from grenache_py.access_log import AccessLog, access_line
from grenache_py.actions import Actions, check_names, check_request, sec_port_of
from grenache_py.dispatch import Dispatcher
from grenache_py.errors import ArgumentError, Refusal
from grenache_py.transports.rpc_server import Handler


class Replier:
    """Stands for a ``Handler``: keeps the reply."""

    def __init__(self, certificate=None):
        self.certificate = certificate
        self.peer = ("10.0.0.7", 1)
        self.answers = []

    @property
    def replied(self):
        return bool(self.answers)

    def reply(self, error=None, result=None):
        if isinstance(result, set):
            raise ArgumentError("result", "must be encodable as JSON")
        self.answers.append([error, result])


def ask(actions, payload, *, key="rest:util:net", acl=None, awaits=False, log=None):
    """What a caller is answered."""
    replier = Replier()
    made = Dispatcher(actions, acl, log or AccessLog(), awaits)
    work: Any = made.handle("rid", key, payload, cast("Handler", replier))
    if work is not None:
        asyncio.run(work)
    [answer] = replier.answers
    return answer


@pytest.fixture
def actions():
    made = Actions()

    @made.export
    def getIpInfo(space, ip):  # noqa: N802
        return [ip, {"country": "US"}]

    @made.export("space")
    def tell(space):
        return [space.service, space.svp, space.action, space.handler.peer[0], space.certificate]

    @made.export
    def total(space, first: int, *more: int):
        return first + sum(more)

    @made.export
    def optional(space, a, b=2):
        return [a, b]

    @made.export
    def refuse(space):
        raise Refusal("ERR_NO_SUCH_IP: 8.8.8.8", {"tried": 1})

    @made.export
    def crash(space):
        raise ValueError("so wrong")

    @made.export
    def unsendable(space):
        return {1, 2}

    return made


def call(action, *args):
    return {"action": action, "args": list(args)}


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (call("getIpInfo", "8.8.8.8"), [None, ["8.8.8.8", {"country": "US"}]]),
        (call("space"), [None, ["rest:util:net", ["rest", "util", "net"], "space", "10.0.0.7", None]]),
        ({"action": "space"}, [None, ["rest:util:net", ["rest", "util", "net"], "space", "10.0.0.7", None]]),
        (call("total", 1), [None, 1]),
        (call("total", 1, 2, 3), [None, 6]),
        (call("optional", 1), [None, [1, 2]]),
        (call("optional", 1, None), [None, [1, None]]),
        (call("refuse"), ["ERR_NO_SUCH_IP: 8.8.8.8", {"tried": 1}]),
        (call("crash"), ["ERR_API_ACTION: ValueError: so wrong", None]),
    ],
)
def test_answers(actions, payload, answer):
    assert ask(actions, payload) == answer


@pytest.mark.parametrize(
    "payload",
    [None, 5, "getIpInfo", [], {}, {"args": []}, {"action": None}, {"action": 5}, {"action": ["total"]}]
    + [{"action": name} for name in ("", "nonsense", "_exported", "export", "names", "ready", "__init__")],
)
def test_only_what_was_exported_is_found(actions, payload):
    assert ask(actions, payload) == ["ERR_API_ACTION_NOTFOUND", None]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"action": "total", "args": {"first": 1}}, "args must be an array"),
        ({"action": "total", "args": "1"}, "args must be an array"),
        (call("total"), "first is missing"),
        (call("getIpInfo", 1, 2), "at most 1 arguments, not 2"),
        (call("space", 1), "at most 0 arguments, not 1"),
        (call("total", "1"), "first: Expected `int`, got `str`"),
        (call("total", 1, 2, None), "argument 3: Expected `int`, got `null`"),
    ],
)
def test_arguments_that_do_not_fit(actions, payload, says):
    error, result = ask(actions, payload)
    assert error.startswith(f"ERR_API_ARGS: {says}")
    assert result is None


def test_arguments_of_a_type():
    @dataclasses.dataclass
    class Order:
        price: str
        amount: int = 1

    actions = Actions()

    def show(space, order):
        return [type(order).__name__, order.price, order.amount]

    show.__annotations__["order"] = Order
    actions.export(show)
    assert ask(actions, call("show", {"price": "1.5"})) == [None, ["Order", "1.5", 1]]
    assert ask(actions, call("show", {}))[0].startswith("ERR_API_ARGS: order: Object missing required field")


def test_a_result_that_cannot_be_sent_is_an_error_of_the_action(actions, caplog):
    assert ask(actions, call("unsendable"))[0].startswith("ERR_API_ACTION: ArgumentError: result: must be")
    assert "unsendable" in caplog.text


def test_a_crash_is_logged_with_its_trace(actions, caplog):
    ask(actions, call("crash"))
    assert "so wrong" in caplog.text
    assert "Traceback" in caplog.text
    caplog.clear()
    ask(actions, call("refuse"))
    assert not caplog.records


def test_until_it_is_ready(actions):
    actions.ready = False
    assert ask(actions, call("total", 1)) == ["ERR_API_READY", None]
    assert ask(actions, call("nonsense")) == ["ERR_API_READY", None]


@pytest.mark.parametrize("key", [None, 5, ["a"]])
def test_a_service_name_that_is_no_text(actions, key):
    assert ask(actions, call("space"), key=key)[1][:2] == ["", [""]]


def test_coroutines_need_the_other_flavour(caplog):
    actions = Actions()

    @actions.export
    async def later(space, n: int):
        await asyncio.sleep(0)
        if n < 0:
            raise Refusal("ERR_NEGATIVE")
        if not n:
            raise KeyError("n")
        return n

    assert ask(actions, call("later", 1), awaits=True) == [None, 1]
    assert ask(actions, call("later", -1), awaits=True) == ["ERR_NEGATIVE", None]
    assert ask(actions, call("later", 0), awaits=True) == ["ERR_API_ACTION: KeyError: 'n'", None]
    assert ask(actions, call("later", 1)) == [
        "ERR_API_ACTION: TypeError: a coroutine function needs grenache_py.aio",
        None,
    ]


def no_argument():
    """Cannot be told its space."""


def unknown_hint(space, order: Nonsense):  # type: ignore[name-defined]  # noqa: F821
    """No type can be found for ``order``."""


def keyword_only(space, *, needed):
    """Nobody can give ``needed``."""


@pytest.mark.parametrize(
    ("export", "says"),
    [
        (lambda actions: actions.export("_hidden"), "must not begin with an underscore"),
        (lambda actions: actions.export(""), "must be a text that is not empty"),
        (lambda actions: actions.export("total"), "'total' is exported already"),
        (lambda actions: lambda function: actions.export(no_argument), "must take a Space first"),
        (lambda actions: lambda function: actions.export(keyword_only), "nobody could give .* 'needed'"),
        (lambda actions: lambda function: actions.export(unknown_hint), "type hint .* 'Nonsense' is not"),
        (lambda actions: lambda function: actions.export("x")(5), "'x' must be a function"),
        (lambda actions: lambda function: actions.export(5), "must be a text that is not empty"),
    ],
)
def test_what_cannot_be_exported(actions, export, says):
    with pytest.raises(ArgumentError, match=says):
        export(actions)(lambda space: None)


def test_a_decorated_function_stays_what_it_is(actions):
    def plain(space):
        return 1

    assert actions.export(plain) is plain
    assert actions.export("other")(plain) is plain
    assert actions.names[-2:] == ["plain", "other"]


def test_who_may_not_call_learns_nothing_else(actions):
    class Nobody:
        def allows(self, certificate, action):
            return False

    for payload in (call("total", 1), call("nonsense"), call("total"), None):
        assert ask(actions, payload, acl=Nobody()) == ["ERR_API_AUTH", None]


def test_the_access_log(actions, tmp_path, caplog):
    caplog.set_level(logging.INFO, "grenache_py.access")
    path = tmp_path / "access.log"
    log = AccessLog(path)
    nasty = "é\n\x1b[2J" + "x" * 1000
    for payload in (call("total", 1), call("crash"), call("refuse"), call(nasty), None):
        ask(actions, payload, key=nasty, log=log)
    path.rename(tmp_path / "older.log")  # as logrotate does
    ask(actions, call("total", 1), log=log)
    log.close()
    raw = (tmp_path / "older.log").read_bytes()
    assert raw.isascii()
    assert b"\x1b" not in raw
    lines = [json.loads(line) for line in raw.splitlines()]
    assert [line["outcome"] for line in lines] == [
        "ok",
        "ERR_API_ACTION",
        "ERR_NO_SUCH_IP",
        "ERR_API_ACTION_NOTFOUND",
        "ERR_API_ACTION_NOTFOUND",
    ]
    assert [line["action"] for line in lines] == ["total", "crash", "refuse", nasty[:200], None]
    assert {line["service"] for line in lines} == {nasty[:200]}
    assert len(path.read_bytes().splitlines()) == 1
    said = [record.getMessage() for record in caplog.records if record.name == "grenache_py.access"]
    assert said[:5] == raw.decode().splitlines()


def test_a_line_of_the_access_log():
    assert json.loads(access_line(0.5, "s", None, "ab", "::1", "ok", 0.00123456)) == {
        "time": "1970-01-01T00:00:00.500Z",
        "service": "s",
        "action": None,
        "fingerprint": "ab",
        "peer": "::1",
        "outcome": "ok",
        "seconds": 0.001235,
    }


def test_an_access_log_that_cannot_be_opened(tmp_path):
    with pytest.raises(ArgumentError, match=r"access_log: .*No such file"):
        AccessLog(tmp_path / "no" / "such.log")


@pytest.mark.parametrize("names", [[], [""], "", ["a", "sec:a"], "sec:a"])
def test_names_of_a_worker(names):
    assert check_names("a") == ["a"]
    assert check_names(["a", "b", "a"]) == ["a", "b"]
    with pytest.raises(ArgumentError, match="names"):
        check_names(names)


def test_the_port_of_a_twin():
    assert sec_port_of(7000, None) == 9000
    assert sec_port_of(0, None) == 0
    assert sec_port_of(7000, 0) == 0
    assert sec_port_of(65000, 443) == 443
    with pytest.raises(ArgumentError, match="sec_port"):
        sec_port_of(65000, None)


def test_requests_have_the_codes_of_bitfinex():
    assert check_request("a", "b", (1, 2)) == {"action": "b", "args": (1, 2)}
    for bad, code in (
        (("a", 5, []), "ERR_GRC_REQ_ACTION_INVALID"),
        (("a", "b", {}), "ERR_GRC_REQ_ARGS_INVALID"),
    ):
        with pytest.raises(ArgumentError) as raised:
            check_request(*bad)
        assert raised.value.code == code
