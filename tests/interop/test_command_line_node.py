"""``grenache-py`` at Node Grapes, and with Node publishers and subscribers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from grenache_py.keyfile import create_key
from tests.e2e.test_examples import EXAMPLES, started
from tests.harness import need_node

__all__ = ["started"]


@pytest.fixture
def cli(node_grapes):
    """The command line of a command at the first of two Node Grapes."""
    return lambda *args: [sys.executable, "-m", "grenache_py.cli", *map(str, args), "-g", node_grapes[0].url]


@pytest.fixture
def run(cli):
    """Run a command to its end; returns its status and output."""

    def call(*args):
        done = subprocess.run(cli(*args), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.rstrip("\n")

    return call


def test_announce_and_look_up(started, cli, run, node_grapes):
    assert run("lookup", "svc")[0] == 3
    announcing = started(*cli("announce", "svc", "6001"))
    assert announcing.next_line() == "svc on port 6001: announced; Ctrl-C ends it"
    assert run("lookup", "svc") == (0, "127.0.0.1:6001")
    assert run("lookup", "svc", "-g", node_grapes[1].url) == (0, "127.0.0.1:6001")
    # A Node Grape can't be told that it has ended; that is no failure.
    assert announcing.stop() == 0


def test_put_and_get(run, cli, tmp_path):
    status, key = run("put", "hello wörld")
    assert status == 0
    assert run("get", key) == (0, "hello wörld")
    assert run("get", "0" * 40)[0] == 3

    file = tmp_path / "key.pem"
    create_key(file)
    refused = subprocess.run(cli("put", "--key", file, "signed"), capture_output=True, text=True)
    assert refused.returncode == 9
    assert "Node's keep no signed values" in refused.stderr, "since they do not verify them"


@pytest.mark.parametrize("options", [[], ["--transport", "ws"]], ids=["http", "ws"])
def test_serve_and_call(started, cli, run, options):
    started(*cli("serve", "svc", "--exec", "cat", *options)).next_line()
    assert run("request", "svc", '{"a": 1}', "--json", *options) == (0, '{"a": 1}')


def test_a_node_subscriber_hears_what_is_published(started, cli, node_grapes):
    publisher = started(*cli("publish", "pub_test", "-"))
    publisher.next_line()
    subscriber = started(need_node(), EXAMPLES / "node" / "pub_sub.js", "subscribe", node_grapes[0].url)
    assert subscriber.next_line() == "connected"
    publisher.send_line("from a shell")
    assert subscriber.next_line() == "says: from a shell"
    assert publisher.stop() == 0


def test_a_node_publisher_is_heard(started, cli, node_grapes):
    publisher = started(need_node(), EXAMPLES / "node" / "pub_sub.js", "publish", node_grapes[0].url)
    publisher.next_line()
    subscriber = started(*cli("subscribe", "pub_test", "--count", 3, "--json"))
    assert subscriber.wait(30) == 0
    messages = [json.loads(line)["message"] for line in subscriber.lines]
    assert len(messages) == 3
    assert all(" of pub_sub.js " in message for message in messages)
