"""Compiled modules do what their sources do: one seed, one timeline, whichever of the two runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import COMPILED, ROOT, need_compiled

SEEDS = 100
CHUNK = 25
TIMELINES = """
import hashlib
import sys
import orderbook.desk
from tests.simulation.campaign import Scenario, run

print(orderbook.desk.__file__)
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    outcome = run(Scenario.of_seed(seed))
    print(seed, outcome.error, hashlib.sha256("".join(outcome.timeline).encode()).hexdigest())
"""
MODULES = """
import importlib
import runpy
import sys

setup = runpy.run_path(sys.argv[1])
for package in setup["COMPILED"]:
    for file in setup["modules"](package):
        print(importlib.import_module(file.removesuffix(".py").replace("/", ".")).__file__)
"""
VERSION = """
from orderbook.cli import main

main(["--version"])
"""
PURE = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def output(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs code in an interpreter of its own, far from the sources; returns the lines it prints."""

    def run(environment: dict[str, str], code: str, *arguments: object) -> list[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_compiled_and_not_an_order_takes_the_same_way(first: int, output: Callable[..., list[str]]) -> None:
    sources, *expected = output(PURE, TIMELINES, first, first + CHUNK)
    extension, *seen = output(need_compiled(), TIMELINES, first, first + CHUNK)
    assert sources == str(ROOT / "orderbook" / "desk.py")
    assert extension.startswith(str(COMPILED / "orderbook" / "desk."))
    assert not extension.endswith(".py")
    assert seen == expected
    assert len(seen) == CHUNK


def test_all_modules_that_are_to_be_compiled_are(output: Callable[..., list[str]]) -> None:
    files = output(need_compiled(), MODULES, ROOT / "setup.py")
    assert len(files) > 20
    assert not [file for file in files if file.endswith(".py")]


def test_a_version_says_whether_it_is_compiled(output: Callable[..., list[str]]) -> None:
    assert "(compiled: no)" in output(PURE, VERSION)[0]
    assert "(compiled: yes)" in output(need_compiled(), VERSION)[0]
