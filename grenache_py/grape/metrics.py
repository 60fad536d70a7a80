"""``GET /metrics``: what a Grape holds and has done, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from .. import __version__
from ..dht.node import DhtNode
from ..prometheus import Page

_COUNTED = {
    "received": ("grape_dht_datagrams_received_total", "Datagrams that came in."),
    "malformed": ("grape_dht_datagrams_malformed_total", "Datagrams that were no KRPC message."),
    "limited": ("grape_dht_datagrams_limited_total", "Datagrams dropped because their sender sent too many."),
    "queries": ("grape_dht_queries_received_total", "Queries of other nodes."),
    "deferred": (
        "grape_dht_answers_deferred_total",
        "Answers held back until the asker's address was proven.",
    ),
    "refused": ("grape_dht_queries_refused_total", "Own queries that were answered with an error."),
    "unanswered": ("grape_dht_queries_unanswered_total", "Own queries that were not answered in time."),
    "resent": ("grape_dht_queries_resent_total", "Own queries that were sent a second time."),
    "walks": ("grape_dht_walks_total", "Walks through the DHT that ended."),
    "walk_seconds": ("grape_dht_walk_seconds_total", "Time that walks took, all together."),
}


def render(
    node: DhtNode, requests: Mapping[str, int], errors: int, connections: int, uptime_s: float
) -> bytes:
    """The page. ``requests`` are the calls of the HTTP API by kind, ``errors`` those answered with an
    error.
    """
    page = Page()
    page.metric(
        "grape_info", "gauge", "The Grape.", [({"version": __version__, "id": node.node_id.hex()}, 1)]
    )
    page.gauge("grape_uptime_seconds", "Time since the start.", uptime_s)
    page.gauge("grape_ready", "1 once the bootstrap is over.", node.ready)
    page.gauge("grape_dht_contacts", "Nodes in the routing table.", len(node.routing))
    page.gauge("grape_dht_peers", "Announced peers that are stored here.", len(node.peers))
    page.gauge("grape_dht_names", "Names under which peers are stored here.", node.peers.names)
    page.gauge("grape_dht_items", "Values that are stored here.", len(node.items))
    page.gauge("grape_dht_own_announces", "Fresh announces made through this Grape.", len(node.own))
    page.gauge(
        "grape_dht_own_items", "Values put through this Grape, which it puts again.", len(node.own_items)
    )
    page.gauge("grape_dht_walks_under_way", "Walks through the DHT under way.", node.walks_under_way)
    page.gauge("grape_dht_queries_under_way", "Own queries that wait for an answer.", node.queries_under_way)
    for field in fields(node.counters):
        name, text = _COUNTED[field.name]
        page.counter(name, text, getattr(node.counters, field.name))
    by_kind = [({"kind": kind}, count) for kind, count in requests.items()]
    page.metric("grape_http_requests_total", "counter", "Calls of the HTTP API.", by_kind)
    page.counter("grape_http_errors_total", "Calls that were answered with an error.", errors)
    page.gauge("grape_http_connections", "Open connections.", connections)
    return bytes(page)
