"""Answers to queries: a function of the tables, the sender and the message. IO-free.

The rules are those of bittorrent-dht/client.js, with the differences that keep a node alive: every field is
checked, what is wrong is told (203), an unknown method is told (204), replies fit one datagram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from .bounds import ID_BYTES, NAME_BYTES_MAX, VALUES_MAX, K
from .distance import key_of
from .identity import is_public
from .items import ItemStore, check_signature, read_item
from .krpc import (
    Address,
    ErrorCode,
    Refusal,
    echoable,
    encode_error,
    encode_reply,
    pack_address,
)
from .peers import PeerStore
from .proven import Proven
from .routing import Routing
from .tokens import Tokens

Args = dict[bytes, Any]

# A put with one of these is meant for a mutable item; without its key it must not become an immutable one.
_MUTABLE_ONLY = frozenset({b"cas", b"salt", b"seq"})


@dataclass
class Tables:
    """What a node knows, and answers from."""

    routing: Routing
    tokens: Tokens
    peers: PeerStore
    items: ItemStore
    proven: Proven
    random: Random
    #: called with the name when a peer was announced to this node
    announced: Callable[[bytes], None]


def answer(
    tables: Tables, sender: Address, query: dict[bytes, Any], now: float, nodes_max: int = K
) -> bytes | None:
    """The datagram that answers a query, with up to ``nodes_max`` nodes; ``None`` for one whose answer could
    not be matched.
    """
    transaction_id = query.get(b"t")
    if not echoable(transaction_id):
        return None
    try:
        method, args = query.get(b"q"), query.get(b"a")
        if type(method) is not bytes:
            raise Refusal(ErrorCode.PROTOCOL, "a query needs a method `q`")
        handler = _HANDLERS.get(method)
        if handler is None:
            raise Refusal(ErrorCode.METHOD_UNKNOWN, "Method Unknown")
        if type(args) is not dict:
            raise Refusal(ErrorCode.PROTOCOL, "a query needs a dict of arguments `a`")
        reply = handler(tables, sender, args, now, nodes_max)
        return encode_reply(transaction_id, reply, pack_address(sender) if is_public(sender[0]) else None)
    except Refusal as refusal:
        return encode_error(transaction_id, refusal.code, refusal.text)


def _ping(tables: Tables, sender: Address, args: Args, now: float, nodes_max: int) -> Args:
    return {b"id": tables.routing.own_id}


def _find_node(tables: Tables, sender: Address, args: Args, now: float, nodes_max: int) -> Args:
    target = args.get(b"target")
    if type(target) is not bytes:
        raise Refusal(ErrorCode.PROTOCOL, "`find_node` missing required `a.target` field")
    return {b"id": tables.routing.own_id, b"nodes": _nodes(tables, target, nodes_max)}


def _get_peers(tables: Tables, sender: Address, args: Args, now: float, nodes_max: int) -> Args:
    name = args.get(b"info_hash")
    if type(name) is not bytes or len(name) > NAME_BYTES_MAX:
        raise Refusal(ErrorCode.PROTOCOL, "`get_peers` missing required `a.info_hash` field")
    # Without a token a Node Grape would not announce here.
    reply: Args = {b"id": tables.routing.own_id, b"token": tables.tokens.issue(sender, name, now)}
    values = tables.peers.get(name, now, VALUES_MAX, tables.random)
    if values:
        reply[b"values"] = values
    else:
        reply[b"nodes"] = _nodes(tables, name, nodes_max)
    return reply


def _announce_peer(tables: Tables, sender: Address, args: Args, now: float, nodes_max: int) -> Args:
    name, token = args.get(b"info_hash"), args.get(b"token")
    port = sender[1] if args.get(b"implied_port") else args.get(b"port")
    if type(name) is not bytes or not 0 < len(name) <= NAME_BYTES_MAX:
        raise Refusal(ErrorCode.PROTOCOL, "`announce_peer` missing required `a.info_hash` field")
    if type(port) is not int or not 1 <= port <= 0xFFFF:
        raise Refusal(ErrorCode.PROTOCOL, "`announce_peer` needs a port of 1..65535 in `a.port`")
    if type(token) is not bytes or not tables.tokens.valid(token, sender, name, now):
        raise Refusal(ErrorCode.PROTOCOL, "cannot `announce_peer` with bad token")
    tables.proven.add(sender, now)
    host = sender[0]
    tables.peers.announce(name, pack_address((host, port)), host, now)
    tables.announced(name)
    return {b"id": tables.routing.own_id}


def _get(tables: Tables, sender: Address, args: Args, now: float, nodes_max: int) -> Args:
    target = args.get(b"target")
    if type(target) is not bytes or len(target) > ID_BYTES:
        raise Refusal(ErrorCode.PROTOCOL, "`get` missing required `a.target` field")
    reply: Args = {b"id": tables.routing.own_id, b"token": tables.tokens.issue(sender, target, now)}
    item = tables.items.get(target, now)
    if item is None:
        reply[b"nodes"] = _nodes(tables, target, nodes_max)
        return reply
    reply[b"v"] = item.v
    if item.mutable:
        reply[b"k"], reply[b"seq"], reply[b"sig"] = item.k, item.seq, item.sig
    return reply


def _put(tables: Tables, sender: Address, args: Args, now: float, nodes_max: int) -> Args:
    token, cas = args.get(b"token"), args.get(b"cas")
    if type(token) is not bytes:
        raise Refusal(ErrorCode.PROTOCOL, "cannot `put` with bad token")
    if cas is not None and type(cas) is not int:
        raise Refusal(ErrorCode.PROTOCOL, "`a.cas` must be an integer")
    item = read_item(args)
    if not item.mutable and not _MUTABLE_ONLY.isdisjoint(args):
        raise Refusal(ErrorCode.PROTOCOL, "a mutable item needs `a.k` and `a.sig`")
    # The token first: checking a signature is the dearest thing that a stranger can ask for.
    if not tables.tokens.valid(token, sender, item.target, now):
        raise Refusal(ErrorCode.PROTOCOL, "cannot `put` with bad token")
    tables.proven.add(sender, now)
    check_signature(item)
    tables.items.put(item, cas, now, sender[0])
    return {b"id": tables.routing.own_id}


_HANDLERS: dict[bytes, Callable[[Tables, Address, Args, float, int], Args]] = {
    b"ping": _ping,
    b"find_node": _find_node,
    b"get_peers": _get_peers,
    b"announce_peer": _announce_peer,
    b"get": _get,
    b"put": _put,
}


def _nodes(tables: Tables, target: bytes, nodes_max: int) -> bytes:
    contacts = tables.routing.closest(key_of(target), nodes_max)
    return b"".join([contact.compact for contact in contacts])
