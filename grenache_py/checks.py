"""Rules for arguments, checked before anything is sent. Each function returns what it was given, or raises
``ArgumentError`` naming the field and the rule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeGuard

from . import limits
from .errors import ArgumentError


def check_name(name: object, field: str = "name") -> str:
    """A service name: text, not empty (an empty one breaks Node Grapes), at most ``limits.NAME_BYTES_MAX``
    bytes.
    """
    if type(name) is str and name.isascii() and 0 < len(name) <= limits.NAME_BYTES_MAX:
        return name  # as nearly always
    if not isinstance(name, str) or not name:
        raise ArgumentError(field, f"must be a text that is not empty, not {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ArgumentError(field, "must not contain half of a surrogate pair") from None
    if size > limits.NAME_BYTES_MAX:
        raise ArgumentError(field, f"must be at most {limits.NAME_BYTES_MAX} bytes of UTF-8, not {size}")
    return name


def check_port(port: int, field: str = "port") -> int:
    """A TCP port that can be announced: an integer from 1 to 65535 (others make a Node Grape exit)."""
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ArgumentError(field, f"must be an integer from 1 to 65535, not {port!r}")
    return port


_HASH = re.compile(r"[0-9a-fA-F]{40}")


def is_hash(text: Any) -> TypeGuard[str]:
    """Whether this is the key of a stored value: 40 hexadecimal digits."""
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def check_hash(hash: str, field: str = "hash") -> str:
    """The key of a stored value: 40 hexadecimal digits (others make a Node Grape exit)."""
    if not is_hash(hash):
        raise ArgumentError(field, f"must be 40 hexadecimal digits, not {hash!r}")
    return hash.lower()


_DESTINATION = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})")


def is_destination(text: Any) -> TypeGuard[str]:
    """Whether this is ``host:port`` with a port from 1 to 65535."""
    if not isinstance(text, str):
        return False
    match = _DESTINATION.fullmatch(text)
    return match is not None and 1 <= int(match["port"]) <= 65535


def check_destination(destination: str, field: str = "destination") -> str:
    """Where a peer listens, ``host:port``; an IPv6 host stands in brackets."""
    if not is_destination(destination):
        raise ArgumentError(field, f"must be host:port, not {destination!r}")
    return destination


_GRAPE = re.compile(r"https?://[^/?#\s@]+", re.ASCII)


def check_grape(grape: str, field: str = "grape") -> str:
    """A Grape's URL without a path: ``http://127.0.0.1:30001``."""
    url = grape[:-1] if isinstance(grape, str) and grape.endswith("/") else grape
    if not isinstance(url, str) or not _GRAPE.fullmatch(url):
        raise ArgumentError(field, f"must be a URL such as http://127.0.0.1:30001, not {grape!r}")
    return url


def check_grapes(grapes: str | Sequence[str], field: str = "grape") -> list[str]:
    """URLs of one or several Grapes, each once; or ``EMBEDDED`` alone."""
    if grapes == EMBEDDED:
        return [EMBEDDED]
    if isinstance(grapes, str):
        return [check_grape(grapes, field)]
    if not isinstance(grapes, Sequence) or not grapes:
        raise ArgumentError(field, f"must be a URL or a list of URLs, not {grapes!r}")
    return list(dict.fromkeys(check_grape(grape, field) for grape in grapes))


EMBEDDED = "embedded"


def check_bootstrap(bootstrap: Sequence[str], grape: str | Sequence[str]) -> list[str]:
    """The Grapes that an embedded one joins: texts ``host:port`` with their DHT ports."""
    if isinstance(bootstrap, str) or not isinstance(bootstrap, Sequence):
        raise ArgumentError("bootstrap", f"must be a list of host:port texts, not {bootstrap!r}")
    if bootstrap and grape != EMBEDDED:
        raise ArgumentError("bootstrap", f"is for a Grape within this process: needs grape={EMBEDDED!r}")
    return [check_destination(address, "bootstrap") for address in bootstrap]


def check_seconds(seconds: object, field: str = "timeout") -> float:
    """A time: a finite number of seconds greater than 0."""
    if type(seconds) is float and 0 < seconds < math.inf:
        return seconds  # as nearly always
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise ArgumentError(field, f"must be a number of seconds, not {seconds!r}")
    if not math.isfinite(seconds) or seconds <= 0:
        raise ArgumentError(field, f"must be greater than 0 and finite, not {seconds!r}")
    return float(seconds)


def check_busy_poll(microseconds: float) -> float:
    """How long to poll: microseconds from 0 (not at all)."""
    if (
        not isinstance(microseconds, (int, float))
        or isinstance(microseconds, bool)
        or not 0 <= microseconds <= limits.BUSY_POLL_US_MAX
    ):
        rule = f"must be a number of microseconds from 0 to {limits.BUSY_POLL_US_MAX}"
        raise ArgumentError("busy_poll_us", f"{rule}, not {microseconds!r}")
    return microseconds


def check_count(count: int, field: str) -> int:
    """A count: an integer from 1."""
    if type(count) is int and count > 0:
        return count  # as nearly always
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ArgumentError(field, f"must be an integer from 1, not {count!r}")
    return count


def check_listen_port(port: int) -> int:
    """A port to listen on: an integer from 0 (any free one) to 65535."""
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ArgumentError("port", f"must be an integer from 0 to 65535, not {port!r}")
    return port


def check_transport(name: str) -> str:
    """The kind of a server's transport."""
    if name != "server":
        raise ArgumentError("name", f"must be 'server', not {name!r}")
    return name


TRANSPORTS = ("http", "ws")


def check_http_or_ws(transport: str) -> str:
    """How requests travel."""
    if transport not in TRANSPORTS:
        raise ArgumentError("transport", f"must be one of {', '.join(TRANSPORTS)}, not {transport!r}")
    return transport


POLICIES = ("random", "least-loaded", "fastest")


def check_policy(policy: str) -> str:
    """How destinations are chosen."""
    if policy not in POLICIES:
        raise ArgumentError("choice", f"must be one of {', '.join(POLICIES)}, not {policy!r}")
    return policy


def check_streams(
    streams: Callable[[str], bool] | None, disable_buffered: bool
) -> Callable[[str], bool] | None:
    """Which actions are streams, ``None`` for none of them."""
    if streams is not None and disable_buffered:
        raise ArgumentError("streams", "has no meaning with disable_buffered: all are streams then")
    if streams is not None and not callable(streams):
        raise ArgumentError("streams", f"must be a function of a text, not {type(streams).__name__}")
    return streams


EVENTS = ("request", "request-error", "stream", "websocket")


def check_event(
    event: str,
    taken: Container[str],
    streams: bool = False,
    websockets: bool = False,
    requests: bool = True,
) -> str:
    """An event of a service that has no listener yet, and which of them it has: ``streams`` and ``requests``
    are buffered or not, ``websockets`` are taken on the same port.
    """
    if event not in EVENTS:
        raise ArgumentError("event", f"must be one of {', '.join(EVENTS)}, not {event!r}")
    if event == "stream" and not streams:
        raise ArgumentError("event", "stream needs a server with disable_buffered or streams")
    if event == "websocket" and not (websockets and requests):
        raise ArgumentError("event", "websocket needs grenache_py.aio over HTTP, without disable_buffered")
    if event == "request" and not requests:
        raise ArgumentError("event", "a server with disable_buffered has stream in place of request")
    if event in taken:
        raise ArgumentError("event", f"{event} already has a listener")
    return event
