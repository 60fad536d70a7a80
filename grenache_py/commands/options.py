"""Options that several commands have, and what they mean: the Grapes, the transport, TLS, a call."""

from __future__ import annotations

import functools
import re
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import limits
from ..aio import Link, PeerRPCClient, PeerRPCServer
from ..aio.client import Client
from ..aio.service import Service, Serving
from ..checks import TRANSPORTS
from ..codec import decode_json
from ..errors import ArgumentError
from ..tls import client_context, server_context

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_GRAPE = "http://127.0.0.1:30001"
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Network:
    """How a command reaches the network: its Grapes, and how peers are spoken with."""

    grapes: tuple[str, ...]
    transport: str = "http"
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_any_host: bool = False

    def link(self) -> Link:
        """Made on the loop. Raises ``ArgumentError``."""
        return Link(self.grapes)

    def client(self, link: Link) -> Client:
        """Made on the loop, before anything is waited for. Raises ``click.UsageError``."""
        context = self.client_context()
        if self.transport == "ws":
            from ..aio import ws

            return ws.PeerRPCClient(link, ssl=context)
        return PeerRPCClient(link, ssl=context)

    def server(
        self, link: Link, *, timeout: float, concurrency: int, allow: Sequence[str]
    ) -> Serving[Service]:
        """As ``client``; ``allow`` are the fingerprints of those who are let in, if not all are."""
        context = self.server_context()
        authorize = allow or None
        if self.transport == "ws":
            from ..aio import ws

            return ws.PeerRPCServer(
                link, timeout=timeout, concurrency=concurrency, ssl=context, authorize=authorize
            )
        return PeerRPCServer(link, timeout=timeout, concurrency=concurrency, ssl=context, authorize=authorize)

    def client_context(self) -> ssl.SSLContext | None:
        """For calls over TLS, if they are asked for."""
        if self.tls_ca is None:
            if self.tls_cert or self.tls_key or self.tls_any_host:
                raise click.UsageError("--tls-ca must name the authorities of the peers' certificates")
            return None
        if (self.tls_cert is None) != (self.tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key belong together")
        try:
            return client_context(
                self.tls_ca, self.tls_cert, self.tls_key, check_hostname=not self.tls_any_host
            )
        except ArgumentError as error:
            raise click.UsageError(f"--tls-{error.field}: {error.rule}") from error

    def server_context(self) -> ssl.SSLContext | None:
        """For a service over TLS, if it is asked for."""
        if self.tls_cert is None or self.tls_key is None:
            if self.tls_cert or self.tls_key or self.tls_ca:
                raise click.UsageError("a service over TLS needs --tls-cert and --tls-key")
            return None
        try:
            return server_context(self.tls_cert, self.tls_key, self.tls_ca)
        except ArgumentError as error:
            raise click.UsageError(f"--tls-{error.field}: {error.rule}") from error


def grape_urls(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """One or several, also separated by commas; ``host:port`` stands for ``http://host:port``."""
    urls = [part for text in given for part in re.split(r"[,\s]+", text) if part]
    return tuple(url if "://" in url or ":" not in url else f"http://{url}" for url in urls)


_grape_option = click.option(
    "-g",
    "--grape",
    "grapes",
    envvar="GRENACHE_GRAPE",
    default=[DEFAULT_GRAPE],
    show_default=True,
    show_envvar=True,
    multiple=True,
    metavar="URL",
    callback=grape_urls,
    help="The Grape to ask; give several and the next one is asked when one is away.",
)

_transport_option = click.option(
    "--transport",
    type=click.Choice(TRANSPORTS),
    default="http",
    show_default=True,
    envvar="GRENACHE_TRANSPORT",
    help="What the peers speak.",
)


def _tls_options(serving: bool) -> list[Callable[[Command], Command]]:
    texts = {
        "--tls-ca": "Let in only callers with a certificate of these authorities."
        if serving
        else "Call over TLS; peers' certificates must come from these authorities.",
        "--tls-cert": "Serve over TLS with this certificate." if serving else "The certificate to show.",
        "--tls-key": "Its private key.",
    }
    options: list[Callable[[Command], Command]] = [
        click.option(
            name,
            type=existing_file,
            metavar="PEM",
            envvar=f"GRENACHE_{name[2:].upper().replace('-', '_')}",
            help=text,
        )
        for name, text in texts.items()
    ]
    if not serving:
        options.append(
            click.option(
                "--tls-any-host", is_flag=True, help="Peers' certificates need not name their address."
            )
        )
    return options


def network_options(*, peers: str = "") -> Callable[[Command], Callable[..., Any]]:
    """The options that say how to reach the network; the command gets them as a ``Network``.

    ``peers`` is what the command does with them: ``call``, ``serve``, or ``call ws``, ``call http`` and
    ``serve ws`` where there is but one transport.
    """
    options: list[Callable[[Any], Any]] = [_grape_option]
    if peers:
        options += [] if " " in peers else [_transport_option]
        options += _tls_options(serving=peers.startswith("serve"))
    names = [field.name for field in fields(Network)]

    def decorate(command: Command) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_network(**params: Any) -> Any:
            network = Network(**{name: params.pop(name) for name in names if name in params})
            return command(network=network, **params)

        decorated: Callable[..., Any] = with_network
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def timeout_option(
    help: str = "Seconds for the whole call.", default: float = limits.REQUEST_TIMEOUT_S
) -> Callable[[Command], Command]:
    return click.option(
        "--timeout",
        type=float,
        default=default,
        show_default=True,
        metavar="S",
        help=help,
    )


to_option: Callable[[Command], Command] = click.option(
    "--to", "destination", metavar="HOST:PORT", help="Call this peer, without a look-up."
)


def payload_options(command: Command) -> Callable[..., Any]:
    """PAYLOAD and how it is meant; the command gets what is to be sent."""

    @functools.wraps(command)
    def with_payload(payload: str, text: bool, action: str | None, **params: Any) -> Any:
        return command(payload=read_payload(payload, text, action), **params)

    decorated = click.option(
        "--action", metavar="NAME", help='Send {"action": NAME, "args": PAYLOAD}, for Bitfinex workers.'
    )(with_payload)
    decorated = click.option("--text", is_flag=True, help="Take PAYLOAD as a text instead of JSON.")(
        decorated
    )
    return click.argument("payload", default="null")(decorated)


def read_payload(given: str, text: bool, action: str | None) -> Any:
    """What PAYLOAD stands for. Raises ``click.UsageError``."""
    if given == "-":
        given = sys.stdin.read()
    if text:
        payload: Any = given
    else:
        try:
            payload = decode_json(given.encode("utf-8", "surrogateescape"))
        except ValueError as error:
            raise click.UsageError(
                f"PAYLOAD is not JSON ({error}); quote texts twice or use --text"
            ) from error
    if action is None:
        return payload
    args = [] if payload is None else payload if isinstance(payload, list) else [payload]
    return {"action": action, "args": args}
