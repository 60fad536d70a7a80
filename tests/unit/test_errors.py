"""The tree of errors is the one printed at the top of its module."""

from __future__ import annotations

import inspect
import pickle

import pytest

from grenache_py import errors
from grenache_py.errors import (
    AnnounceError,
    ArgumentError,
    BadRequestError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GrapeUnreachableError,
    GrenacheError,
    ListenError,
    LookupEmptyError,
    PeerError,
    RemoteError,
    ReplyError,
    RequestTimeout,
    StatusError,
)


def all_errors() -> dict[str, type[GrenacheError]]:
    return {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, GrenacheError)
    }


def test_the_printed_tree_is_the_real_one():
    printed: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.strip(" │├└─").split(" ")[0]
        if name in all_errors():
            printed.append((line.index(name) // 4, name))
    assert {name for _, name in printed} == set(all_errors())
    parents: dict[int, str] = {}
    for depth, name in printed:
        parents[depth] = name
        if depth > 1:
            assert all_errors()[name].__mro__[1].__name__ == parents[depth - 1], name


def test_every_error_has_a_code():
    for cls in all_errors().values():
        assert cls.code.startswith("ERR_")


EXAMPLES = [
    (ArgumentError("port", "must be odd"), "ERR_ARGUMENT", False, "port: must be odd"),
    (
        GrapeUnreachableError("http://g:1", "lookup: refused"),
        "ERR_REQUEST_GENERIC",
        False,
        "lookup: refused (Grape http://g:1)",
    ),
    (
        AnnounceError("http://g:1", "announce", "No nodes to query", 200),
        "ERR_GRAPE_GENERIC",
        False,
        "announce: No nodes to query (Grape http://g:1)",
    ),
    (
        LookupEmptyError("http://g:1", "svc"),
        "ERR_GRAPE_LOOKUP_EMPTY",
        False,
        "ERR_GRAPE_LOOKUP_EMPTY: nobody announces 'svc' (Grape http://g:1)",
    ),
    (ListenError(98, "cannot listen on *:1"), "ERR_LISTEN", False, "cannot listen on *:1"),
    (ConnectError("h:1", "refused"), "ERR_REQUEST_GENERIC", False, "ERR_REQUEST_GENERIC: refused (h:1)"),
    (ConnectTimeout("h:1", "late"), "ERR_TIMEOUT", False, "ERR_TIMEOUT: late (h:1)"),
    (ConnectionLost("h:1", "gone"), "ERR_REQUEST_GENERIC", True, "ERR_REQUEST_GENERIC: gone (h:1)"),
    (RequestTimeout("h:1", "late"), "ERR_TIMEOUT", True, "ERR_TIMEOUT: late (h:1)"),
    (ReplyError("h:1", "no array"), "ERR_REPLY_EMPTY", True, "ERR_REPLY_EMPTY: no array (h:1)"),
    (StatusError("h:1", 400, "no"), "ERR_REQUEST_GENERIC", False, "ERR_REQUEST_GENERIC: HTTP 400: no (h:1)"),
    (StatusError("h:1", 500, "no"), "ERR_REQUEST_GENERIC", True, "ERR_REQUEST_GENERIC: HTTP 500: no (h:1)"),
    (RemoteError("h:1", "ERR_MY_ERROR: x", {"a": 1}), "ERR_MY_ERROR", False, "ERR_MY_ERROR: x (h:1)"),
    (RemoteError("h:1", "it broke"), "ERR_REMOTE", False, "it broke (h:1)"),
    (BadRequestError("ERR_X", 400, "why"), "ERR_X", False, "ERR_X: why"),
]


@pytest.mark.parametrize(("error", "code", "in_doubt", "text"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_code_doubt_and_text(error, code, in_doubt, text):
    assert error.code == code
    assert error.in_doubt is in_doubt
    assert str(error) == text


@pytest.mark.parametrize(
    "error", [example[0] for example in EXAMPLES], ids=lambda error: type(error).__name__
)
def test_errors_can_be_sent_to_another_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_they_are_also_what_python_programmers_catch():
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(ConnectTimeout, (TimeoutError, ConnectionError))
    assert issubclass(RequestTimeout, TimeoutError)
    assert issubclass(ConnectionLost, ConnectionError)
    assert issubclass(ConnectError, PeerError)
