"""``grenache-py`` as people use it: processes that serve, call, measure and publish, also beside Node."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from grenache_py import Link, PeerRPCServer
from grenache_py.tls import Certificate
from tests.e2e.test_examples import example, grape, started
from tests.flavours import Aio
from tests.harness import Process, eventually, free_port
from tests.unit.commands.test_child import alive
from tests.unit.tls_files import make_ca

__all__ = ["grape", "started"]

Done = subprocess.CompletedProcess[str]
TRANSPORTS = ["http", "ws"]


@pytest.fixture
def cli(grape) -> Callable[..., list[str]]:
    """The command line of a command."""

    def words(*args: object) -> list[str]:
        return [sys.executable, "-m", "grenache_py.cli", *map(str, args), "--grape", grape]

    return words


@pytest.fixture
def run(cli) -> Callable[..., Done]:
    """Run a command to its end."""

    def call(*args: object, stdin: str | None = None) -> Done:
        return subprocess.run(cli(*args), input=stdin, capture_output=True, text=True, timeout=60)

    return call


@pytest.fixture
def serve(cli, started) -> Callable[..., Process]:
    """Start ``serve svc`` with a command, or Python code, and wait until it is announced."""

    def start(*options: object, code: str | None = None) -> Process:
        command = [] if code is None else ["--exec", f"{sys.executable} -c {shlex.quote(code)}"]
        process = started(*cli("serve", "svc", "--bind", "127.0.0.1", *command, *options))
        assert process.next_line().startswith("serving svc on port ")
        return process

    return start


def lines_of(done: Done) -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


SUM = "import json, sys; print(sum(json.load(sys.stdin)))"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_worker_from_a_command(serve, run, transport):
    worker = serve("--transport", transport, code=SUM)
    done = run("request", "svc", "[1, 2, 3]", "--transport", transport)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
    failed = run("request", "svc", '["a"]', "--transport", transport)
    assert failed.returncode == 4
    assert failed.stderr.startswith("Error: ERR_EXEC: TypeError: unsupported operand")
    eventually(lambda: any("ERR_EXEC: TypeError" in line for line in worker.lines))
    assert worker.stop() == 0
    # Withdrawn, not only gone.
    assert run("lookup", "svc").returncode == 3


@pytest.mark.parametrize(
    ("options", "command", "payload", "result"),
    [
        ([], "cat", '{"a": [1, null]}', {"a": [1, None]}),
        ([], "echo hello", "null", "hello"),
        (["--text"], "echo 12", "null", "12"),
        ([], "true", "null", ""),
        ([], "echo NaN", "null", "NaN"),
        (["--shell"], "cat | tr a b", '"aha"', "bhb"),
        # Without a shell nothing has a meaning but quotes.
        ([], "echo 'a  b' | cat; $HOME", "null", "a  b | cat; $HOME"),
    ],
)
def test_what_the_output_means(serve, run, options, command, payload, result):
    serve("--exec", command, *options)
    assert lines_of(run("request", "svc", payload, "--json")) == [result]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import sys; sys.exit('first\\nERR_MINE: last\\n')", "ERR_MINE: last"),
        ("import sys; sys.exit('why')", "ERR_EXEC: why"),
        ("exit(7)", "ERR_EXEC: exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", "ERR_EXEC: ended by SIGKILL"),
        ("while True: print('x' * 1000)", "ERR_EXEC: the command wrote more than 16777216 bytes"),
        ("import time; time.sleep(60)", "ERR_TIMEOUT: the command ran longer than 1 s"),
    ],
)
def test_how_a_command_fails(serve, run, code, error):
    limit = 1 if "sleep" in code else 20
    serve("--time-limit", limit, code=code)
    done = run("request", "svc", "--json", "--timeout", 30)
    assert done.returncode == 4
    said = json.loads(done.stderr)["error"]
    assert said["message"].startswith(error)
    assert said["type"] == "RemoteError"


def test_a_payload_is_never_part_of_the_command(serve, run, tmp_path):
    serve("--shell", "--exec", "cat")
    bad = f"'; touch {tmp_path}/owned; '$(touch {tmp_path}/owned)`touch {tmp_path}/owned`\x00"
    assert lines_of(run("request", "svc", json.dumps(bad), "--json")) == [bad]
    assert not (tmp_path / "owned").exists()


def test_so_many_commands_at_once_and_so_many_waiting(serve, started, cli, tmp_path):
    ran, go = tmp_path / "ran", tmp_path / "go"
    ran.mkdir()
    said = f"import os, time; open(f'{ran}/{{os.getpid()}}', 'w')"
    waited = f"while not os.path.exists('{go}'): time.sleep(0.01)"
    serve("--concurrency", 1, "--waiting", 1, code=f"{said}\n{waited}")
    calls = [started(*cli("request", "svc", number, "--json")) for number in range(3)]
    # One runs, one waits, and whoever comes last is refused.
    refused = eventually(lambda: [call for call in calls if call.returncode is not None])
    go.touch()
    assert sorted(call.wait(20) for call in calls) == [0, 0, 7]
    error = json.loads(refused[0].lines[-1])["error"]
    assert error["code"] == "ERR_BUSY"
    assert "--retry" in error["hint"]
    assert len(list(ran.iterdir())) == 2


def test_a_command_that_runs_when_it_is_stopped_comes_to_its_end(serve, started, cli, run, tmp_path):
    file, go = tmp_path / "runs", tmp_path / "go"
    waited = f"while not os.path.exists('{go}'): time.sleep(0.01)"
    worker = serve(code=f"import os, time; open({str(file)!r}, 'w')\n{waited}\nprint('done')")
    asking = started(*cli("request", "svc", "--timeout", 60))
    eventually(file.exists)
    os.kill(worker.pid, signal.SIGTERM)
    eventually(lambda: run("lookup", "svc").returncode == 3, what="the worker to be withdrawn")
    assert worker.returncode is None
    go.touch()
    assert worker.wait(20) == 0
    assert asking.wait(10) == 0
    assert asking.lines == ['"done"']


def test_a_second_signal_ends_it_at_once(serve, started, cli, tmp_path):
    file = tmp_path / "pid"
    worker = serve(code=f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    started(*cli("request", "svc"))
    eventually(lambda: file.exists() and file.read_text())
    worker.interrupt()
    eventually(lambda: subprocess.run(cli("lookup", "svc"), capture_output=True).returncode == 3)
    worker.interrupt()
    assert worker.wait(3) == 130
    eventually(lambda: not alive(int(file.read_text())), what="its command is gone as well")


def test_a_second_sigterm_leaves_no_command_behind(serve, started, cli, tmp_path):
    file = tmp_path / "pid"
    worker = serve(code=f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    started(*cli("request", "svc"))
    eventually(lambda: file.exists() and file.read_text())
    os.kill(worker.pid, signal.SIGTERM)
    eventually(lambda: subprocess.run(cli("lookup", "svc"), capture_output=True).returncode == 3)
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(5) == 130
    eventually(lambda: not alive(int(file.read_text())))


# Tells who it is, and sleeps with a child of its own, unless there is nothing to be done.
SLEEPER = """
import json, os, subprocess, sys
file = json.load(sys.stdin)
if file:
    child = subprocess.Popen(["sleep", "60"])
    with open(file, "w") as out: print(os.getpid(), child.pid, file=out)
    child.wait()
"""


def pids_in(file) -> list[int]:
    return [int(word) for word in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_command_of_a_caller_that_goes_is_killed(serve, started, cli, run, tmp_path, transport):
    options = ["--transport", transport]
    worker = serve(*options, "--concurrency", 1, code=SLEEPER)
    gone, waits = tmp_path / "gone", tmp_path / "waits"
    asking = started(*cli("request", "svc", json.dumps(str(gone)), *options))
    eventually(lambda: len(pids_in(gone)) == 2)
    waiting = started(*cli("request", "svc", json.dumps(str(waits)), *options))
    asking.kill()
    eventually(lambda: not any(map(alive, pids_in(gone))))
    assert "ERR_CLOSED: the caller has gone" in worker.next_line()
    eventually(lambda: len(pids_in(waits)) == 2)  # the next one has its turn
    waiting.interrupt()
    eventually(lambda: not any(map(alive, pids_in(waits))))
    assert run("request", "svc", "null", *options).stdout == '""\n'


def test_the_command_of_a_caller_that_waits_no_longer_is_killed(serve, tmp_path):
    worker = serve(code=SLEEPER)
    file = tmp_path / "pids"
    port = int(worker.lines[0].split(" on port ")[1].split(";")[0])
    body = json.dumps(["1", "svc", str(file)]).encode()
    head = f"POST / HTTP/1.1\r\nHost: a\r\ngrc-deadline-ms: 2000\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(head.encode() + body)
        eventually(lambda: len(pids_in(file)) == 2)
        assert b'["1","ERR_TIMEOUT",null]' in caller.recv(1000)
        eventually(lambda: not any(map(alive, pids_in(file))))
    assert "ERR_TIMEOUT: the caller waits no longer" in worker.next_line()


def test_ctrl_c_ends_a_call(serve, started, cli, tmp_path):
    file = tmp_path / "runs"
    serve(code=f"import time; open({str(file)!r}, 'w'); time.sleep(60)")
    asking = started(*cli("request", "svc", "--timeout", 60))
    eventually(file.exists)
    asking.interrupt()
    assert asking.wait(10) == 130
    assert asking.lines == []


def test_tls_with_fingerprints(serve, run, tmp_path):
    pem = make_ca(tmp_path)
    mine = ["--tls-ca", pem.ca_file, "--tls-cert", pem.server_cert, "--tls-key", pem.server_key]
    yours = ["--tls-ca", pem.ca_file, "--tls-cert", pem.client_cert, "--tls-key", pem.client_key]
    der = ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text())
    worker = serve("--exec", "cat", *mine, "--allow", Certificate(der, {}).fingerprint)
    assert run("request", "svc", "1", *yours).stdout == "1\n"
    worker.stop()

    serve("--exec", "cat", *mine, "--allow", "0" * 64)
    refused = run("request", "svc", "1", *yours)
    assert refused.returncode == 7
    assert "--tls-cert" in refused.stderr
    (tmp_path / "foreign").mkdir()
    untrusted = run("request", "svc", "1", "--tls-ca", make_ca(tmp_path / "foreign").ca_file)
    assert untrusted.returncode == 6
    assert "do --tls-ca, --tls-cert and --tls-key fit" in untrusted.stderr
    plain = run("request", "svc", "1")
    assert plain.returncode == 6
    assert "--tls-ca" in plain.stderr


# -- ping and bench --------------------------------------------------------------------------------------


@pytest.fixture
def peers(grape) -> Iterator[list[str]]:
    """Where three peers serve ``svc``: an echo, one that answers with errors, and one that is dead."""
    with Link(grape) as link:
        services = []
        for error in (None, "ERR_NO: \x1b[2J"):
            service = PeerRPCServer(link).transport("server")
            service.on(
                "request",
                lambda rid, key, payload, handler, error=error: handler.reply(error, payload),
            )
            services.append(service.listen(0, "127.0.0.1"))
        ports = [*(service.port for service in services), free_port()]
        for port in ports:
            link.announce("svc", port)
        yield [f"127.0.0.1:{port}" for port in ports]


def test_ping(run, peers):
    echo, failing, dead = peers
    told = lines_of(run("ping", "svc", "-c", 3, "-i", 0.05, "--json"))
    replies = [line for line in told if "summary" not in line]
    assert sorted({(line["destination"], line["seq"]) for line in replies}) == sorted(
        (place, seq) for place in peers for seq in (1, 2, 3)
    )
    summaries = {line["summary"]["destination"]: line["summary"] for line in told if "summary" in line}
    assert {place: summary["loss"] for place, summary in summaries.items()} == {echo: 0, failing: 0, dead: 1}
    assert summaries[dead]["latency"] is None
    latency = summaries[echo]["latency"]
    assert 0 < latency["min_s"] <= latency["p50_s"] <= latency["max_s"] < 5
    assert [line["error"]["code"] for line in replies if line["destination"] == failing] == ["ERR_NO"] * 3

    done = run("ping", "svc", "1", "-c", 2, "-i", 0.05)
    assert done.returncode == 0
    assert f"{echo}  seq=1  " in done.stdout
    assert f"{dead}  seq=2  lost: ERR_REQUEST_GENERIC: no connection" in done.stdout
    assert "(ERR_NO: \\x1b[2J)" in done.stdout
    table = done.stdout[done.stdout.index("sent") :].splitlines()
    assert [line.split()[1:3] for line in sorted(table[1:]) if line.startswith(dead)] == [["2", "100.0%"]]

    assert run("ping", "svc", "-c", 1, "--to", dead).returncode == 6
    assert run("ping", "nobody", "-c", 1).returncode == 3


def test_ping_until_ctrl_c(started, cli, peers):
    process = started(*cli("ping", "svc", "-i", 0.05))
    eventually(lambda: sum("seq=" in line for line in process.lines) > 10)
    process.interrupt()
    assert process.wait(10) == 0
    assert any("loss" in line for line in process.lines)


@pytest.mark.parametrize("command", ["ping svc -i 0.02", "subscribe news", "announce - --json"])
def test_it_ends_when_nobody_reads_what_it_writes(started, cli, peers, command):
    publisher = None
    if command.startswith("subscribe"):
        publisher = started(*cli("publish", "news", "-"))
        publisher.send_line("news")
        publisher.next_line()
    line = f"{shlex.join(cli(*command.split()))} | head -n 1"
    process = started("sh", "-c", line)

    def ended() -> bool:
        # It can only notice when it has something more to write.
        if command.startswith("announce"):
            with suppress(BrokenPipeError):
                process.send_line("svc,6001")
        if publisher is not None:
            publisher.send_line("news")
        return process.returncode is not None

    eventually(ended, 20.0)
    assert process.wait(20) == 0
    assert not any("Traceback" in line or "Exception" in line for line in process.lines), process.lines


def test_ping_finds_peers_that_come_and_keeps_those_that_go(started, cli, serve):
    first = serve("--exec", "cat")
    process = started(*cli("ping", "svc", "-i", 0.1))
    eventually(lambda: any("seq=" in line for line in process.lines))
    first.stop()
    eventually(lambda: any("lost:" in line for line in process.lines))
    assert process.stop() == 0
    assert "%" in process.lines[-1]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bench(serve, run, transport):
    serve("--exec", "cat", "--transport", transport)
    [figures] = lines_of(run("bench", "svc", "1", "-n", 20, "-c", 4, "--json", "--transport", transport))
    assert (figures["calls"], figures["answered"], figures["errors"]) == (20, 20, {})
    assert figures["service_time"] is None
    assert figures["latency"]["min_s"] <= figures["latency"]["p99_s"] <= figures["latency"]["max_s"]


@pytest.mark.parametrize("command", ["ping svc -c 1", "map svc", "request svc", "bench svc -n 2"])
def test_who_calls_a_service_over_the_wrong_transport_is_told_which_one_is_right(serve, run, command):
    serve("--exec", "cat", "--transport", "ws")
    done = run(*command.split())
    assert done.returncode == 7
    assert "this service speaks WebSocket: --transport ws" in done.stderr
    assert "HTTP 426" in done.stdout + done.stderr


def test_bench_at_a_rate(run, peers):
    options = ["--rate", 50, "--duration", 1, "--to", peers[0]]
    [figures] = lines_of(run("bench", "svc", *options, "--json"))
    assert figures["calls"] == 50
    assert figures["service_time"]["p50_s"] > 0
    done = run("bench", "svc", *options, "--size", 1000)
    assert "from due" in done.stdout
    assert "from sent" in done.stdout


def test_bench_of_peers_that_fail(run, peers):
    _, failing, dead = peers
    done = run("bench", "svc", "-n", 10, "--to", failing)
    assert done.returncode == 0, "an error is an answer"
    assert "10 ERR_NO" in done.stdout
    assert run("bench", "svc", "-n", 10, "--to", dead).returncode == 6
    assert run("bench", "nobody", "-n", 10).returncode == 3


def test_bench_ends_at_ctrl_c_and_tells_what_it_has(started, cli):
    asked = []

    def handle(rid, key, payload, handler):
        asked.append(rid)
        handler.reply(None, payload)

    with Link() as link:
        service = PeerRPCServer(link).transport("server")
        service.on("request", handle)
        service.listen(0, "127.0.0.1")
        process = started(*cli("bench", "svc", "-d", 60, "--to", f"127.0.0.1:{service.port}", "--json"))
        eventually(lambda: len(asked) > 100)
        process.interrupt()
        assert process.wait(10) == 0
    assert 50 < json.loads(process.lines[-1])["calls"] <= len(asked)


# -- publish and subscribe -------------------------------------------------------------------------------


def test_publish_and_subscribe(started, cli):
    subscriber = started(*cli("subscribe", "news", "-n", 4))
    assert subscriber.next_line() == "nobody publishes news yet; waiting"
    publisher = started(*cli("publish", "news", "-", "--json"))
    for message in ("a", "b\x1b[2J", "č", ""):
        publisher.send_line(message)
    assert publisher.next_json() == {"message": "a", "subscribers": 1}
    assert subscriber.wait(30) == 0
    assert heard(subscriber)[1:] == ["a", "b\\x1b[2J", "č", ""]
    assert publisher.stop() == 0


def heard(subscriber: Process) -> list[str]:
    """What it said but for its connections."""
    return [line for line in subscriber.lines if "127.0.0.1:" not in line]


def test_messages_in_the_arguments(started, cli):
    publisher = started(*cli("publish", "news", "one", "two", "--subscribers", 2))
    assert "publishing news on port" in publisher.next_line()
    both = [started(*cli("subscribe", "news", "-n", 2, *options)) for options in ([], ["--json"])]
    assert publisher.wait(30) == 0
    assert [process.wait(30) for process in both] == [0, 0]
    assert heard(both[0])[-2:] == ["one", "two"]
    assert [json.loads(line)["message"] for line in both[1].lines] == ["one", "two"]


def test_nobody_subscribes_and_nobody_publishes(run):
    done = run("publish", "news", "x", "--timeout", 0.2)
    assert done.returncode == 3
    assert "0 of 1 subscribers" in done.stderr
    done = run("subscribe", "news", "--timeout", 0.2)
    assert (done.returncode, done.stdout) == (5, "")


# -- beside Node -----------------------------------------------------------------------------------------


def test_a_node_worker_is_called_and_measured(started, grape, run):
    started(*example("worker.js", grape)).next_line()
    assert lines_of(run("request", "rpc_test", '{"n": 4}', "--json")) == [{"doubled": 8, "by": "worker.js"}]
    [figures] = lines_of(run("bench", "rpc_test", '{"n": 1}', "-n", 50, "--json"))
    assert figures["answered"] == 50
    done = run("ping", "rpc_test", "-c", 2, "-i", 0.05)
    assert "(ERR_NO_NUMBER)" in done.stdout
    assert "0.0%" in done.stdout


def test_a_node_client_calls_a_command(started, grape, cli):
    code = (
        "import json, sys\n"
        "given = json.load(sys.stdin)\n"
        "if not isinstance(given, dict): sys.exit('ERR_NO_NUMBER')\n"
        "print(json.dumps({'doubled': given['n'] * 2, 'by': 'a command'}))"
    )
    command = f"{sys.executable} -c {shlex.quote(code)}"
    started(*cli("serve", "rpc_test", "--exec", command)).next_line()
    client = started(*example("client.js", grape))
    assert client.wait(30) == 0
    assert "a worker's own error: ERR_NO_NUMBER" in "\n".join(client.lines)
    assert "a command" in client.lines[-1]


# --- streams


@pytest.fixture
def files(grape) -> Iterator[None]:
    """A service of streams, announced as ``files``; the action says what it does."""
    flavour = Aio()

    async def handle(rid, key, stream, handler):
        if handler.action == "sum":
            digest = hashlib.sha256()
            async for piece in stream:
                digest.update(piece)
            handler.reply(None, [handler.args, digest.hexdigest()])
        elif handler.action == "early":
            await stream.write(b"enough")
        elif handler.action == "cut":
            await stream.write(b"begun")
            raise ValueError("oops")
        else:
            async for piece in stream:
                await stream.write(piece)

    link = flavour.link(grape)
    link.announce("files", flavour.streaming(handle, link).port)
    yield
    flavour.close()


def test_a_stream_both_ways(run, files):
    done = run("stream", "files", stdin="hello\n" * 1000)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n" * 1000, "")
    done = run("stream", "files", "--action", "sum", '{"name": 1}', "--json", stdin="hello")
    _, error, result = json.loads(done.stdout)
    assert (done.returncode, error) == (0, None)
    assert result == [{"name": 1}, hashlib.sha256(b"hello").hexdigest()]
    said = json.loads(done.stderr)
    assert (said["sent"], said["received"]) == (5, len(done.stdout))
    assert run("stream", "files", "-n").stdout == ""


def test_how_a_stream_fails(run, cli, files):
    cut = run("stream", "files", "-n", "--action", "cut")
    assert (cut.returncode, cut.stdout) == (6, "begun")
    assert "connection lost" in cut.stderr
    assert run("stream", "nobody", "-n").returncode == 3
    assert run("stream", "files", "-n", "--to", f"127.0.0.1:{free_port()}").returncode == 6
    for wrong in (["[1]"], ["--action", "sum", "{"]):
        assert run("stream", "files", *wrong).returncode == 2
    line = f"{shlex.join(cli('stream', 'files'))} 0> /dev/null"
    deaf = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert (deaf.returncode, deaf.stderr) == (1, "Error: standard input can't be read: Bad file descriptor\n")
    line = f"echo x | {shlex.join(cli('stream', 'files'))} > /dev/full"
    if os.path.exists("/dev/full"):
        full = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
        assert (full.returncode, full.stderr) == (
            1,
            "Error: standard output can't be written: No space left on device\n",
        )


def test_a_peer_that_has_said_all_ends_a_stream(started, cli, files):
    # Its input does not end.
    process = started(*cli("stream", "files", "--action", "early"))
    process.send_line("x")
    assert process.wait(30) == 0
    assert process.lines == ["enoughthe peer has answered without having taken all of the input"]


def test_a_stream_of_200_mb_takes_no_more_memory_than_a_small_one(cli, files):
    def run(megabytes: int) -> int:
        """Its memory at most, in bytes."""
        process = subprocess.Popen(cli("stream", "files"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        block = os.urandom(1 << 20)

        def feed() -> None:
            for _ in range(megabytes):
                process.stdin.write(block)
            process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        for _ in range(megabytes):
            assert process.stdout.read(len(block)) == block
        assert process.stdout.read() == b""
        feeder.join()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    assert run(200) < run(1) + 16 * 1024 * 1024


def test_commands_work_without_standard_files(cli, files):
    for closed in ("0<&-", "0<&- 2>&-"):  # as a service manager may start them
        line = f"{shlex.join(cli('lookup', 'files'))} {closed}"
        done = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 0
        assert done.stdout.startswith("127.0.0.1:")
