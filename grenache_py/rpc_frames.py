"""Requests and replies, as msgspec reads them. Only that: a class of msgspec can't be compiled."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Request(msgspec.Struct, array_like=True, gc=False):
    """A request as received. ``rid``, ``key`` and ``payload`` may be any JSON value: the sender decides.

    ``extra`` is a fourth element, which only has a meaning over WebSocket.
    """

    gzipped: ClassVar[bool] = False

    rid: Any = None
    key: Any = None
    payload: Any = None
    extra: Any = None


class GzippedRequest(Request, array_like=True, gc=False):
    """One that came as gzip, and is answered so."""

    gzipped: ClassVar[bool] = True


class Answer(msgspec.Struct, array_like=True, gc=False):
    """A reply, as it comes over WebSocket."""

    rid: str
    error: Any = None
    result: Any = None
