"""What ``--version`` prints."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import click

from .. import __version__

Command = TypeVar("Command", bound=Callable[..., Any])


def version_option(program: str, module: str) -> Callable[[Command], Command]:
    """``--version``: ours, Python's, and whether ``module`` is compiled, as where there was a C compiler."""
    spec = find_spec(module)
    source = spec is None or spec.origin is None or spec.origin.endswith(".py")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return click.version_option(
        __version__,
        message=f"{program}, version {__version__} (compiled: {'no' if source else 'yes'})\n{python}",
    )
