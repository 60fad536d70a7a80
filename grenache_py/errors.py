"""Every exception of the package.

    GrenacheError
    ├── ArgumentError              you passed something that cannot be sent (also a ValueError)
    ├── KeyFileError               a file of a private key can't be read, written or used
    ├── ClosedError                you used a link or peer after its end
    ├── ListenError                a service could not listen on its port (also an OSError)
    ├── GrapeError                 the Grape, or the way to it
    │   ├── GrapeUnreachableError  no connection, or no answer in time
    │   ├── GrapeReplyError        it answered that it cannot
    │   │   └── AnnounceError      nobody took the announcement
    │   └── LookupEmptyError       nobody announces that name
    ├── PeerError                  one destination, or the way to it
    │   ├── ConnectError           no connection, nothing was sent (also a ConnectionError)
    │   │   └── ConnectTimeout     … within the time limit (also a TimeoutError)
    │   ├── ConnectionLost         the connection broke before the whole reply came (also a ConnectionError)
    │   ├── RequestTimeout         no whole reply within the time limit (also a TimeoutError)
    │   ├── ReplyError             a reply came, and it is not one
    │   │   ├── ReplyEncodingError asked for a gzip reply, got something else
    │   │   ├── ReplySizeError     larger than we are willing to hold
    │   │   └── StatusError        an HTTP status other than 2xx
    │   └── RemoteError            the peer's handler answered with an error
    ├── Refusal                    you answer a caller with this: raised by your handlers
    └── BadRequestError            a server received something that is no request (seen by ``request-error``)

Each has a ``code``, the ``ERR_…`` word that Node Grenache uses for it (or would), and ``in_doubt``: whether
the peer may have done the work although no answer says so. Only errors with ``in_doubt`` false are safe to
repeat when doing the work twice would be wrong.

Errors of sockets and HTTP libraries never pass a transport: they are the ``__cause__`` of one of these.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .put_report import PutReport

_CODE = re.compile(r"ERR_[A-Z0-9_]+")


def code_of(text: str, default: str) -> str:
    """The ``ERR_…`` word that a message begins with, or ``default``."""
    match = _CODE.match(text)
    return match.group() if match else default


def reason(error: BaseException) -> str:
    """What an error of the system means, in the system's own short words: ``Connection refused``."""
    tls_reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
    if isinstance(error, OSError) and isinstance(tls_reason, str):  # an ssl.SSLError, whose errno is its own
        if tls_reason == "WRONG_VERSION_NUMBER":
            return "TLS: the other side does not speak it"
        return f"TLS: {tls_reason if ' ' in tls_reason else tls_reason.lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class GrenacheError(Exception):
    """Base of all errors of this package; never raised itself."""

    code = "ERR_GENERIC"
    in_doubt = False


class ArgumentError(GrenacheError, ValueError):
    """An argument breaks a rule; nothing was sent and nothing changed.

    ``field`` names the argument, ``rule`` says what it must be.
    """

    code = "ERR_ARGUMENT"

    def __init__(self, field: str, rule: str):
        super().__init__(field, rule)
        self.field = field
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


class KeyFileError(GrenacheError):
    """A file holds no private key that can be used, or can't be read or written."""

    code = "ERR_KEY_FILE"


class ClosedError(GrenacheError):
    """The link, client or service was stopped before or during the call."""

    code = "ERR_CLOSED"


class ListenError(GrenacheError, OSError):
    """A service could not listen: the port is taken, the host is not this machine's, no permission."""

    code = "ERR_LISTEN"

    def __init__(self, errno: int | None, message: str):
        super().__init__(errno, message)

    def __str__(self) -> str:
        return str(self.strerror)


class GrapeError(GrenacheError):
    """Base of what can go wrong between a Link and its Grape. ``grape`` is the Grape's URL."""

    def __init__(self, grape: str, message: str):
        super().__init__(grape, message)
        self.grape = grape
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} (Grape {self.grape})"


class GrapeUnreachableError(GrapeError):
    """The Grape could not be connected to or did not answer properly in time; the last cause is chained."""

    def __init__(self, grape: str, message: str, code: str = "ERR_REQUEST_GENERIC"):
        super().__init__(grape, message)
        self.code = code


class GrapeReplyError(GrapeError):
    """The Grape answered with an error. ``text`` is what it said, ``status`` its HTTP status (often 200);
    ``report`` what became of a put, where the Grape tells.
    """

    def __init__(self, grape: str, kind: str, text: str, status: int, report: PutReport | None = None):
        super().__init__(grape, f"{kind}: {text}")
        self.args = (grape, kind, text, status, report)
        self.kind = kind
        self.text = text
        self.status = status
        self.report = report
        self.code = code_of(text, "ERR_GRAPE_GENERIC")


class AnnounceError(GrapeReplyError):
    """No Grape of the network took the announcement, for example ``No nodes to query``.

    Node's Link reports these as success (grenache-nodejs-link/index.js); a service that believes it would
    wait for callers that cannot find it.
    """


class LookupEmptyError(GrapeError):
    """Nobody announces ``name`` at present."""

    code = "ERR_GRAPE_LOOKUP_EMPTY"

    def __init__(self, grape: str, name: str):
        super().__init__(grape, f"{self.code}: nobody announces {name!r}")
        self.name = name


class PeerError(GrenacheError):
    """Base of what can go wrong with one destination. ``destination`` is its ``host:port``."""

    code = "ERR_REQUEST_GENERIC"

    def __init__(self, destination: str, message: str):
        super().__init__(destination, message)
        self.destination = destination
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message} ({self.destination})"


class ConnectError(PeerError, ConnectionError):
    """No connection could be made: refused, unreachable, no such host. Nothing was sent."""


class ConnectTimeout(ConnectError, TimeoutError):
    """No connection could be made in time. Nothing was sent."""

    code = "ERR_TIMEOUT"


class ConnectionLost(PeerError, ConnectionError):
    """The connection ended, or stopped being HTTP, before the whole reply had come."""

    in_doubt = True


class RequestTimeout(PeerError, TimeoutError):
    """The request went out; no whole reply came within the time limit."""

    code = "ERR_TIMEOUT"
    in_doubt = True


class ReplyError(PeerError):
    """The reply is not a Grenache reply ``[rid, error, result]`` to this request."""

    code = "ERR_REPLY_EMPTY"
    in_doubt = True


class ReplyEncodingError(ReplyError):
    """The reply is not gzip although the request asked for it, or it is broken gzip."""

    code = "ERR_REPLY_ENCODING_COMPRESSION"


class ReplySizeError(ReplyError):
    """The reply, or what it decompresses to, is larger than ``limits.BODY_BYTES_MAX``."""

    code = "ERR_REPLY_SIZE"


class StatusError(ReplyError):
    """The peer answered with an HTTP ``status`` other than 2xx; ``text`` is the beginning of the body."""

    def __init__(self, destination: str, status: int, text: str):
        super().__init__(destination, f"HTTP {status}: {text}")
        self.args = (destination, status, text)
        self.status = status
        self.text = text
        self.code = "ERR_REQUEST_GENERIC"
        # 4xx says that the request was not understood, so its handler did not run.
        self.in_doubt = not 400 <= status < 500

    @property
    def busy(self) -> bool:
        """Whether the peer, one of ours, had too much to do to begin with this; another one may have not."""
        return self.code == "ERR_BUSY"


class RemoteError(PeerError):
    """The peer's handler answered with an error.

    ``message`` is the text as given; ``result`` is the result that came with it (Node handlers may send
    both).
    """

    def __init__(self, destination: str, message: str, result: Any = None):
        super().__init__(destination, message)
        self.result = result
        self.code = code_of(message, "ERR_REMOTE")

    def __str__(self) -> str:
        return f"{self.message} ({self.destination})"


class Refusal(GrenacheError):
    """Raised by a handler, an action or a middleware to answer the caller: ``Refusal("ERR_NO_SUCH_IP")``.

    ``message`` goes to the caller as it is, ``result`` beside it (Node: ``handler.reply(new Error(message),
    result)``); the caller sees a ``RemoteError``. Other exceptions are answered with their class, and logged.
    """

    def __init__(self, message: str, result: Any = None):
        if not message:
            raise ArgumentError("message", "must not be empty: that would be no error to the caller")
        super().__init__(message, result)
        self.message = message
        self.result = result
        self.code = code_of(message, "ERR_REFUSED")

    def __str__(self) -> str:
        return self.message


class BadRequestError(GrenacheError):
    """What a server received is no request. ``status`` and ``code`` are what the sender was answered."""

    def __init__(self, code: str, status: int, message: str):
        super().__init__(code, status, message)
        self.code = code
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
