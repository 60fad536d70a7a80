"""``grape-py`` as a process, and its options."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import grenache_py
from grenache_py.grape import Grape, aio, cli
from grenache_py.grape.cli import main
from tests.harness import Process, eventually

NODE_OPTIONS = [
    "--dp", "--dht_port", "--dc", "--dht_concurrency", "--dht_maxTables", "--dht_maxValues",
    "--bn", "--bootstrap", "--aph", "--api_port", "--dht_peer_maxAge", "--dpa", "--cache_maxAge",
    "--dnl", "--dht_nodeLiveness",
    "--check_maxPayloadSize", "-b", "--bind", "--help", "--version",
]  # fmt: skip


def test_the_options_of_the_node_binary_are_all_there() -> None:
    help_text = CliRunner().invoke(main, ["--help"]).output
    assert [option for option in NODE_OPTIONS if f"{option}" not in help_text] == []
    assert grenache_py.__version__ in CliRunner().invoke(main, ["--version"]).output


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        # Options that are not given end the defaults of a Node Grape: its peers live for ever.
        ([], {}),
        (["--dp", "1", "--aph", "2", "-b", "::1"], {"dht_port": 1, "api_port": 2, "host": "::1"}),
        (["--bn", "a:1, b:2,"], {"bootstrap": ["a:1", " b:2"]}),
        (["--dpa", "60000"], {"peer_max_age": 60.0}),
        (["--dnl", "1500"], {"node_liveness": 1.5}),
        (["--dc", "9"], {"dht_concurrency": 9}),
        (["--dht_maxTables", "8"], {"dht_max_tables": 8}),
        (["--dht_maxValues", "7"], {"dht_max_values": 7}),
        (["--check_maxPayloadSize", "6"], {"max_payload_size": 6}),
    ],
)
def test_options_change_the_defaults_of_the_library(
    arguments: list[str], changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = inspect.signature(aio.Grape)
    asked: list[dict[str, Any]] = []

    def grape(*args: Any, **named: Any) -> None:
        bound = signature.bind(*args, **named)
        bound.apply_defaults()
        asked.append(bound.arguments)
        raise ValueError("seen enough")

    monkeypatch.setattr(cli, "Grape", grape)
    assert "seen enough" in CliRunner().invoke(main, arguments).output
    defaults = signature.bind()
    defaults.apply_defaults()
    expected = {**defaults.arguments, "dht_port": 20001, "api_port": 30001, "bootstrap": [], **changed}
    assert asked == [expected]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--dp", "70000"], "--dp"),
        (["--bn", "nonsense"], "bootstrap address 'nonsense'"),
        (["--dpa", "0"], "--dpa"),
        (["--nope"], "--nope"),
    ],
)
def test_bad_options_are_named(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert named in result.output


def test_a_taken_port_is_told() -> None:
    with Grape(host="127.0.0.1") as grape:
        result = CliRunner().invoke(main, ["--dp", "0", "--aph", str(grape.api_port), "-b", "127.0.0.1"])
        taken_udp = CliRunner().invoke(main, ["--dp", str(grape.dht_port), "--aph", "0"])
    assert (result.exit_code, taken_udp.exit_code) == (1, 1)
    assert f"cannot listen on 127.0.0.1:{grape.api_port}: Address already in use" in result.output
    assert f"cannot listen on UDP *:{grape.dht_port}: Address already in use" in taken_udp.output


def test_a_state_file_without_a_folder_is_told(tmp_path: Path) -> None:
    state = tmp_path / "not there" / "state.json"
    result = CliRunner().invoke(main, ["--dp", "0", "--aph", "0", "-b", "127.0.0.1", "--state", str(state)])
    assert result.exit_code == 1
    assert f"--state {state}: No such file or directory; does its folder exist?" in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with Grape(host="127.0.0.1") as other:
        arguments = ["--dp", "0", "--aph", "0", "--bn", other.dht_address, "--b", "127.0.0.1", "--dc", "32"]
        arguments += [
            "--dpa",
            "120000",
            "--dnl",
            "60000",
            "--cache_maxAge",
            "1",
            "--check_maxPayloadSize",
            "8192",
        ]
        process = Process([sys.executable, "-m", "grenache_py.grape", *arguments])
        try:
            line = process.next_line()
            assert "listens" in line
            url = line.rpartition(" ")[2]
            body = json.dumps({"rid": "r", "data": ["svc", 6001]}).encode()

            def announced() -> bool:
                with urllib.request.urlopen(f"{url}/announce", body, timeout=10) as reply:
                    return bool(reply.read() == b"1")

            eventually(announced)
            process._popen.send_signal(number)
            assert process.wait(10.0) == 0
            assert process.lines == [line]
        finally:
            process.stop()


def test_the_entry_point_is_installed() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "grenache_py.grape", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m grenache_py.grape" in found.stdout
