"""How a node behaves."""

from __future__ import annotations

from dataclasses import dataclass

from .bounds import CONCURRENCY, ITEMS_MAX, NODE_LIVENESS_S, PEER_MAX_AGE_S, TABLES_MAX


@dataclass(frozen=True)
class DhtSettings:
    """Times in seconds."""

    #: our IPv4 address as others reach it, where it is known: own announces are stored under it
    host: str | None = None
    peer_max_age_s: float = PEER_MAX_AGE_S
    #: contacts that were silent for so long are pinged
    node_liveness_s: float = NODE_LIVENESS_S
    max_tables: int = TABLES_MAX
    max_items: int = ITEMS_MAX
    concurrency: int = CONCURRENCY
    #: take another id when others tell a public address of ours that this one does not fit (BEP 42)
    secure_id: bool = True
