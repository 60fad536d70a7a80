"""What a node should know again after a restart: its id, its tokens, contacts, peers and items. IO-free.

The id and the token secrets matter most: Node Grapes keep a contact by its id, so one that comes back to its
port with another id is lost to them for minutes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from bencode2 import BencodeDecodeError, bdecode, bencode

from .bounds import ID_BYTES, SAVED_CONTACTS_MAX
from .items import Item
from .krpc import Address
from .node import DhtNode

VERSION = 1


class SavedItem(msgspec.Struct, frozen=True):
    """An item; ``v`` is bencoded, ``age_s`` counts from its last put."""

    v: bytes
    age_s: float
    k: bytes | None = None
    sig: bytes | None = None
    seq: int | None = None
    salt: bytes | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """All that is kept. Ages are in seconds at ``saved_at``, which is Unix time."""

    version: int
    node_id: bytes
    dht_port: int
    saved_at: float
    secrets: tuple[bytes, bytes]
    contacts: list[Address]
    #: name, compact peer, IP address of who announced it, age
    peers: list[tuple[bytes, bytes, str, float]]
    #: name, port, age
    own_announces: list[tuple[bytes, int, float]]
    items: list[SavedItem]
    own_items: list[SavedItem]


def take(node: DhtNode, dht_port: int, now: float, wall_time: float) -> Snapshot:
    """What ``node`` knows. ``now`` is on its clock, ``wall_time`` is Unix time."""
    contacts = sorted(node.routing, key=lambda contact: -contact.seen)[:SAVED_CONTACTS_MAX]
    return Snapshot(
        VERSION,
        node.node_id,
        dht_port,
        wall_time,
        node.tokens.secrets,
        [contact.address for contact in contacts],
        node.peers.dump(now),
        node.own.dump(now),
        [_save(item, age_s) for item, age_s in node.items.dump(now)],
        [_save(item, age_s) for item, age_s in node.own_items.dump(now)],
    )


def restore(node: DhtNode, snapshot: Snapshot, dht_port: int, now: float, wall_time: float) -> list[Address]:
    """Give a node that was just made what it knew. Returns the contacts, to be asked whether they are alive.

    What has expired meanwhile is left out, and the tokens are when the port is another one. A clock that was
    set back counts as no time.
    """
    elapsed_s = max(0.0, wall_time - snapshot.saved_at)
    if dht_port == snapshot.dht_port:
        node.tokens.secrets = snapshot.secrets
    for name, peer, source, age_s in snapshot.peers:
        if age_s + elapsed_s < node.peers.max_age_s:
            node.peers.announce(name, peer, source, now - age_s - elapsed_s)
    for name, port, age_s in snapshot.own_announces:
        if age_s + elapsed_s < node.peers.max_age_s:
            node.own.add(name, port, now - age_s - elapsed_s)
    for saved in snapshot.items:
        node.items.restore(_load(saved), now - saved.age_s - elapsed_s)
    for saved in snapshot.own_items:
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
        if len(snapshot.node_id) != ID_BYTES:
            raise ValueError(f"node_id must be {ID_BYTES} bytes")
        for saved in (*snapshot.items, *snapshot.own_items):
            bdecode(saved.v)
        for _, peer, _, _ in snapshot.peers:
            if len(peer) != 6:
                raise ValueError("a peer must be 6 bytes")
    except (msgspec.DecodeError, UnicodeDecodeError, BencodeDecodeError) as error:
        raise ValueError(str(error)) from None
    return snapshot


def _save(item: Item, age_s: float) -> SavedItem:
    return SavedItem(bencode(item.v), age_s, item.k, item.sig, item.seq, item.salt)


def _load(saved: SavedItem) -> Item:
    v: Any = bdecode(saved.v)
    return Item(v, saved.k, saved.sig, saved.seq, saved.salt)
