"""``orderbook doubts``: what other peers have not answered, and settling it when they will not come back."""

from __future__ import annotations

import click

from ..client import Client
from ..records import DoubtRecord, Placed, ProofRecord
from .keys import asked_for_proof, read_proof
from .orders import show
from .terminal import api_option, ask, json_option, market_option, only_market, print_json
from .views import doubts_table, make_console


@click.group("doubts", short_help="Confirmations without an answer, and how to settle them.")
def doubts_group() -> None:
    """Confirmations that another peer has not answered.

    Only that peer, the maker, knows whether it has executed. It is asked again until it answers, also after a
    restart of either; until then the quantity stays reserved. When it will not come back, settle it by hand.
    """


@doubts_group.command("list")
@market_option
@api_option()
@json_option
def list_doubts(market: str | None, api: str, as_json: bool) -> None:
    """List the confirmations without an answer."""

    async def work(client: Client) -> list[DoubtRecord]:
        return await client.doubts(market=await only_market(client, market))

    records = ask(api, work)
    if as_json:
        print_json({"doubts": records})
    else:
        make_console().print(doubts_table(records))


@doubts_group.command()
@click.argument("match_id")
@click.option(
    "--proof",
    metavar="FILE",
    help="The proof that the maker has kept; -: standard input.",
)
@click.option("--proof-from", metavar="URL", help="As --proof, asked for at the maker's client API.")
@click.option("--committed", "outcome", flag_value="committed", help="Somebody says that it has executed.")
@click.option("--refused", "outcome", flag_value="refused", help="Somebody says that it has not, and won't.")
@click.option("--by", metavar="NAME", help="Who says so; it is journaled.")
@api_option()
@json_option
def resolve(
    match_id: str,
    proof: str | None,
    proof_from: str | None,
    outcome: str | None,
    by: str | None,
    api: str,
    as_json: bool,
) -> None:
    """Settle the doubt about MATCH_ID.

    With the proof that the maker has kept (its client API, or its journal, has it) this is as good as its
    answer. Without, it is somebody's word. Should the maker come back and have done otherwise, the books of
    the two peers disagree for good, and orderbook reconcile says so.

    \b
    Examples:
      orderbook doubts resolve 3f2a9c0d51e7b846-7 --proof-from http://10.0.0.7:8081
      orderbook doubts resolve 3f2a9c0d51e7b846-7 --refused --by ann
    """
    ways = [way for way in (proof, proof_from, outcome) if way is not None]
    if len(ways) != 1 or (by is None) is not (outcome is None):
        raise click.UsageError("say --proof, --proof-from, or with --by who says so --committed or --refused")

    async def work(client: Client) -> Placed:
        if outcome is not None and by is not None:
            return await client.resolve(match_id, outcome, by)
        assert found is not None
        return await client.prove(match_id, ProofRecord(match_id, found.request, found.answer))

    found = None
    if proof is not None:
        found = read_proof(proof)
    elif proof_from is not None:
        found = asked_for_proof(proof_from, match_id)
    show(ask(api, work), as_json)
