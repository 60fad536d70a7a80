"""What a node should know again after a restart: its id, its tokens, contacts, peers and items. IO-free.

The id and the token secrets matter most: Node Grapes keep a contact by its id, so one that comes back to its
port with another id is lost to them for minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
from bencode2 import BencodeDecodeError, bdecode, bencode
from msgspec import Meta

from .bounds import ID_BYTES, NAME_BYTES_MAX, SAVED_CONTACTS_MAX, TOKEN_ROTATE_S
from .items import Item, read_item
from .krpc import Refusal
from .node import DhtNode
from .tokens import SECRET_BYTES

VERSION = 1

_Age = Annotated[float, Meta(ge=0)]
_Name = Annotated[bytes, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
_Port = Annotated[int, Meta(ge=1, le=0xFFFF)]
_Secret = Annotated[bytes, Meta(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]


class SavedContact(NamedTuple):
    host: str
    port: _Port


class SavedPeer(NamedTuple):
    """``source`` is the IP address of who announced it."""

    name: _Name
    peer: Annotated[bytes, Meta(min_length=6, max_length=6)]
    source: str
    age_s: _Age


class SavedAnnounce(NamedTuple):
    name: _Name
    port: _Port
    age_s: _Age


class SavedItem(msgspec.Struct, frozen=True):
    """An item; ``v`` is bencoded, ``age_s`` counts from its last put."""

    v: bytes
    age_s: _Age
    k: bytes | None = None
    sig: bytes | None = None
    seq: int | None = None
    salt: bytes | None = None
    #: IP address of who put it, where that was not this Grape itself
    source: str | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """All that is kept. Ages are in seconds at ``saved_at``, which is Unix time."""

    version: int
    node_id: Annotated[bytes, Meta(min_length=ID_BYTES, max_length=ID_BYTES)]
    dht_port: int
    saved_at: float
    secrets: tuple[_Secret, _Secret]
    contacts: Annotated[list[SavedContact], Meta(max_length=SAVED_CONTACTS_MAX)]
    peers: list[SavedPeer]
    own_announces: list[SavedAnnounce]
    items: list[SavedItem]
    own_items: list[SavedItem]


def take(node: DhtNode, dht_port: int, now: float, wall_time: float) -> Snapshot:
    """What ``node`` knows. ``now`` is on its clock, ``wall_time`` is Unix time."""
    contacts = [contact.address for contact in sorted(node.routing, key=lambda contact: -contact.seen)]
    if not contacts:  # an outage: those it had before are all that leads back
        contacts = list(reversed(node.bootstrap.earlier))
    return Snapshot(
        VERSION,
        node.node_id,
        dht_port,
        wall_time,
        node.tokens.secrets,
        [SavedContact(*address) for address in contacts[:SAVED_CONTACTS_MAX]],
        [SavedPeer(*record) for record in node.peers.dump(now)],
        [SavedAnnounce(*announce) for announce in node.own.dump(now)],
        [_save(item, age_s, source) for item, age_s, source in node.items.dump(now)],
        [_save(item, age_s, None) for item, age_s in node.own_items.dump(now)],
    )


def restore(
    node: DhtNode, snapshot: Snapshot, dht_port: int, now: float, wall_time: float
) -> list[SavedContact]:
    """Give a node that was just made what it knew. Returns the contacts, to be asked whether they are alive.

    What has expired meanwhile is left out, and so are the tokens that nobody has any more, or that belong to
    another port. A clock that was set back counts as no time.
    """
    elapsed_s = max(0.0, wall_time - snapshot.saved_at)
    if dht_port == snapshot.dht_port and elapsed_s < TOKEN_ROTATE_S:
        node.tokens.secrets = snapshot.secrets
    for name, peer, source, age_s in _oldest_first(snapshot.peers):
        if age_s + elapsed_s < node.peers.max_age_s:
            node.peers.announce(name, peer, source, now - age_s - elapsed_s)
    for name, port, age_s in _oldest_first(snapshot.own_announces):
        if age_s + elapsed_s < node.peers.max_age_s:
            node.own.add(name, port, now - age_s - elapsed_s)
    for saved in _oldest_first(snapshot.items):
        node.items.restore(_load(saved), now - saved.age_s - elapsed_s, saved.source)
    for saved in _oldest_first(snapshot.own_items):
        node.own_items.add(_load(saved), now - saved.age_s - elapsed_s)
    node.peers.purge(now)
    node.own.purge(now)
    node.items.purge(now)
    return snapshot.contacts


def encode(snapshot: Snapshot) -> bytes:
    return msgspec.json.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """Raises ValueError, naming what is wrong."""
    try:
        snapshot = msgspec.json.decode(data, type=Snapshot)
        if snapshot.version != VERSION:
            raise ValueError(f"version must be {VERSION}, not {snapshot.version}")
        for saved in (*snapshot.items, *snapshot.own_items):
            _load(saved)
        for host in (*(host for host, _ in snapshot.contacts), *(peer.source for peer in snapshot.peers)):
            IPv4Address(host)
    except (msgspec.DecodeError, UnicodeDecodeError, BencodeDecodeError, Refusal) as error:
        raise ValueError(str(error)) from None
    return snapshot


def _save(item: Item, age_s: float, source: str | None) -> SavedItem:
    return SavedItem(bencode(item.v), age_s, item.k, item.sig, item.seq, item.salt, source)


def _load(saved: SavedItem) -> Item:
    """Raises BencodeDecodeError or Refusal for what no node would store."""
    fields: dict[bytes, Any] = {b"v": bdecode(saved.v), b"k": saved.k, b"sig": saved.sig, b"seq": saved.seq}
    return read_item(fields, saved.salt)


def _oldest_first(saved: Iterable[Any]) -> list[Any]:
    """The order of expiry, on which the stores rely."""
    return sorted(saved, key=attrgetter("age_s"), reverse=True)
