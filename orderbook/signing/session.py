"""What two peers say over one connection once they have agreed on keys: a MAC on each frame. No IO.

A frame is a binary WebSocket message around one of the texts that would travel without a session::

    mac (16 bytes)  time (8 bytes)  text
    mac = BLAKE2b-128(key of this direction, count (8 bytes)  time (8 bytes)  text)

``time`` is in milliseconds of the epoch, by the sender's clock. ``count`` is how many frames this direction
has had before: both sides know it, so it does not travel, and nothing can be repeated, left out or moved
without the MAC of the next frame being wrong. Numbers are big-endian. BLAKE2b is RFC 7693.
"""

from __future__ import annotations

import hashlib
from hmac import compare_digest
from struct import Struct
from typing import NamedTuple

from .. import limits
from ..effects import Clock
from ..errors import ProtocolError
from .seals import check_time

MAC_BYTES = 16
_COUNT = Struct(">Q")
_HEAD = Struct(">QQ")
_TEXT = MAC_BYTES + _COUNT.size


class SessionKeys(NamedTuple):
    """One key of 32 bytes for each direction: of who has opened the session, and of who has answered."""

    opener: bytes
    answerer: bytes


class Session:
    """One end of a session.

    Args:
        market: What it is for.
        name: The peer's at the other end.
        key: Its public key, which has signed the agreement.
        sends: Our frames are authenticated with this one.
        receives: The other side's with this one.
        clock: Time of day for frames, and a monotonic clock for the age of the session.
    """

    def __init__(self, market: str, name: str, key: str, *, sends: bytes, receives: bytes, clock: Clock):
        self.market = market
        self.name = name
        self.key = key
        self._clock = clock
        self._opened = clock.monotonic()
        self._sending = hashlib.blake2b(key=sends, digest_size=MAC_BYTES)
        self._receiving = hashlib.blake2b(key=receives, digest_size=MAC_BYTES)
        self._sent = 0
        self._received = 0
        self._over = False

    def wrap(self, text: bytes) -> bytes:
        """The frame that carries ``text``; frames have to be sent in the order in which they are made."""
        said = _HEAD.pack(self._sent, self._clock.time_ms()) + text
        self._sent += 1
        mac = self._sending.copy()
        mac.update(said)
        return mac.digest() + said[_COUNT.size :]

    def unwrap(self, frame: bytes) -> bytes:
        """The text in the next ``frame`` of the other side.

        Raises:
            ProtocolError: It is not what the other side has said next, or not in time. The session is over.
        """
        if self._over:
            raise ProtocolError("session is over")
        self._over = True  # unless all is well
        mac = self._receiving.copy()
        mac.update(_COUNT.pack(self._received) + frame[MAC_BYTES:])
        if not compare_digest(mac.digest(), frame[:MAC_BYTES]):
            raise ProtocolError("mac is not that of the frame: it was forged, altered, repeated or moved")
        if len(frame) < _TEXT:
            raise ProtocolError(f"frame must have at least {_TEXT} bytes")
        check_time(_COUNT.unpack_from(frame, MAC_BYTES)[0], self._clock.time_ms())
        if self._used() > 2.0:
            raise ProtocolError("session is too old: open another one")
        self._received += 1
        self._over = False
        return frame[_TEXT:]

    @property
    def spent(self) -> bool:
        """Whether it is time for another session."""
        return self._used() > 1.0

    def _used(self) -> float:
        """How much of what a session is for has gone."""
        frames = self._sent if self._sent > self._received else self._received
        age = (self._clock.monotonic() - self._opened) / limits.SESSION_S
        filled = frames / limits.SESSION_FRAMES
        return age if age > filled else filled
