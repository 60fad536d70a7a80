"""``Link``: a client of the Grape's HTTP API, with asyncio. Mirrors grenache-nodejs-link 1.0.2 (index.js)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .. import limits
from ..checks import (
    EMBEDDED,
    check_bootstrap,
    check_count,
    check_destination,
    check_grapes,
    check_name,
    check_port,
    check_seconds,
)
from ..discovery import LookupCache, announce_pause_s
from ..errors import (
    AnnounceError,
    ArgumentError,
    ClosedError,
    GrapeReplyError,
    GrapeUnreachableError,
    GrenacheError,
    LookupEmptyError,
    PeerError,
    reason,
)
from ..grape_api import (
    HEADERS,
    RENEWABLE,
    WITHDRAW_TIMEOUT_S,
    Item,
    announce_result,
    as_reported,
    decode_grape_reply,
    decode_put_reply,
    encode_grape_request,
    get_request,
    get_result,
    lookup_result,
    put_request,
)
from ..hosts import elsewhere_text, grape_host, is_address, is_here
from ..put_report import PutReport
from ..tasks import end_tasks
from ..transports.aio_http import HttpClient

if TYPE_CHECKING:
    from ..grape.aio import Grape
    from ..signing import SecretKey

log = logging.getLogger(__name__)

Result = TypeVar("Result")


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
        bootstrap = check_bootstrap(bootstrap, grape)
        self._grapes = check_grapes(grape)
        #: URL of the Grape that is asked at present
        self.grape = self._grapes[0]
        # Grapes of which it is known whether they are on this host.
        self._located: set[str] = set()
        self._timeout_s = check_seconds(timeout)
        self._tries = check_count(tries, "tries")
        self._cache = LookupCache(time.monotonic, check_seconds(cache_age, "cache_age"))
        self._http = HttpClient(limits.GRAPE_REPLY_BYTES_MAX)
        self._in_flight: dict[bytes, asyncio.Task[Any]] = {}
        self._announcing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._peers: set[Stoppable] = set()
        self._stopped = False
        self._embedded: Grape | None = None
        self._starting: asyncio.Task[None] | None = None
        if self.grape == EMBEDDED:
            from ..grape.aio import Grape

            self._embedded = Grape(bootstrap=bootstrap, api_host="127.0.0.1")

    async def __aenter__(self) -> Link:
        await self._start()
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
            asking = self._request("lookup", check_name(name), self._tries, partial(self._remember, name))
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
            return await self._request("announce", data, self._tries, announce_result)
        except AnnounceError as error:
            if error.text not in RENEWABLE:
                raise
        # The Grape may hold an empty or outdated list of nodes for this name, for up to five minutes. A
        # look-up makes it ask around again.
        try:
            await self.lookup(data[0], fresh=True)
        except LookupEmptyError:
            pass
        return await self._request("announce", data, self._tries, announce_result)

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
            self._located.update(self._grapes)
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
        return await self._request("put", data, 1, as_reported)

    async def get(
        self, hash: str, *, salt: bytes | None = None, fresh: bool = False, verify: bool = True
    ) -> Item | None:
        """Fetch what is stored under a key of 40 hex digits; ``None`` when nothing is found.

        ``salt`` is that of a mutable item. ``fresh`` asks other Grapes even if this one holds a copy. Raises
        ``GrapeReplyError`` for a value that does not belong to the key, or is not signed by it, unless
        ``verify`` is false; lists and objects, which a Grape does not tell as they are, cannot be verified.
        """
        item = await self._request("get", get_request(hash, salt, fresh), 1, get_result)
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
        place = (check_name(name), check_port(port))
        check_seconds(interval, "interval")
        if self._stopped:
            raise ClosedError("the link is stopped")
        if place in self._announcing:
            return True
        first: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._announcing[place] = asyncio.ensure_future(self._keep_announcing(name, port, interval, first))
        return await first

    async def _keep_announcing(
        self, name: str, port: int, interval_s: float, first: asyncio.Future[bool]
    ) -> None:
        failures = 0
        try:
            while True:
                try:
                    await self.announce(name, port)
                    failures = 0
                except GrenacheError as error:
                    failures += 1
                    log.warning("announcing %r on port %d failed: %s", name, port, error)
                if not first.done():
                    first.set_result(failures == 0)
                await asyncio.sleep(announce_pause_s(interval_s, failures, random.uniform))
        finally:
            if not first.done():
                first.set_result(False)

    async def stop_announcing(self, name: str, port: int) -> bool:
        """End what ``start_announcing`` began; returns whether there was anything to end.

        A Python Grape is told, and leaves the service out at once; it is not waited for longer than 0.5 s.
        The network forgets the last announcement by itself, within 160 s with the usual settings of Grapes.
        """
        task = self._announcing.pop((name, port), None)
        if task is None:
            return False
        await end_tasks([task])
        await self._withdraw(name, port)
        return True

    async def withdraw(self, port: int) -> None:
        """End all announcements of ``port``, as ``stop_announcing`` does; services that stop do so
        themselves. It takes 0.5 s at most.
        """
        places = [place for place in self._announcing if place[1] == port]
        await self._withdraw_all({place: self._announcing.pop(place) for place in places})

    async def _withdraw_all(self, announcing: dict[tuple[str, int], asyncio.Task[None]]) -> None:
        if not announcing:
            return
        await end_tasks(announcing.values())
        withdrawing = [asyncio.ensure_future(self._withdraw(*place)) for place in announcing]
        _, late = await asyncio.wait(withdrawing, timeout=WITHDRAW_TIMEOUT_S)
        await end_tasks(late)

    async def _withdraw(self, name: str, port: int) -> None:
        """Tell the Grape that a service has stopped; a Node Grape answers that it knows no such request."""
        announcing = self._in_flight.get(encode_grape_request("announce", [name, port]))
        if announcing is not None:  # it must not overtake
            await asyncio.wait([announcing], timeout=WITHDRAW_TIMEOUT_S)
        body = encode_grape_request(str(uuid.uuid4()), [name, port])
        try:
            await self._http.call(f"{self.grape}/withdraw", HEADERS, body, WITHDRAW_TIMEOUT_S)
        except GrenacheError as error:
            log.debug("withdrawing %r on port %d failed: %s", name, port, error)

    async def stop(self) -> None:
        """End announcements, clients, services and connections. Doing it again changes nothing."""
        self._stopped = True
        announcing, self._announcing = self._announcing, {}
        await self._withdraw_all(announcing)
        for peer in list(self._peers):
            await peer.stop()
        await self._http.close()
        await end_tasks(self._in_flight.values())
        self._cache.clear()
        if self._starting is not None:
            await end_tasks([self._starting])
        if self._embedded is not None:
            await self._embedded.stop()

    def attach(self, peer: Stoppable) -> None:
        """Have ``peer`` stopped with this Link; clients and services do so themselves."""
        if self._stopped:
            raise ClosedError("the link is stopped")
        self._peers.add(peer)

    def detach(self, peer: Stoppable) -> None:
        """``peer`` was stopped by itself."""
        self._peers.discard(peer)

    async def _request(self, kind: str, data: Any, tries: int, read: Callable[[Any, str], Result]) -> Result:
        """Ask the Grape, and ``read`` its reply; identical requests under way at the same time share one."""
        if self._stopped:
            raise ClosedError("the link is stopped")
        same = encode_grape_request(kind, data)
        task = self._in_flight.get(same)
        if task is None:
            task = asyncio.ensure_future(self._ask(kind, data, tries, read))
            self._in_flight[same] = task
            task.add_done_callback(lambda _: self._in_flight.pop(same))
        try:
            # Who shares a request may give up without taking it from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ClosedError("the link was stopped during the call") from None
            raise

    async def _start(self) -> None:
        """Have the embedded Grape running, if there is one. Raises ``GrapeUnreachableError``."""
        if self._embedded is None:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._embedded.start())
        try:
            await asyncio.shield(self._starting)
        except OSError as error:
            self._starting = None
            raise GrapeUnreachableError(EMBEDDED, f"cannot start: {reason(error)}") from error
        self.grape = self._embedded.url
        self._grapes = [self.grape]

    async def _ask(self, kind: str, data: Any, tries: int, read: Callable[[Any, str], Result]) -> Result:
        await self._start()
        for left in range(max(tries, len(self._grapes)) - 1, -1, -1):
            grape = self.grape
            body = encode_grape_request(str(uuid.uuid4()), data)
            try:
                reply = await self._http.call(f"{grape}/{kind}", HEADERS, body, self._timeout_s)
                decode = decode_put_reply if kind == "put" else decode_grape_reply
                value = decode(reply, grape, kind)
            except PeerError as error:
                self._next_grape(grape)
                # What may have been stored is not stored again: with a ``seq`` that would be refused.
                if not left or (kind == "put" and error.in_doubt):
                    raise GrapeUnreachableError(grape, f"{kind}: {error.message}", error.code) from error
            except GrapeReplyError as error:
                if not left or error.status < 500 or kind == "put":
                    raise
                self._next_grape(grape)
            else:
                return read(value, grape)
        raise AssertionError("unreachable: the last try returns or raises")

    def _next_grape(self, failed: str) -> None:
        """Ask another Grape than ``failed`` from now on, if there is another and nobody did so before."""
        if self.grape == failed:
            self.grape = self._grapes[(self._grapes.index(failed) + 1) % len(self._grapes)]
