"""What goes out is signed, and what comes in is taken only from whom it claims to be. No IO.

One gate guards one market at one peer. A request that passes is of this market, recent, new, and signed by
the key to which the name in its ``from`` belongs; an answer that passes is signed like that as well, and is
the answer to the very request that was sent. What it can't help against: silence (whoever carries messages
can drop them) and eyes (nothing is encrypted).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..effects import Clock
from ..envelopes import encode, parse, plain
from ..errors import ProtocolError
from ..messages import Envelope
from ..model import check_name
from .identity import Signer, Verify, verify
from .keyring import Allowed, Keyring
from .proofs import Proof, Proven, check
from .seals import Opened, Sealed, SignedAnswer, SignedEnvelope, canonical, check_time, digest_of, seal, sign
from .session import Session

SIGNING_FIELDS = ("sig", "key")


class Gate:
    """Signs and checks the messages of one market.

    Args:
        name: Our own.
        market: Messages of another one are refused.
        signer: Our key.
        clock: Time of day for messages, and a monotonic clock for how long names are held.
        new_nonce: Gives texts that this key has never signed and never will again.
        allowed: Who may trade; None: anyone.
        unsigned: Whether messages without a signature are taken too, from names that belong to no key.
            Anybody can send them in any such name: for learning.
        signs: Whether our own requests are signed. An answer to one that is not is not signed either.
        verify: Checks signatures.
    """

    def __init__(
        self,
        name: str,
        market: str,
        signer: Signer,
        *,
        clock: Clock,
        new_nonce: Callable[[], str],
        allowed: Allowed | None = None,
        unsigned: bool = False,
        signs: bool = True,
        verify: Verify = verify,
    ):
        self.signs = signs
        self.name = name
        self.market = market
        self._signer = signer
        self.clock = clock
        self._new_nonce = new_nonce
        self.unsigned = unsigned
        self._verify = verify
        self.keyring = Keyring(name, signer.key, allowed, clock.time_ms(), clock.monotonic())

    @property
    def key(self) -> str:
        """Our public key."""
        return self._signer.key

    # -- requests ----------------------------------------------------------------------------------------

    def seal(self, envelope: Any, to: str | None = None) -> Sealed:
        """A request of ours. ``to``: the key of the only peer that is meant, or None."""
        if not self.signs and to is None:
            return Sealed(envelope, "", encode(envelope))
        message = {
            **plain(envelope),
            "market": self.market,
            "time": self.clock.time_ms(),
            "nonce": self._new_nonce(),
        }
        if to is not None:
            message["to"] = to
        return seal(message, self._signer)

    def open(self, payload: object, session: Session | None = None) -> Opened:
        """A request of another peer, which has come in ``session`` or outside of any.

        Raises:
            OrderBookError: It must not be taken; the text says why.
        """
        now = self.clock.monotonic()
        if not self._is_signed(payload, session):
            sender = parse(payload, Envelope).sender
            if session is None:
                self.check_unsigned(sender)
            else:
                self.check_in_session(session, sender)
            return Opened(payload, "", None)
        assert isinstance(payload, dict)
        request = parse(payload, SignedEnvelope)
        name = check_name(request.sender, "from")
        if session is not None:
            self.check_in_session(session, name, request.key)
        if request.market != self.market:
            raise ProtocolError(f"market must be {self.market}: the message is for another one")
        if request.to is not None and request.to != self.key:
            raise ProtocolError("to is the key of another peer: the message is not for this one")
        now_ms = self.clock.time_ms()
        check_time(request.time, now_ms)
        if session is None:
            self.keyring.check(name, request.key, now)
        self.keyring.check_new(request.key, request.nonce, request.time, now)
        data = canonical(payload)
        self._check_signature(request.key, data, request.sig)
        self.keyring.heard(name, request.key, now).add(request.nonce, request.time, now_ms)
        return Opened(payload, digest_of(data), request.key)

    # -- answers -----------------------------------------------------------------------------------------

    def answer(self, request: Opened, content: Any) -> Any:
        """Our answer to ``request``, signed if the request is and if ``content`` says who gives it.

        What does not (null: nothing to offer; whether a lock was released) is acted on by nobody: to forge it
        gains no more than to withhold the answer.
        """
        if request.key is None:
            return content
        said = plain(content)
        if not isinstance(said, dict) or "from" not in said:
            return said
        return sign({**said, "request": request.digest}, self._signer)[0]

    def check_answer(
        self, request: Sealed, answer: object, key: str | None = None, session: Session | None = None
    ) -> SignedAnswer | None:
        """How ``answer`` to our ``request`` is signed; None: not at all, and it needs not be.

        Args:
            request: As :meth:`seal` returned it.
            answer: As decoded from JSON.
            key: Who must have signed it; None: the key to which the name in its ``from`` belongs.
            session: In which it has come, as the request has gone: only a ``key`` makes it need a signature.

        Raises:
            OrderBookError: It must not be believed; the text says why.
        """
        if answer is None:
            return None
        now = self.clock.monotonic()
        if not self._is_signed(answer, session):
            if key is not None:
                raise ProtocolError("sig is required: the answer of a peer that signs must be signed")
            name = answer.get("from") if isinstance(answer, dict) else None
            if session is not None:
                self.check_in_session(session, name)
            elif isinstance(name, str):
                self.keyring.check_unsigned(name, now)
            return None
        assert isinstance(answer, dict)
        signed = parse(answer, SignedAnswer)
        name = check_name(signed.sender, "from")
        if signed.request != request.digest:
            raise ProtocolError("request is the digest of another one: this is not the answer to ours")
        if key is not None and signed.key != key:
            raise ProtocolError(f"key must be {key}, who was asked, and is {signed.key}")
        if session is not None:
            self.check_in_session(session, name, signed.key)
        else:
            self.keyring.check(name, signed.key, now)
        self._check_signature(signed.key, canonical(answer), signed.sig)
        self.keyring.heard(name, signed.key, now)
        return signed

    def check_unsigned(self, sender: str) -> None:
        """Raises OrderBookError when who does not sign may not speak as ``sender``."""
        name = check_name(sender, "from")
        if self.keyring.knows(name):
            self.keyring.check_unsigned(name, self.clock.monotonic())

    # -- sessions ----------------------------------------------------------------------------------------

    def check_in_session(self, session: Session, sender: object, key: str | None = None) -> None:
        """Raises OrderBookError when ``sender`` may not speak in ``session``, or not sign with ``key``."""
        if session.market != self.market:
            raise ProtocolError(f"market must be {self.market}: the session is for another one")
        if sender != session.name:
            raise ProtocolError(f"from must be {session.name}, whose session this is")
        if key is not None and key != session.key:
            raise ProtocolError(f"key must be {session.key}, whose session this is")
        now = self.clock.monotonic()
        self.keyring.check(session.name, session.key, now)
        self.keyring.heard(session.name, session.key, now)

    # -- both --------------------------------------------------------------------------------------------

    def _is_signed(self, message: object, session: Session | None) -> bool:
        """Whether it claims to be. Raises ProtocolError for what does not where it has to."""
        if isinstance(message, dict) and any(name in message for name in SIGNING_FIELDS):
            return True
        if session is None and not self.unsigned:
            raise ProtocolError("sig is required: this peer takes signed messages only (without --open)")
        return False

    def check_proof(self, proof: Proof) -> Proven:
        """What ``proof`` proves. Raises ProofError."""
        return check(proof, self._verify)

    def _check_signature(self, key: str, data: bytes, signature: str) -> None:
        if not self._verify(key, data, signature):
            raise ProtocolError("sig is not that of key: the message was forged or altered")
