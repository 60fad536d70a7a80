"""What a command ends with: a status that scripts can tell apart, and what people can do next.

``docs/cli.md`` has the table.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from enum import IntEnum

from ..errors import (
    ArgumentError,
    ConnectError,
    ConnectionLost,
    GrapeReplyError,
    GrapeUnreachableError,
    GrenacheError,
    LookupEmptyError,
    PeerError,
    RemoteError,
    StatusError,
)
from ..grape_api import RENEWABLE


class ExitStatus(IntEnum):
    OK = 0
    FAILED = 1
    """It did not work, in a way that has no number of its own."""
    USAGE = 2
    """The command was not well formed (click's own number)."""
    NOT_FOUND = 3
    """Nobody announces the name; nothing is stored under the key; nobody subscribed."""
    REMOTE_ERROR = 4
    """A peer's handler answered with an error."""
    TIMEOUT = 5
    """A peer did not answer within the time limit, ours or its own."""
    PEER_UNREACHABLE = 6
    """No connection to a peer, or it broke before the answer."""
    BAD_REPLY = 7
    """A peer answered with something that is no answer, such as: too busy, not allowed."""
    GRAPE_UNREACHABLE = 8
    GRAPE_REFUSED = 9
    """A Grape answered that it can't."""
    INTERRUPTED = 130
    """Ctrl-C (128 and the number of SIGINT, as shells have it)."""


def status_of(error: GrenacheError) -> ExitStatus:
    """The status that stands for an error."""
    if isinstance(error, ArgumentError):
        return ExitStatus.USAGE
    if isinstance(error, LookupEmptyError):
        return ExitStatus.NOT_FOUND
    if isinstance(error, GrapeUnreachableError):
        return ExitStatus.GRAPE_UNREACHABLE
    if isinstance(error, GrapeReplyError):
        return ExitStatus.GRAPE_REFUSED
    if isinstance(error, RemoteError):
        return ExitStatus.REMOTE_ERROR
    if isinstance(error, TimeoutError) or (isinstance(error, StatusError) and error.code == "ERR_TIMEOUT"):
        return ExitStatus.TIMEOUT
    if isinstance(error, (ConnectError, ConnectionLost)):
        return ExitStatus.PEER_UNREACHABLE
    if isinstance(error, PeerError):
        return ExitStatus.BAD_REPLY
    return ExitStatus.FAILED


def status_of_all(errors: Iterable[GrenacheError]) -> ExitStatus:
    """The status of a command all of whose calls failed: theirs, where all have the same."""
    statuses = {status_of(error) for error in errors}
    return statuses.pop() if len(statuses) == 1 else ExitStatus.FAILED


def hints(errors: Iterable[GrenacheError]) -> list[str]:
    """What to do about any of ``errors``, each once."""
    return [text for text in dict.fromkeys(map(hint, errors)) if text]


def hint(error: GrenacheError) -> str:
    """What to do about an error, or nothing."""
    if isinstance(error, LookupEmptyError):
        return "is its service running, and announced on this Grape's network?"
    if isinstance(error, GrapeUnreachableError):
        return "start a Grape with `grape-py`, or name another one: --grape URL, or GRENACHE_GRAPE"
    if isinstance(error, GrapeReplyError) and error.kind == "put" and error.text == "All queries failed":
        return "the other Grapes refused it, or are away; Node's keep no signed values"
    if isinstance(error, GrapeReplyError) and error.text in RENEWABLE:
        return "this Grape knows no other that would keep it: let it join one, grape-py --bn HOST:PORT"
    if isinstance(error, GrapeReplyError) and error.status in (301, 302):
        return "another version was stored: get it, then put with --cas its seq, and --seq above it"
    if isinstance(error, StatusError) and error.busy:
        return "try again in a moment, or let it try other peers: --retry"
    if isinstance(error, StatusError) and error.status == 426:
        return "this service speaks WebSocket: --transport ws"
    if isinstance(error, StatusError) and error.status == 403:
        return "this service does not know your certificate: --tls-cert, --tls-key"
    if isinstance(error, RemoteError):
        return ""
    if isinstance(error, TimeoutError) and error.in_doubt:
        return "it may have been done all the same; --timeout waits longer"
    if isinstance(error, ConnectionLost):
        return "it may have been done all the same; a service may want --tls-ca, --tls-cert or --transport ws"
    if isinstance(error.__cause__, ssl.SSLError):
        return "TLS: do --tls-ca, --tls-cert and --tls-key fit this service, and does it speak TLS?"
    if isinstance(error, ConnectError):
        return (
            "it may have gone a moment ago: Grapes list a service for up to 160 s after its last announcement"
        )
    return ""
