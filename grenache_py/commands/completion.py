"""``completion``: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "grenache-py"
SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes your shell complete grenache-py.

    \b
    bash:  grenache-py completion bash > ~/.local/share/bash-completion/completions/grenache-py
    zsh:   grenache-py completion zsh > a file _grenache-py in a folder of $fpath
    fish:  grenache-py completion fish > ~/.config/fish/completions/grenache-py.fish
    """
    cls = get_completion_class(shell)
    assert cls is not None, "one of SHELLS"
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    click.echo(cls(context.find_root().command, {}, PROGRAM, variable).source())
