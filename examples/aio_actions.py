"""A worker of actions with asyncio; a client of it in the same process, to keep it short.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001
    python examples/aio_actions.py

examples/actions.py has a client of its own, and shows the secured twin.
"""

import argparse
import asyncio

from grenache_py.actions import Space
from grenache_py.aio import ActionClient, Actions, Link, PeerRPCClient, Worker
from grenache_py.endings import quiet_end
from grenache_py.errors import Refusal

actions = Actions()


@actions.export
async def divide(space: Space, a: float, b: float) -> float:
    """Runs as a task: others are served while it awaits."""
    await asyncio.sleep(0)  # a database, another worker, …
    if not b:
        raise Refusal("ERR_DIVIDED_BY_ZERO")
    return a / b


async def main() -> None:
    parser = argparse.ArgumentParser(description="A worker of actions, with asyncio.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    options = parser.parse_args()
    async with Link(options.grape) as link:
        await Worker(link, "calc", actions).start()
        client = ActionClient(PeerRPCClient(link))
        print(await client.request("calc", "divide", [1, 4]))
        for args in ([1, 0], [1, "4"], [1]):
            [outcome] = await client.map("calc", "divide", args)
            print(outcome.error.message if outcome.error else outcome.payload)


if __name__ == "__main__":
    with quiet_end():
        asyncio.run(main())
