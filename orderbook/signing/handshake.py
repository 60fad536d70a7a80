"""How two peers agree on the keys of a session: one signed request, one signed answer. No IO.

Each side makes an X25519 key pair (RFC 7748) for this session alone, and signs its public half as it signs
everything else: the opener with market, time, nonce, its name and the key of the only peer that is meant, the
answerer with the digest of just that request. So what the answer signs names both names, both identities and
both ephemeral keys, and the session's keys are derived from it. That is the signed Diffie-Hellman of SIGMA
(Krawczyk, 2003) in two messages; the first frame shows that the opener has its half, too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from .. import limits
from ..envelopes import parse, request
from ..errors import ProtocolError
from ..messages import OpenSession, SessionOpened
from .gate import Gate
from .seals import SignedEnvelope, canonical, digest_of
from .session import Session, SessionKeys

VERSION = 1
"""The newest version of sessions, and the only one yet."""
LABELS = b"orderbook session 1 opener", b"orderbook session 1 answerer"


def derive(secret: bytes, other: str, digest: str) -> SessionKeys:
    """The keys of a session.

    Args:
        secret: Our private X25519 key of this session.
        other: The other side's public one, in hexadecimal digits.
        digest: Of the signed answer.

    Raises:
        ProtocolError: ``other`` is a point of small order, with which there is no secret.
    """
    try:
        shared = crypto_scalarmult(secret, bytes.fromhex(other))
    except RuntimeError as error:
        raise ProtocolError("ephemeral is no key that can be used") from error
    transcript = bytes.fromhex(digest)
    opener, answerer = (
        hashlib.blake2b(label + transcript, key=shared, digest_size=32).digest() for label in LABELS
    )
    return SessionKeys(opener, answerer)


class Opening:
    """A session that we want with the peer ``name``, whose public key is ``key``.

    Args:
        gate: Our own.
        name: Who is to answer.
        key: Its public key.
        secret: 32 random bytes, for this session alone.
    """

    def __init__(self, gate: Gate, name: str, key: str, secret: bytes):
        self._gate = gate
        self._name = name
        self._key = key
        self._secret = secret
        message = OpenSession(VERSION, crypto_scalarmult_base(secret).hex())
        self.request = gate.seal(request(gate.name, message), to=key)

    def answered(self, answer: object) -> Session:
        """The session that ``answer``, decoded JSON, opens.

        Raises:
            OrderBookError: It must not be believed; the text says why.
        """
        if not self._gate.check_answer(self.request, answer, self._key):
            raise ProtocolError("sig is required: a session is opened by a signed answer")
        assert isinstance(answer, dict)
        said = parse(answer, SessionOpened)
        check_version(said.version)
        if said.sender != self._name:
            raise ProtocolError(f"from must be {self._name}, who was asked")
        keys = derive(self._secret, said.ephemeral, digest_of(canonical(answer)))
        return Session(
            self._gate.market,
            self._name,
            self._key,
            sends=keys.opener,
            receives=keys.answerer,
            clock=self._gate.clock,
        )


class Sessions:
    """The sessions of one market: those that we open, and those that others have opened here.

    Args:
        gate: The market's.
        new_secret: Gives 32 random bytes.
    """

    def __init__(self, gate: Gate, new_secret: Callable[[], bytes]):
        self._gate = gate
        self._new_secret = new_secret
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    def open(self, name: str) -> Opening | None:
        """A session with the peer ``name``; None: we do not sign, or it does not as far as we know."""
        key = self._gate.keyring.key_of(name) if self._gate.signs else None
        return None if key is None else Opening(self._gate, name, key, self._new_secret())

    def accept(self, payload: object) -> tuple[Any, Session]:
        """The answer to an ``OpenSession``, ready for JSON, and the session that it opens.

        What is cheap is checked before the signature, and that before we sign anything.

        Raises:
            OrderBookError: It must not be taken; nothing has changed.
        """
        envelope = parse(payload, SignedEnvelope)
        if not self._gate.signs:
            raise ProtocolError("this peer does not sign, so that it opens no sessions")
        if envelope.type != OpenSession.__name__:
            raise ProtocolError(f"type must be {OpenSession.__name__}")
        asked = parse(envelope.payload, OpenSession)
        check_version(asked.version)
        if envelope.to is None:
            raise ProtocolError("to is required: the key of whom the session is with")
        if len(self) >= limits.SESSIONS:
            raise ProtocolError(f"at most {limits.SESSIONS} sessions are open at once: sign instead")
        opened = self._gate.open(payload)
        if self._open[envelope.key] >= limits.SESSIONS_PER_KEY:
            raise ProtocolError(f"at most {limits.SESSIONS_PER_KEY} sessions are open for one key")
        secret = self._new_secret()
        said = SessionOpened(VERSION, crypto_scalarmult_base(secret).hex(), self._gate.name)
        answer = self._gate.answer(opened, said)
        keys = derive(secret, asked.ephemeral, digest_of(canonical(answer)))
        session = Session(
            self._gate.market,
            envelope.sender,
            envelope.key,
            sends=keys.answerer,
            receives=keys.opener,
            clock=self._gate.clock,
        )
        self._open[session.key] += 1
        return answer, session

    def ended(self, session: Session) -> None:
        """Its connection is closed."""
        self._open[session.key] -= 1
        if not self._open[session.key]:
            del self._open[session.key]


def check_version(version: int) -> None:
    """Raises ProtocolError for one that we do not know."""
    if version != VERSION:
        raise ProtocolError(f"version must be {VERSION}")
