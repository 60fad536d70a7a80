"""Write tokens: proof that an announcer receives what is sent to its address (BEP 5). IO-free."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2b

from .bounds import TOKEN_ROTATE_S
from .krpc import Address, pack_address

_TOKEN_BYTES = 8
SECRET_BYTES = 32


class Tokens:
    """A keyed hash over the sender's address and port and the target, so that a token serves nobody else and
    for nothing else. The current and the previous secret count; they change every five minutes."""

    def __init__(self, random_bytes: Callable[[int], bytes], now: float) -> None:
        self._random_bytes = random_bytes
        secret = random_bytes(SECRET_BYTES)
        self.secrets = secret, secret
        self._rotated = now

    @property
    def secrets(self) -> tuple[bytes, bytes]:
        """The current and the previous one; set them to honour the tokens of an earlier life."""
        return self._secrets

    @secrets.setter
    def secrets(self, secrets: tuple[bytes, bytes]) -> None:
        self._secrets = secrets
        # Hashes that have taken in their key, which is half the work of a token.
        self._current, self._previous = (blake2b(digest_size=_TOKEN_BYTES, key=key) for key in secrets)

    def issue(self, sender: Address, target: bytes, now: float) -> bytes:
        if now - self._rotated >= TOKEN_ROTATE_S:
            self._rotate(now)
        return _token(self._current, sender, target)

    def valid(self, token: bytes, sender: Address, target: bytes, now: float) -> bool:
        if now - self._rotated >= TOKEN_ROTATE_S:
            self._rotate(now)
        # Each in constant time; which of the two it was is no secret.
        return hmac.compare_digest(token, _token(self._current, sender, target)) or hmac.compare_digest(
            token, _token(self._previous, sender, target)
        )

    def _rotate(self, now: float) -> None:
        fresh = self._random_bytes(SECRET_BYTES)
        # After a long silence the current secret is older than the previous one may be.
        stale = now - self._rotated >= 2 * TOKEN_ROTATE_S
        self.secrets = fresh, fresh if stale else self._secrets[0]
        self._rotated = now


def _token(keyed: blake2b, sender: Address, target: bytes) -> bytes:
    fresh = keyed.copy()
    fresh.update(pack_address(sender) + target)
    return fresh.digest()
