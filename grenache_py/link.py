"""``Link``: a client of the Grape's HTTP API. Mirrors grenache-nodejs-link 1.0.2 (index.js)."""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from weakref import WeakSet

from . import limits
from .checks import (
    EMBEDDED,
    check_bootstrap,
    check_count,
    check_destination,
    check_grapes,
    check_name,
    check_port,
    check_seconds,
)
from .discovery import LookupCache, announce_pause_s
from .errors import (
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
from .grape_api import (
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
from .hosts import elsewhere_text, grape_host, is_address, is_here
from .put_report import PutReport
from .transports.http import HttpClient

if TYPE_CHECKING:
    from .grape import Grape
    from .signing import SecretKey

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# What those who share a request find in it when they should ask themselves.
_ASK_YOURSELF = object()


class Stoppable(Protocol):
    """What a Link stops with itself: the clients and services built on it."""

    def stop(self) -> None: ...


@dataclass
class _Announcement:
    interval_s: float
    failures: int = 0
    due: float = math.inf  # while it is being announced


class Link:
    """A connection to one Grape: announce services, look them up, store and fetch values. Thread-safe.

    ``grape`` is the Grape's URL, or several: when one does not answer, the next one is asked from then on.
    With ``"embedded"`` a Grape runs within this process, and joins the network by ``bootstrap``, the
    ``"host:port"`` of other Grapes' DHT ports. A Grape announces services under its own host's address, so
    there must be one on their host: this one is.
    ``timeout`` is the seconds of one try, ``tries`` how often ``lookup`` and ``announce`` are tried,
    ``cache_age`` for how many seconds look-ups are remembered.

    Use it as a context manager or call ``stop``; either ends its announcements, clients and services too.
    All methods raise ``ClosedError`` after that, ``ArgumentError`` for arguments, ``GrapeUnreachableError``
    when the Grape does not answer, ``GrapeReplyError`` when it says no.
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
        self._peers: set[Stoppable] = set()
        self._stopped = False
        self._begin()
        _links.add(self)
        self._embedded: Grape | None = None
        if self.grape == EMBEDDED:
            self._embed(bootstrap)

    def _begin(self) -> None:
        self._in_flight: dict[bytes, Future[Any]] = {}
        self._announcing: dict[tuple[str, int], _Announcement] = {}
        self._announcer: threading.Thread | None = None
        # Guards everything above, the cache, the peers; the announcer sleeps on ``_wake``.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)

    @staticmethod
    def _after_fork() -> None:
        # Requests under way and announcements are the parent's, and so is the thread that makes them.
        for link in list(_links):
            link._begin()

    def _embed(self, bootstrap: Sequence[str]) -> None:
        from .grape import Grape

        self._embedded = Grape(bootstrap=bootstrap, api_host="127.0.0.1")
        try:
            self._embedded.start()
        except OSError as error:
            raise GrapeUnreachableError(EMBEDDED, f"cannot start: {reason(error)}") from error
        self.grape = self._embedded.url
        self._grapes = [self.grape]

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def lookup(self, name: str, *, fresh: bool = False, timeout: float | None = None) -> list[str]:
        """Where ``name`` is announced: ``["host:port", …]`` in random order, at most 100.

        Answered from memory for ``cache_age`` seconds unless ``fresh``. ``timeout`` limits the seconds of
        all tries together. Raises ``LookupEmptyError`` when nobody announces it.
        """
        if not fresh and (known := self.known(check_name(name))):
            return known
        ends = math.inf if timeout is None else time.monotonic() + check_seconds(timeout)
        remember = partial(self._remember, name)
        return list(self._request("lookup", check_name(name), self._tries, remember, ends))

    def _remember(self, name: str, value: Any, grape: str) -> list[str]:
        destinations = lookup_result(value, grape, name)
        with self._wake:
            return self._cache.put(name, destinations)

    def known(self, name: str) -> list[str] | None:
        """What ``lookup`` would answer from memory, or ``None``."""
        with self._lock:  # which costs a third of what the condition on it does
            known = self._cache.get(name)
        return None if known is None else list(known)

    def forget(self, name: str, destination: str) -> None:
        """Say that ``destination`` does not work: it leaves the memory of ``name`` at once.

        Look-ups leave it out for ``cache_age`` seconds, as long as others are announced.
        """
        with self._wake:
            self._cache.forget(check_name(name), check_destination(destination))

    def announce(self, name: str, port: int) -> int:
        """Announce once that ``name`` is served on ``port`` of this Grape's host; lasts about two minutes.

        Returns how many Grapes took it. Raises ``AnnounceError`` when none did.
        """
        data = [check_name(name), check_port(port)]
        accepted = self._announce(data)
        self._warn_if_elsewhere(name)
        return accepted

    def _announce(self, data: list[Any]) -> int:
        try:
            return self._request("announce", data, self._tries, announce_result)
        except AnnounceError as error:
            if error.text not in RENEWABLE:
                raise
        # The Grape may hold an empty or outdated list of nodes for this name, for up to five minutes. A
        # look-up makes it ask around again.
        try:
            self.lookup(data[0], fresh=True)
        except LookupEmptyError:
            pass
        return self._request("announce", data, self._tries, announce_result)

    def _warn_if_elsewhere(self, name: str) -> None:
        """The Grape has announced ``name``; warn, once, if that was under another host's address."""
        grape = self.grape
        if grape in self._located:
            return
        host = grape_host(grape)
        addresses = [host]
        if not is_address(host):
            try:
                answers = socket.getaddrinfo(host, None)
            except OSError:
                return  # there will be another announcement
            addresses = [str(answer[4][0]) for answer in answers]
        self._located.add(grape)
        if not is_here(addresses):
            self._located.update(self._grapes)
            log.warning("%s", elsewhere_text(grape, name))

    def put(
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
        hash, _ = self.put_report(value, k=k, sig=sig, seq=seq, salt=salt, cas=cas)
        return hash

    def put_mutable(
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
        hash, _ = self.put_report(value, key, salt=salt, seq=seq, cas=cas)
        return hash

    def put_report(
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
            from .signing import Signer, next_version

            if k is not None or sig is not None:
                raise ArgumentError("key", "makes k and sig: give the key or those two")
            signer = Signer(key, salt)
            if seq is None:
                newest = self.get(signer.hash, salt=salt, fresh=True)
                seq, cas = next_version(newest, cas)
            put_request(value)  # nothing is signed that could not be stored
            k, sig = signer.k, signer.sign(value, seq)
        data = put_request(value, k=k, sig=sig, seq=seq, salt=salt, cas=cas)
        return self._request("put", data, 1, as_reported)

    def get(
        self, hash: str, *, salt: bytes | None = None, fresh: bool = False, verify: bool = True
    ) -> Item | None:
        """Fetch what is stored under a key of 40 hex digits; ``None`` when nothing is found.

        ``salt`` is that of a mutable item. ``fresh`` asks other Grapes even if this one holds a copy. Raises
        ``GrapeReplyError`` for a value that does not belong to the key, or is not signed by it, unless
        ``verify`` is false; lists and objects, which a Grape does not tell as they are, cannot be verified.
        """
        item = self._request("get", get_request(hash, salt, fresh), 1, get_result)
        if item is not None and verify:
            from .signing import check_item

            check_item(item, hash, salt, self.grape)
        return item

    def start_announcing(self, name: str, port: int, *, interval: float = limits.ANNOUNCE_INTERVAL_S) -> bool:
        """Announce now and again every 0.5 to 1.5 ``interval`` seconds, until ``stop_announcing``.

        Returns after the first announcement: whether it was taken. Failures are logged and retried sooner;
        they never end it. Starting the same again changes nothing.
        """
        place = (check_name(name), check_port(port))
        announcement = _Announcement(check_seconds(interval, "interval"))
        with self._wake:
            self._check_open()
            if place in self._announcing:
                return True
            self._announcing[place] = announcement
            if self._announcer is None:
                self._announcer = threading.Thread(
                    target=self._keep_announcing, name="grenache-announcer", daemon=True
                )
                self._announcer.start()
        return self._announce_once(place, announcement)

    def _keep_announcing(self) -> None:
        """The announcer's thread: announce what is due, one after the other."""
        while True:
            with self._wake:
                if self._stopped:
                    return
                now = time.monotonic()
                place, next_one = min(
                    self._announcing.items(), key=lambda item: item[1].due, default=(None, None)
                )
                if place is None or next_one is None or next_one.due > now:
                    due = math.inf if next_one is None else next_one.due
                    self._wake.wait(None if due == math.inf else due - now)
                    continue
                next_one.due = math.inf
            self._announce_once(place, next_one)

    def _announce_once(self, place: tuple[str, int], announcement: _Announcement) -> bool:
        name, port = place
        try:
            self.announce(name, port)
            failures = 0
        except ClosedError:
            return False
        except GrenacheError as error:
            failures = announcement.failures + 1
            log.warning("announcing %r on port %d failed: %s", name, port, error)
        with self._wake:
            gone = place not in self._announcing
        if gone and not failures and not self._stopped:  # it was stopped while it was being announced
            self._withdraw(name, port, WITHDRAW_TIMEOUT_S)
        with self._wake:
            announcement.failures = failures
            announcement.due = time.monotonic() + announce_pause_s(
                announcement.interval_s, failures, random.uniform
            )
            self._wake.notify_all()
        return failures == 0

    def stop_announcing(self, name: str, port: int) -> bool:
        """End what ``start_announcing`` began; returns whether there was anything to end.

        A Python Grape is told, and leaves the service out at once; it is not waited for longer than 0.5 s.
        The network forgets the last announcement by itself, within 160 s with the usual settings of Grapes.
        """
        with self._wake:
            found = self._announcing.pop((name, port), None)
        if found is None:
            return False
        self._withdraw(name, port, WITHDRAW_TIMEOUT_S)
        return True

    def withdraw(self, port: int) -> None:
        """End all announcements of ``port``, as ``stop_announcing`` does; services that stop do so
        themselves. It takes 0.5 s at most.
        """
        with self._wake:
            places = [place for place in self._announcing if place[1] == port]
            for place in places:
                del self._announcing[place]
        self._withdraw_all(places)

    def _withdraw_all(self, places: list[tuple[str, int]]) -> None:
        ends = time.monotonic() + WITHDRAW_TIMEOUT_S
        for name, port in places:
            if (left_s := ends - time.monotonic()) > 0:
                self._withdraw(name, port, left_s)

    def _withdraw(self, name: str, port: int, timeout_s: float) -> None:
        """Tell the Grape that a service has stopped; a Node Grape answers that it knows no such request."""
        body = encode_grape_request(str(uuid.uuid4()), [name, port])
        try:
            self._http.call(f"{self.grape}/withdraw", HEADERS, body, timeout_s)
        except GrenacheError as error:
            log.debug("withdrawing %r on port %d failed: %s", name, port, error)

    def stop(self) -> None:
        """End announcements, clients, services and connections. Doing it again changes nothing."""
        with self._wake:
            self._stopped = True
            places = list(self._announcing)
            self._announcing.clear()
            self._wake.notify_all()
            announcer, peers = self._announcer, list(self._peers)
        self._withdraw_all(places)
        for peer in peers:
            peer.stop()
        self._http.close()
        if announcer is not None and announcer is not threading.current_thread():
            announcer.join()
        with self._wake:
            self._cache.clear()
        if self._embedded is not None:
            self._embedded.stop()

    def attach(self, peer: Stoppable) -> None:
        """Have ``peer`` stopped with this Link; clients and services do so themselves."""
        with self._wake:
            self._check_open()
            self._peers.add(peer)

    def detach(self, peer: Stoppable) -> None:
        """``peer`` was stopped by itself."""
        with self._wake:
            self._peers.discard(peer)

    def _check_open(self) -> None:
        if self._stopped:
            raise ClosedError("the link is stopped")

    def _request(
        self,
        kind: str,
        data: Any,
        tries: int,
        read: Callable[[Any, str], Result],
        ends: float = math.inf,
    ) -> Result:
        """Ask the Grape, and ``read`` its reply; identical requests under way at the same time share one."""
        same = encode_grape_request(kind, data)
        while True:
            with self._wake:
                self._check_open()
                shared = self._in_flight.get(same)
                if shared is None:
                    mine = self._in_flight[same] = Future()
            if shared is None:
                return self._share(
                    same, mine, lambda: read(self._ask(kind, data, tries, ends), self.grape), ends
                )
            try:
                result = shared.result(None if ends == math.inf else max(0.0, ends - time.monotonic()))
            except FutureTimeout:
                raise self._too_late(kind) from None
            if result is not _ASK_YOURSELF:
                return cast(Result, result)

    def _share(self, same: bytes, mine: Future[Any], ask: Callable[[], Result], ends: float) -> Result:
        """Ask on behalf of all that came with the same request meanwhile."""
        try:
            result = ask()
        except BaseException as error:
            with self._wake:
                del self._in_flight[same]
            # What ended this caller only (its own time limit, an interrupt) is no answer for the others.
            if isinstance(error, GrenacheError) and time.monotonic() < ends:
                mine.set_exception(error)
            else:
                mine.set_result(_ASK_YOURSELF)
            raise
        with self._wake:
            del self._in_flight[same]
        mine.set_result(result)
        return result

    def _ask(self, kind: str, data: Any, tries: int, ends: float) -> Any:
        for left in range(max(tries, len(self._grapes)) - 1, -1, -1):
            grape = self.grape
            body = encode_grape_request(str(uuid.uuid4()), data)
            timeout_s = min(self._timeout_s, ends - time.monotonic())
            if timeout_s <= 0:
                raise self._too_late(kind)
            try:
                reply = self._http.call(f"{grape}/{kind}", HEADERS, body, timeout_s)
                decode = decode_put_reply if kind == "put" else decode_grape_reply
                return decode(reply, grape, kind)
            except PeerError as error:
                self._next_grape(grape)
                # What may have been stored is not stored again: with a ``seq`` that would be refused.
                if not left or (kind == "put" and error.in_doubt):
                    raise GrapeUnreachableError(grape, f"{kind}: {error.message}", error.code) from error
            except GrapeReplyError as error:
                if not left or error.status < 500 or kind == "put":
                    raise
                self._next_grape(grape)
        raise AssertionError("unreachable: the last try returns or raises")

    def _next_grape(self, failed: str) -> None:
        """Ask another Grape than ``failed`` from now on, if there is another and nobody did so before."""
        if self.grape == failed:
            self.grape = self._grapes[(self._grapes.index(failed) + 1) % len(self._grapes)]

    def _too_late(self, kind: str) -> GrapeUnreachableError:
        return GrapeUnreachableError(self.grape, f"{kind}: no answer within the time limit", "ERR_TIMEOUT")


_links: WeakSet[Link] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Link._after_fork)
