"""``Link``: a client of the Grape's HTTP API, with asyncio. Mirrors grenache-nodejs-link 1.0.2 (index.js)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .. import limits
from ..checks import check_count, check_destination, check_name, check_port, check_seconds
from ..discovery import LookupCache
from ..errors import AnnounceError, ArgumentError, GrapeUnreachableError, LookupEmptyError
from ..grape_api import (
    RENEWABLE,
    Item,
    announce_result,
    as_reported,
    get_request,
    get_result,
    lookup_result,
    put_request,
)
from ..hosts import elsewhere_text, grape_host, is_address, is_here
from ..put_report import PutReport
from .announcer import Announcer
from .grape_client import GrapeClient

if TYPE_CHECKING:
    from ..signing import SecretKey

log = logging.getLogger(__name__)


class Stoppable(Protocol):
    """What a Link stops with itself: the clients and services built on it."""

    def stop(self) -> Awaitable[None]: ...


class Link:
    """A connection to one Grape: announce services, look them up, store and fetch values.

    ``grape`` is the Grape's URL, or several: when one does not answer, the next one is asked from then on.
    With ``"embedded"`` a Grape runs within this process, and joins the network by ``bootstrap``, the
    ``"host:port"`` of other Grapes' DHT ports. A Grape announces services under its own host's address, so
    there must be one on their host: this one is.
    ``timeout`` is the seconds of one try, ``tries`` how often ``lookup`` and ``announce`` are tried,
    ``cache_age`` for how many seconds look-ups are remembered.

    Use it as an async context manager or call ``stop``; either ends its announcements, clients and services
    too. All methods raise ``ClosedError`` after that, ``ArgumentError`` for arguments,
    ``GrapeUnreachableError`` when the Grape does not answer, ``GrapeReplyError`` when it says no.
    """

    def __init__(
        self,
        grape: str | Sequence[str] = "http://127.0.0.1:30001",
        *,
        timeout: float = limits.GRAPE_TIMEOUT_S,
        tries: int = limits.GRAPE_TRIES,
        cache_age: float = limits.LOOKUP_CACHE_AGE_S,
        bootstrap: Sequence[str] = (),
    ):
        timeout_s = check_seconds(timeout)
        self._tries = check_count(tries, "tries")
        self._cache = LookupCache(time.monotonic, check_seconds(cache_age, "cache_age"))
        self._grapes = GrapeClient(grape, bootstrap, timeout_s)
        self._announcer = Announcer(self.announce, self._grapes.withdraw, self._grapes.check_open)
        # Grapes of which it is known whether they are on this host.
        self._located: set[str] = set()
        self._peers: set[Stoppable] = set()

    @property
    def grape(self) -> str:
        """URL of the Grape that is asked at present."""
        return self._grapes.url

    async def __aenter__(self) -> Link:
        await self._grapes.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def lookup(self, name: str, *, fresh: bool = False, timeout: float | None = None) -> list[str]:
        """Where ``name`` is announced: ``["host:port", …]`` in random order, at most 100.

        Answered from memory for ``cache_age`` seconds unless ``fresh``. ``timeout`` limits the seconds of all
        tries together. Raises ``LookupEmptyError`` when nobody announces it.
        """
        if not fresh and (known := self.known(check_name(name))):
            return known
        if timeout is not None:
            check_seconds(timeout)
        try:
            asking = self._grapes.request(
                "lookup", check_name(name), self._tries, partial(self._remember, name)
            )
            return list(await asyncio.wait_for(asking, timeout))
        except asyncio.TimeoutError as error:
            raise GrapeUnreachableError(
                self.grape, "lookup: no answer within the time limit", "ERR_TIMEOUT"
            ) from error

    def _remember(self, name: str, value: Any, grape: str) -> list[str]:
        return self._cache.put(name, lookup_result(value, grape, name))

    def known(self, name: str) -> list[str] | None:
        """What ``lookup`` would answer from memory, or ``None``."""
        known = self._cache.get(name)
        return None if known is None else list(known)

    def forget(self, name: str, destination: str) -> None:
        """Say that ``destination`` does not work: it leaves the memory of ``name`` at once.

        Look-ups leave it out for ``cache_age`` seconds, as long as others are announced.
        """
        self._cache.forget(check_name(name), check_destination(destination))

    async def announce(self, name: str, port: int) -> int:
        """Announce once that ``name`` is served on ``port`` of this Grape's host; lasts about two minutes.

        Returns how many Grapes took it. Raises ``AnnounceError`` when none did.
        """
        data = [check_name(name), check_port(port)]
        accepted = await self._announce(data)
        await self._warn_if_elsewhere(name)
        return accepted

    async def _announce(self, data: list[Any]) -> int:
        try:
            return await self._grapes.request("announce", data, self._tries, announce_result)
        except AnnounceError as error:
            if error.text not in RENEWABLE:
                raise
        # The Grape may hold an empty or outdated list of nodes for this name, for up to five minutes. A
        # look-up makes it ask around again.
        try:
            await self.lookup(data[0], fresh=True)
        except LookupEmptyError:
            pass
        return await self._grapes.request("announce", data, self._tries, announce_result)

    async def _warn_if_elsewhere(self, name: str) -> None:
        """The Grape has announced ``name``; warn, once, if that was under another host's address."""
        grape = self.grape
        if grape in self._located:
            return
        host = grape_host(grape)
        addresses = [host]
        if not is_address(host):
            try:
                answers = await asyncio.get_running_loop().getaddrinfo(host, None)
            except OSError:
                return  # there will be another announcement
            addresses = [str(answer[4][0]) for answer in answers]
        self._located.add(grape)
        if not is_here(addresses):
            self._located.update(self._grapes.urls)
            log.warning("%s", elsewhere_text(grape, name))

    async def put(
        self,
        value: str,
        *,
        k: bytes | None = None,
        sig: bytes | None = None,
        seq: int | None = None,
        salt: bytes | None = None,
        cas: int | None = None,
    ) -> str:
        """Store a text of at most 999 bytes; returns its key, 40 hex digits.

        With ``k`` (public key, 32 bytes), ``sig`` (64 bytes) and ``seq`` it is a mutable item of BEP 44,
        for which ``salt`` (1 to 64 bytes) and ``cas`` are optional. Raises ``GrapeReplyError`` when nobody
        stored it.
        """
        hash, _ = await self.put_report(value, k=k, sig=sig, seq=seq, salt=salt, cas=cas)
        return hash

    async def put_mutable(
        self,
        value: str,
        key: SecretKey,
        *,
        salt: bytes | None = None,
        seq: int | None = None,
        cas: int | None = None,
    ) -> str:
        """Sign a text of at most 999 bytes and store it as the newest version of an item (BEP 44).

        ``key`` is the ed25519 seed (32 bytes) or an ``Ed25519PrivateKey`` of ``cryptography``. Key and
        ``salt`` (1 to 64 bytes) name the item; returns that name, 40 hex digits. Without ``seq`` the present
        version is fetched and followed, unless another one comes in between. Raises ``GrapeReplyError`` with
        status 301 when the present version is not ``cas``, 302 when ``seq`` is not above it.
        """
        hash, _ = await self.put_report(value, key, salt=salt, seq=seq, cas=cas)
        return hash

    async def put_report(
        self,
        value: str,
        key: SecretKey | None = None,
        *,
        k: bytes | None = None,
        sig: bytes | None = None,
        seq: int | None = None,
        salt: bytes | None = None,
        cas: int | None = None,
    ) -> tuple[str, PutReport | None]:
        """Do what ``put_mutable`` does, or without ``key`` what ``put`` does; returns what became of it, too.

        That is how many nodes stored the value, refused it and stayed silent, or ``None`` from a Node Grape,
        which does not tell. The ``GrapeReplyError`` of a put that failed has such a ``report`` as well.
        """
        if key is not None:
            from ..signing import Signer, next_version

            if k is not None or sig is not None:
                raise ArgumentError("key", "makes k and sig: give the key or those two")
            signer = Signer(key, salt)
            if seq is None:
                newest = await self.get(signer.hash, salt=salt, fresh=True)
                seq, cas = next_version(newest, cas)
            put_request(value)  # nothing is signed that could not be stored
            k, sig = signer.k, signer.sign(value, seq)
        data = put_request(value, k=k, sig=sig, seq=seq, salt=salt, cas=cas)
        return await self._grapes.request("put", data, 1, as_reported)

    async def get(
        self, hash: str, *, salt: bytes | None = None, fresh: bool = False, verify: bool = True
    ) -> Item | None:
        """Fetch what is stored under a key of 40 hex digits; ``None`` when nothing is found.

        ``salt`` is that of a mutable item. ``fresh`` asks other Grapes even if this one holds a copy. Raises
        ``GrapeReplyError`` for a value that does not belong to the key, or is not signed by it, unless
        ``verify`` is false; lists and objects, which a Grape does not tell as they are, cannot be verified.
        """
        item = await self._grapes.request("get", get_request(hash, salt, fresh), 1, get_result)
        if item is not None and verify:
            from ..signing import check_item

            check_item(item, hash, salt, self.grape)
        return item

    async def start_announcing(
        self, name: str, port: int, *, interval: float = limits.ANNOUNCE_INTERVAL_S
    ) -> bool:
        """Announce now and again every 0.5 to 1.5 ``interval`` seconds, until ``stop_announcing``.

        Returns after the first announcement: whether it was taken. Failures are logged and retried sooner;
        they never end it. Starting the same again changes nothing.
        """
        interval_s = check_seconds(interval, "interval")
        return await self._announcer.start(check_name(name), check_port(port), interval_s)

    async def stop_announcing(self, name: str, port: int) -> bool:
        """End what ``start_announcing`` began; returns whether there was anything to end.

        A Python Grape is told, and leaves the service out at once; it is not waited for longer than 0.5 s.
        The network forgets the last announcement by itself, within 160 s with the usual settings of Grapes.
        """
        return await self._announcer.end(name, port)

    async def withdraw(self, port: int) -> None:
        """End all announcements of ``port``, as ``stop_announcing`` does; services that stop do so
        themselves. It takes 0.5 s at most.
        """
        await self._announcer.end_port(port)

    async def stop(self) -> None:
        """End announcements, clients, services and connections. Doing it again changes nothing."""
        self._grapes.stop()
        await self._announcer.stop()
        for peer in list(self._peers):
            await peer.stop()
        await self._grapes.close()
        self._cache.clear()

    def attach(self, peer: Stoppable) -> None:
        """Have ``peer`` stopped with this Link; clients and services do so themselves."""
        self._grapes.check_open()
        self._peers.add(peer)

    def detach(self, peer: Stoppable) -> None:
        """``peer`` was stopped by itself."""
        self._peers.discard(peer)
