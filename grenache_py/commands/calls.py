"""``request`` and ``map``: call one peer, or all."""

from __future__ import annotations

from typing import Any

import click

from ..discovery import MapResult
from ..errors import PeerError
from .options import Network, network_options, payload_options, timeout_option, to_option
from .status import hints, status_of_all
from .terminal import (
    as_json,
    error_object,
    json_option,
    on_one_line,
    readable,
    run,
    tell,
    without_place,
)

compress_option = click.option("--compress", is_flag=True, help="Use gzip in both directions (HTTP).")


@click.command(short_help="Call one peer and show the result.")
@click.argument("name")
@payload_options
@timeout_option()
@click.option(
    "--retry",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Attempts, each at another peer.",
)
@click.option(
    "--idempotent", is_flag=True, help="Doing it twice does no harm: ask another peer if one breaks off."
)
@to_option
@compress_option
@json_option
@network_options(peers="call")
def request(
    network: Network,
    name: str,
    payload: Any,
    timeout: float,
    retry: int,
    idempotent: bool,
    destination: str | None,
    compress: bool,
    json_output: bool,
) -> None:
    """Call one of the peers that serve NAME and show the result.

    PAYLOAD is JSON; -: standard input.

    \b
    Examples:
      grenache-py request rpc_test '{"n": 1}'
      grenache-py request rest:util:net --action getIpInfo '["8.8.8.8"]'
    """

    async def work() -> Any:
        async with network.link() as link, network.client(link) as client:
            if destination is not None:
                return await client.request_to(destination, name, payload, timeout=timeout, compress=compress)
            return await client.request(
                name, payload, timeout=timeout, retry=retry, idempotent=idempotent, compress=compress
            )

    result = run(work())
    click.echo(as_json(result) if json_output else readable(result))


@click.command("map", short_help="Call all peers and show each result.")
@click.argument("name")
@payload_options
@timeout_option()
@click.option("--limit", type=click.IntRange(min=1), help="Call at most so many peers, chosen at random.")
@compress_option
@json_option
@network_options(peers="call")
def map_(
    network: Network,
    name: str,
    payload: Any,
    timeout: float,
    limit: int | None,
    compress: bool,
    json_output: bool,
) -> None:
    """Call all peers that serve NAME and show what each says, as it comes.

    PAYLOAD is JSON; -: standard input. Exit status 0 when any of them gave a result.
    """

    async def work() -> None:
        errors: list[PeerError] = []
        succeeded = False
        async with network.link() as link, network.client(link) as client:
            results = client.map_stream(name, payload, limit=limit, timeout=timeout, compress=compress)
            async for result in results:
                click.echo(as_json(_result_object(result)) if json_output else _result_line(result))
                if result.error is None:
                    succeeded = True
                else:
                    errors.append(result.error)
        if not json_output:
            for text in hints(errors):
                tell(text)
        if not succeeded:
            raise click.exceptions.Exit(status_of_all(errors))

    run(work())


def _result_object(result: MapResult) -> dict[str, Any]:
    return {
        "destination": result.destination,
        "payload": result.payload,
        "error": None if result.error is None else error_object(result.error),
        "elapsed_s": round(result.elapsed_s, 6),
    }


def _result_line(result: MapResult) -> str:
    if result.error is not None:
        return f"{result.destination}  error: {without_place(result.error)}"
    return f"{result.destination}  {on_one_line(result.payload)}"
