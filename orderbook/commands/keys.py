"""The commands about keys: ``keygen`` makes one, ``verify-trade`` checks what two of them have signed."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Group
from rich.text import Text

from ..client import Client
from ..errors import IdentityError, ProofError
from ..signing import proofs
from ..signing.keyfile import create_key
from ..signing.proofs import Proof, Proven
from .terminal import Failure, ask, json_option, print_json
from .views import make_console, plain, trades_table

PROOF_BYTES = 1024 * 1024
"""Longest file that can be a proof: two signed messages and room."""


@click.command()
@click.option(
    "--out",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default="peer.key",
    show_default=True,
    help="The new file; an existing one is left alone.",
)
@json_option
def keygen(path: Path, as_json: bool) -> None:
    """Make a key for a peer, in a file that only you can read.

    Whoever has the file can trade as that peer. Shown is the public key, for the --allow of other peers.

    \b
    Example:
      orderbook keygen --out alice.key
      orderbook peer --name alice --key alice.key
    """
    try:
        identity = create_key(path)
    except IdentityError as error:
        raise Failure(str(error), code=error.code) from error
    if as_json:
        print_json({"key": identity.key, "file": str(path)})
    else:
        make_console().print(plain(identity.key))


@click.command("verify-trade")
@click.argument("source", metavar="FILE|MATCH_ID")
@click.option(
    "--api",
    metavar="URL",
    help="Ask this peer for the proof of MATCH_ID.  [default: read it from FILE; -: standard input]",
)
@json_option
def verify_trade(source: str, api: str | None, as_json: bool) -> None:
    """Check the proof of a trade between two peers: what both have signed.

    Nothing needs to be believed but that the keys that are shown are theirs. With --json the proof itself is
    printed as well: kept in a file, it can be checked again, anywhere.

    \b
    Examples:
      orderbook verify-trade 3f2a9c0d51e7b846-7 --api http://127.0.0.1:8081 --json > proof.json
      orderbook verify-trade proof.json
    """
    proof = read_proof(source) if api is None else asked_for_proof(api, source)
    try:
        proven = proofs.check(proof)
    except ProofError as error:
        raise Failure(f"this proves no trade: {error}", code=error.code) from error
    if as_json:
        print_json(
            {
                "valid": True,
                "maker": proven.maker._asdict(),
                "taker": proven.taker._asdict(),
                "side": proven.side,
                "trades": proven.trades,
                "request": proof.request,
                "answer": proof.answer,
            }
        )
    else:
        make_console().print(proven_view(proven))


def asked_for_proof(api: str, match_id: str) -> Proof:
    async def work(client: Client) -> Proof:
        record = await client.proof(match_id)
        return Proof(record.request, record.answer)

    return ask(api, work)


def read_proof(path: str) -> Proof:
    """The proof in the file ``path``, or on standard input. Raises Failure."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(PROOF_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(PROOF_BYTES + 1)
    except OSError as error:
        hint = "to ask a peer for the proof of a match, name the peer: --api URL"
        raise Failure(f"{path} can't be read: {error.strerror or error}", hint=hint) from error
    if len(data) > PROOF_BYTES:
        raise Failure(f"no proof: longer than {PROOF_BYTES} bytes", code=ProofError.code)
    try:
        return msgspec.json.decode(data, type=Proof)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"no proof: {error}", code=ProofError.code) from error


def proven_view(proven: Proven) -> Group:
    """Who traded what with whom, and both keys."""
    buyer, seller = (proven.taker, proven.maker) if proven.side == "buy" else (proven.maker, proven.taker)
    said = Text("valid: ", style="green")
    said.append_text(plain(f"{buyer.name} bought of {seller.name}", style="default"))
    keys = [
        plain(f"{role} {party.name} signed with key {party.key}")
        for role, party in (("maker", proven.maker), ("taker", proven.taker))
    ]
    return Group(said, trades_table(proven.trades), *keys)
