"""What ``--version`` prints."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import click

from .. import __version__

Command = TypeVar("Command", bound=Callable[..., Any])


def is_compiled(module: str) -> bool:
    """Whether ``module`` is an extension, as where there was a C compiler, and no Python source."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


def version_option(program: str, module: str) -> Callable[[Command], Command]:
    """``--version``: ours, Python's, and whether ``module`` is compiled."""
    compiled = "yes" if is_compiled(module) else "no"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return click.version_option(
        __version__, message=f"{program}, version {__version__} (compiled: {compiled})\n{python}"
    )
