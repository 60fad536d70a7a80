"""Whether a Grape runs on this host.

A Grape announces services under the address of its own host, whoever asks it to: what other Grapes store is
where its datagrams come from (grenache-grape/lib/Grape.js).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit


def grape_host(grape: str) -> str:
    """The host of a Grape's URL, without brackets."""
    return urlsplit(grape).hostname or ""


def is_address(host: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_here(addresses: Iterable[str]) -> bool:
    """Whether one of these IP addresses belongs to this host; nothing is sent to find out."""
    return any(_is_ours(address) for address in addresses)


def _is_ours(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback or ip.is_unspecified:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def elsewhere_text(grape: str, name: str) -> str:
    """What a Link warns of when its Grape is on another host than the services that it announces."""
    host = grape_host(grape)
    return (
        f"the Grape {grape} is on another host, so {name!r} is announced under the address of that host, "
        "where callers will not find it. Run a Grape on this host, or one within this process: "
        f'Link("embedded", bootstrap=["{host}:PORT"]), where PORT is the DHT port of that Grape'
    )
