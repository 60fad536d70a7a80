"""Announce, look up, put, get, call: what is printed, the exit status, and that peers cannot write to the
terminal.
"""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
from click.testing import CliRunner, Result

from grenache_py.cli import cli
from grenache_py.commands.terminal import printable, readable
from grenache_py.limits import REQUEST_TIMEOUT_S
from tests.flavours import Sync
from tests.harness import Process, eventually, free_port
from tests.scripted import Asked, ScriptedServer, reply

EVIL = "\x1b[2Jgone\x9b31m\u202e\x7f\r\n"
_STORED = f"hello {EVIL}".encode()
KEY = hashlib.sha1(b"%d:%b" % (len(_STORED), _STORED)).hexdigest()


def run(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(args), input=stdin)


def start(*args: str) -> Process:
    return Process([sys.executable, "-m", "grenache_py.cli", *args])


@pytest.fixture
def service():
    """A service that echoes, or fails as it is told."""
    flavour = Sync()

    def handle(rid, key, payload, handler):
        if payload == "fail":
            handler.reply(f"ERR_NO {EVIL}", {"partial": 1})
        else:
            handler.reply(None, {"key": key, "payload": payload})

    yield flavour.service(handle)
    flavour.close()


@pytest.fixture
def grape(service):
    """A Grape that knows it, and a value."""

    def answer(asked: Asked) -> bytes:
        data = asked.json["data"]
        path = asked.head.split(" ")[1]
        if path == "/lookup":
            known = {"svc": [service.port], "two": [service.port, dead], "none": [], "dead": [dead]}
            return reply(json.dumps([f"127.0.0.1:{port}" for port in known.get(data, [])]))
        if path == "/announce":
            return reply("3" if data[0] == "svc" else '"All queries failed"')
        if path == "/put":
            return reply(f'"{KEY}"')
        return reply(json.dumps({"v": f"hello {EVIL}"}) if data == KEY else "")

    dead = free_port()
    with ScriptedServer([answer]) as server:
        yield server


def test_lookup(grape, service):
    result = run("lookup", "svc", "--grape", grape.url)
    assert (result.exit_code, result.output) == (0, f"127.0.0.1:{service.port}\n")
    result = run("lookup", "svc", "--json", "--grape", grape.url)
    assert json.loads(result.stdout) == [f"127.0.0.1:{service.port}"]


def test_the_grape_may_come_from_the_environment(grape, service, monkeypatch):
    monkeypatch.setenv("GRENACHE_GRAPE", grape.url)
    assert run("lookup", "svc").output == f"127.0.0.1:{service.port}\n"


def test_several_names(grape, service):
    result = run("lookup", "svc", "none", "two", "--random", "--grape", grape.url)
    assert result.exit_code == 3
    assert result.stdout.splitlines()[0] == f"127.0.0.1:{service.port}"
    assert len(result.stdout.splitlines()) == 2
    assert "nobody announces 'none'" in result.stderr
    result = run("lookup", "svc", "none", "--json", "--grape", grape.url)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [[f"127.0.0.1:{service.port}"], []]


def test_the_next_grape_is_asked_when_one_is_away(grape, service):
    away = f"127.0.0.1:{free_port()}"
    known = f"127.0.0.1:{service.port}\n"
    assert run("lookup", "svc", "--grape", away, "--grape", grape.url).stdout == known
    assert run("lookup", "svc", "-g", f"{away},{grape.destination}").stdout == known


def test_nobody_there(grape):
    result = run("lookup", "none", "--grape", grape.url)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ERR_GRAPE_LOOKUP_EMPTY: nobody announces 'none'")
    assert "is its service running" in result.stderr
    result = run("lookup", "none", "--json", "--grape", grape.url)
    assert result.exit_code == 3
    assert json.loads(result.stderr)["error"]["code"] == "ERR_GRAPE_LOOKUP_EMPTY"


def test_no_grape():
    result = run("lookup", "svc", "--grape", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 8
    assert "Connection refused" in result.stderr
    assert "start a Grape with `grape-py`" in result.stderr


def test_put_and_get(grape):
    assert run("put", "hello", "--grape", grape.url).output == f"{KEY}\n"
    assert run("put", "-", "--grape", grape.url, stdin="from stdin").output == f"{KEY}\n"
    assert [asked.json["data"] for asked in grape.asked] == [{"v": "hello"}, {"v": "from stdin"}]
    result = run("put", "hello", "--json", "--grape", grape.url)
    assert json.loads(result.stdout) == {"key": KEY, "report": None}  # as it is with a Node Grape

    result = run("get", KEY, "--grape", grape.url)
    assert (result.exit_code, result.stdout) == (0, f"hello {printable(EVIL)}\n")
    assert run("get", KEY, "--raw", "--grape", grape.url).stdout_bytes.decode() == f"hello {EVIL}"
    result = run("get", KEY, "--json", "--grape", grape.url)
    assert json.loads(result.stdout) == {"value": f"hello {EVIL}", "seq": None, "k": None, "sig": None}
    assert result.stdout.rstrip("\n").isprintable()

    result = run("get", "0" * 40, "--grape", grape.url)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "nothing is stored" in result.stderr
    result = run("get", "0" * 40, "--json", "--grape", grape.url)
    assert (result.exit_code, result.stdout) == (3, "null\n")


def test_request(grape, service):
    common = ["--grape", grape.url]
    result = run("request", "svc", '{"n": [1, "ž"]}', *common)
    assert result.exit_code == 0
    assert result.stdout == readable({"key": "svc", "payload": {"n": [1, "ž"]}}) + "\n"
    for arguments, stdin, payload in (
        (["1"], None, 1),
        ([], None, None),
        (["-"], "[2]", [2]),
        (["--text", "plain"], None, "plain"),
        (["--compress", "--retry", "2", "--timeout", "5", '"x"'], None, "x"),
        (["--idempotent", "1"], None, 1),
        (["--action", "getIp", '["::1"]'], None, {"action": "getIp", "args": ["::1"]}),
        (["--action", "getIp", '"::1"'], None, {"action": "getIp", "args": ["::1"]}),
        (["--action", "list"], None, {"action": "list", "args": []}),
        (["--to", f"127.0.0.1:{service.port}", "3"], None, 3),
    ):
        result = run("request", "svc", *arguments, "--json", *common, stdin=stdin)
        assert json.loads(result.stdout) == {"key": "svc", "payload": payload}, result.output


def test_the_error_of_a_handler(grape):
    result = run("request", "svc", '"fail"', "--grape", grape.url)
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith("Error: ERR_NO \\x1b[2Jgone\\x9b31m\\u202e\\x7f\\r\\n (127.0.0.1:")
    result = run("request", "svc", '"fail"', "--json", "--grape", grape.url)
    error = json.loads(result.stderr)["error"]
    assert (error["type"], error["code"], error["in_doubt"], error["result"]) == (
        "RemoteError",
        "ERR_NO",
        False,
        {"partial": 1},
    )


def test_map(grape, service):
    result = run("map", "two", "1", "--grape", grape.url)
    assert result.exit_code == 0
    lines = sorted(result.stdout.splitlines(), key=lambda line: "error" in line)
    assert lines[0] == f'127.0.0.1:{service.port}  {{"key": "two", "payload": 1}}'
    assert "error: ERR_REQUEST_GENERIC: no connection: Connection refused" in lines[1]

    result = run("map", "two", "1", "--json", "--grape", grape.url)
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    results = {entry["destination"]: entry for entry in entries}
    assert len(results) == 2
    assert results[f"127.0.0.1:{service.port}"]["payload"] == {"key": "two", "payload": 1}
    assert sorted(entry["error"] is None for entry in results.values()) == [False, True]

    assert len(run("map", "two", "1", "--limit", "1", "--grape", grape.url).stdout.splitlines()) == 1
    assert run("map", "dead", "1", "--grape", grape.url).exit_code == 6
    assert run("map", "none", "1", "--grape", grape.url).exit_code == 3


def test_announce_once(grape):
    result = run("announce", "svc", "6001", "--once", "--grape", grape.url)
    assert (result.exit_code, result.output) == (0, "svc on port 6001: taken by 3 Grapes\n")
    result = run("announce", "nobody", "6001", "--once", "--grape", grape.url)
    assert result.exit_code == 9
    assert "All queries failed" in result.stderr
    assert "--bn" in result.stderr


def announced(grape) -> list[object]:
    return [asked.json["data"] for asked in grape.asked if asked.head.startswith("POST /announce")]


def test_announce_as_grenache_cli_has_it(grape):
    result = run("announce", "svc,6001", "svc,6002", "--once", "--json", "--grape", grape.url)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"name": "svc", "port": 6001, "taken": 3},
        {"name": "svc", "port": 6002, "taken": 3},
    ]
    lines = """
    # services
    svc,6003  ; the third

    {"data": ["svc", 6004], "rid": "x"}
    svc
    {"data": 1}
    svc,99999
    """
    result = run("announce", "-", "--once", "--grape", grape.url, stdin=lines)
    assert result.exit_code == 0
    assert result.stderr.count("left out") == 3
    run("announce", "a,b/6005", "--delimiter", "/", "--once", "--grape", grape.url)
    assert announced(grape)[:4] == [["svc", port] for port in (6001, 6002, 6003, 6004)]
    assert ["a,b", 6005] in announced(grape)


def test_one_of_several_that_is_not_taken(grape):
    result = run("announce", "nobody,1", "svc,6001", "--once", "--grape", grape.url)
    assert (result.exit_code, result.stdout) == (0, "svc on port 6001: taken by 3 Grapes\n")
    assert "nobody" in result.stderr


def test_services_on_a_pipe_are_announced_as_they_come(grape):
    process = start("announce", "-", "--grape", grape.url)
    try:
        process.send_line("svc,6001")
        assert process.next_line() == "svc on port 6001: announced; Ctrl-C ends it"
        process.send_line("svc,6002")
        assert "6002" in process.next_line()
        assert process.stop() == 0
    finally:
        process.stop()


def test_announce_goes_on_until_it_is_stopped(grape):
    process = start("announce", "svc", "6001", "--interval", "0.05", "--grape", grape.url)
    try:
        assert process.next_line() == "svc on port 6001: announced; Ctrl-C ends it"
        eventually(lambda: len(grape.asked) >= 3)
        assert process.stop() == 0
    finally:
        process.stop()


def test_announce_tells_of_failures_and_goes_on(grape):
    process = start("announce", "nobody\x1b", "6001", "--grape", grape.url)
    try:
        assert "announcing 'nobody\\x1b' on port 6001 failed: announce: All" in process.next_line()
        assert "not announced yet, trying again" in process.next_line()
        assert "failed" in process.next_line()
        assert process.stop() == 0
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["nonsense"], "No such command"),
        (["lookup"], "Missing argument 'NAME…'"),
        (["lookup", ""], "name: must be a text that is not empty"),
        (["lookup", "svc", "--grape", "nonsense"], "grape: must be a URL"),
        (["announce", "svc", "0"], "port"),
        (["announce", "svc"], "write NAME PORT or NAME,PORT"),
        (["put", "x", "--seq", "1"], "--seq needs --mutable"),
        (["request", "svc", "--transport", "udp"], "'udp' is not one of 'http', 'ws'"),
        (["request", "svc", "--tls-any-host"], "--tls-ca must name"),
        (["serve", "svc"], "Missing option '-e' / '--exec'"),
        (["serve", "svc", "-e", "'"], "--exec: No closing quotation"),
        (["serve", "svc", "-e", "no-such-command"], "there is no command no-such-command"),
        (["bench", "svc", "--duration", "0"], "duration"),
        (["get", "zz"], "hash: must be 40 hexadecimal digits"),
        (["put", "x" * 1000], "value: must be at most 999 bytes"),
        (["request", "svc", "{bad"], "PAYLOAD is not JSON"),
        (["request", "svc", "1", "--to", "nonsense"], "destination: must be host:port"),
        (["request", "svc", "1", "--timeout", "0"], "timeout: must be greater than 0"),
        (["map", "svc", "1", "--limit", "0"], "limit"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_a_hint(args, hint):
    result = run(*args)
    assert result.exit_code == 2
    assert hint.lower() in result.stderr.lower()


def test_help_names_every_command_and_its_options():
    text = run("--help").stdout
    for name, command in cli.commands.items():
        assert name in text
        # Whole in the list of commands: a summary that fits.
        assert len(command.short_help or "") < 50
        help_text = run(name, "-h").stdout
        if name not in ("keygen", "completion"):
            assert "--grape" in help_text
        if name != "completion":
            assert "--json" in help_text
    assert f"{REQUEST_TIMEOUT_S}" in run("request", "--help").stdout
    assert run("--version").stdout.startswith("grenache-py, version ")


def test_printable_leaves_letters_alone():
    assert printable("wörld 日本 😀") == "wörld 日本 😀"
    assert printable(EVIL).isprintable()
    assert all(line.isprintable() for line in readable({EVIL: [EVIL]}).split("\n"))
    assert json.loads(readable({"a": ["ž\n"]})) == {"a": ["ž\n"]}
