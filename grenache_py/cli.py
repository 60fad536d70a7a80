"""``grenache-py``: announce, look up, store, fetch, call, serve and measure from a shell.

The commands are in ``grenache_py.commands``; what they end with in ``commands/status.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from .commands.bench import bench
from .commands.calls import map_, request
from .commands.completion import completion
from .commands.items import get, keygen, put
from .commands.names import announce, lookup
from .commands.ping import ping
from .commands.pubsub import publish, subscribe
from .commands.serve import serve
from .commands.stream import stream
from .commands.version import version_option

_EPILOG = """Examples, with a Grape at the usual place (grape-py, or Node's grape):

\b
  grenache-py serve sum --exec 'jq add'
  grenache-py lookup sum
  grenache-py request sum '[1, 2, 3]'
  grenache-py ping sum -c 3
  grenache-py get $(grenache-py put 'hello world')

GRENACHE_GRAPE may stand for --grape. Exit status: 0 it worked, 2 it was asked for wrongly, 3 nobody announces
that name, 4 the peer answered with an error, 5 no answer in time, 6 no way to the peer, 7 it was too busy or
gave no answer of Grenache, 8 no way to the Grape, 9 the Grape answered that it can't, 1 anything else.
"""

# As people think of them: names, calls, services, messages, values.
_COMMANDS = (
    announce,
    lookup,
    request,
    map_,
    stream,
    ping,
    bench,
    serve,
    publish,
    subscribe,
    put,
    get,
    keygen,
    completion,
)


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@version_option("grenache-py", "grenache_py.wire")
def cli() -> None:
    """Find services on a Grenache network, call them, and serve."""


for _command in _COMMANDS:
    cli.add_command(_command)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    cli.main(args=None if argv is None else list(argv), prog_name="grenache-py")


if __name__ == "__main__":
    main()
