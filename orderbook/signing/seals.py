"""What a signed message looks like, byte by byte. Pure functions.

A request is its plain envelope with ``market``, ``time``, ``nonce``, ``key``, ``sig`` and, where only one
peer is meant, ``to``. An answer is its plain content with ``request``, ``key`` and ``sig``::

    {"type": "CrossPeerMatch", "from": "bob", "payload": {…}, "market": "BTC-USD", "time": 1700000000000,
     "nonce": "5f0c…", "to": "<maker's key>", "key": "<bob's key>", "sig": "<signature>"}
    {"status": "committed", "trades": […], "from": "alice", "request": "<digest>", "key": "…", "sig": "…"}

``sig`` signs the canonical form of everything else: JSON in UTF-8 without white space, the members of every
object sorted by name, as in RFC 8785. Nothing that peers say holds a fraction, so its rules for numbers play
no part. ``request`` is the SHA-256 of what the request's ``sig`` signs, so that an answer belongs to one
request, of one peer, for good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from .. import limits
from ..errors import ProtocolError
from ..messages import Name
from .identity import Signer

Key = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Signature = Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]
TimeMs = Annotated[int, Meta(ge=0, le=limits.WHOLE_NUMBER)]


class SignedEnvelope(Struct):
    """A signed request; ``time`` in milliseconds of the epoch."""

    type: Name
    sender: Name = field(name="from")
    payload: Any
    market: Name
    time: TimeMs
    nonce: Name
    key: Key
    sig: Signature
    to: Key | None = None


class SignedAnswer(Struct):
    """What every signed answer has, whatever it says."""

    sender: Name = field(name="from")
    request: Digest
    key: Key
    sig: Signature


class Sealed(Struct, frozen=True):
    """A message that goes out.

    Attributes:
        message: Ready for JSON.
        digest: What an answer to it names as its ``request``; empty where it is not signed.
        data: The JSON.
    """

    message: Any
    digest: str
    data: bytes


class Opened(NamedTuple):
    """A request that has come, and may be taken.

    Attributes:
        message: As decoded from JSON.
        digest: As of :class:`Sealed`.
        key: Who signed it; None: nobody.
    """

    message: Any
    digest: str
    key: str | None


def canonical(message: Mapping[str, Any]) -> bytes:
    """The bytes that ``message["sig"]`` signs.

    Raises:
        ProtocolError: It can't be written as JSON, or only as more than :data:`limits.SIGNED_BYTES`.
    """
    try:
        data = msgspec.json.encode(
            {name: value for name, value in message.items() if name != "sig"}, order="sorted"
        )
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"the message can't be signed: {error}") from error
    if len(data) > limits.SIGNED_BYTES:
        raise ProtocolError(f"a signed message must be at most {limits.SIGNED_BYTES} bytes")
    return data


def digest_of(data: bytes) -> str:
    """How an answer names the request whose canonical form is ``data``."""
    return hashlib.sha256(data).hexdigest()


def sign(message: Mapping[str, Any], signer: Signer) -> tuple[dict[str, Any], bytes]:
    """``message`` signed by ``signer``, and what the signature signs."""
    keyed = {**message, "key": signer.key}
    data = canonical(keyed)
    keyed["sig"] = signer.sign(data)
    return keyed, data


def seal(message: Mapping[str, Any], signer: Signer) -> Sealed:
    """``message`` signed by ``signer``, to be sent."""
    signed, data = sign(message, signer)
    whole = b'%b,"sig":"%b"}' % (data[:-1], signed["sig"].encode())
    return Sealed(signed, digest_of(data), whole)


def check_time(time_ms: int, now_ms: int) -> None:
    """Raises ProtocolError for a message that is too old, or from the future."""
    ahead_s = (time_ms - now_ms) / 1000
    if not -limits.SIGNED_WINDOW_S <= ahead_s <= limits.SIGNED_WINDOW_S:
        where = "ahead of" if ahead_s > 0 else "behind"
        raise ProtocolError(
            f"time is {abs(ahead_s):.0f} s {where} this peer's clock, and at most "
            f"{limits.SIGNED_WINDOW_S:g} s are taken: are both clocks right?"
        )
