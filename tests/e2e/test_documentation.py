"""What README and docs show is true: the README's Python runs, other Python imports what there is, and our
commands take the command lines.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from grenache_py import Link
from grenache_py.cli import cli
from grenache_py.errors import LookupEmptyError
from grenache_py.grape.cli import main as grape_py
from orderbook.cli import main as orderbook
from tests.e2e.test_examples import ROOT, grape, output, started
from tests.harness import Process, eventually

__all__ = ["grape", "started"]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS: dict[str, click.Command] = {"grenache-py": cli, "grape-py": grape_py, "orderbook": orderbook}

_FENCED = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)


def python_blocks(page: Path) -> list[str]:
    return _FENCED.findall(page.read_text())


def cases() -> Iterator[tuple[str, str]]:
    """Every block of Python, and the page that it is on."""
    for page in PAGES:
        for block in python_blocks(page):
            yield page.name, block


@pytest.mark.parametrize(("page", "block"), list(cases()))
def test_python_blocks_are_python_and_import_what_there_is(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def command_lines() -> Iterator[str]:
    """Our command lines in the README, in docs/cli.md and in the examples, also those inside of others."""
    texts = [page.read_text() for page in (ROOT / "README.md", ROOT / "docs" / "cli.md")]
    texts += [
        ast.get_docstring(ast.parse(path.read_text())) or "" for path in (ROOT / "examples").glob("*.py")
    ]
    for text in texts:
        for line in _INDENTED.findall(text):
            outer = re.sub(r"\s+#.*", "", line)
            for inner in re.findall(r"\$\((.*?)\)", outer):
                outer = outer.replace(f"$({inner})", "0" * 40)
                yield from _ours(inner)
            yield from _ours(outer)


def _ours(line: str) -> Iterator[str]:
    for part in re.split(r" \| | && | [<>] ", line):
        if part.split(" ")[0] in PROGRAMS:
            yield part


def test_there_are_command_lines():
    assert len(list(command_lines())) > 25


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_command_lines_are_ones_that_the_commands_take(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *args = shlex.split(line)
    command = PROGRAMS[name]
    context = click.Context(command, info_name=name)
    while isinstance(command, click.Group) and args and not args[0].startswith("-"):
        found = command.get_command(context, args[0])
        assert found is not None, f"{name} has no command {args[0]}"
        command, args = found, args[1:]
    try:
        command.make_context(name, args)
    except click.exceptions.Exit:
        pass  # --help
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # the reader's files
            raise


# -- the README's programs, in the order in which they stand there -----------------------------------------


@pytest.fixture
def program(started, grape):
    """Start the README's program that has these words, at the Grape of the test."""

    def start(*words: str) -> Process:
        [block] = [
            block for block in python_blocks(ROOT / "README.md") if all(word in block for word in words)
        ]
        return started(sys.executable, "-uc", block.replace("http://127.0.0.1:30001", grape))

    return start


def announced(grape: str, name: str) -> bool:
    with Link(grape) as link:
        try:
            return bool(link.lookup(name))
        except LookupEmptyError:
            return False


def test_the_service_and_the_client(program, grape):
    service = program("PeerRPCServer")
    eventually(lambda: announced(grape, "rpc_test"), 30)
    said = output(program("PeerRPCClient"))
    assert said[0] == "{'echo': {'n': 1}}"
    assert said[1].startswith("MapResult(destination='127.0.0.1:")
    service.send_line("")
    assert service.wait(10) == 0


def test_publish_and_subscribe(program):
    process = program("PeerPub")
    heard = process.next_line()
    assert heard.endswith(" a text, or bytes")
    process.send_line("")
    assert process.wait(10) == 0


def test_the_embedded_grape(program):
    assert output(program("embedded")) == ["['127.0.0.1:6001']"]
