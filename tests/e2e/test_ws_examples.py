"""The examples over WebSocket run as they say they do, beside Node."""

from __future__ import annotations

import sys

from tests.e2e.test_examples import EXAMPLES, example, grape, output, started
from tests.harness import eventually, need_node
from tests.unit.tls_files import make_ca

__all__ = ["grape", "started"]


def test_worker_and_client(started, grape):
    serving = started(*example("ws_worker.py", grape))
    assert serving.next_line().startswith("serving ws_test on port ")
    said = output(started(*example("ws_client.py", grape)))
    assert said == ["waited 0 s", "waited 0.2 s", "waited 0.4 s"]
    assert serving.stop() == 0
    assert len(serving.lines) == 1


def test_worker_and_client_over_tls(started, grape, tmp_path):
    pem = make_ca(tmp_path)
    mine = ["--cert", pem.server_cert, "--key", pem.server_key, "--ca", pem.ca_file]
    started(*example("ws_worker.py", grape, *mine)).next_line()
    yours = ["--cert", pem.client_cert, "--key", pem.client_key, "--ca", pem.ca_file]
    assert len(output(started(*example("ws_client.py", grape, *yours)))) == 3
    stranger = started(*example("ws_client.py", grape))
    stranger.wait(30)
    assert any("ConnectError" in line for line in stranger.lines)


def test_every_subscriber_hears_every_publisher(started, grape):
    ours = started(sys.executable, EXAMPLES / "pub_sub.py", "publish", "--grape", grape)
    assert ours.next_line().startswith("publishing on port ")
    node_subscriber = started(need_node(), EXAMPLES / "node" / "pub_sub.js", "subscribe", grape)
    assert node_subscriber.next_line() == "connected"
    assert " of pub_sub.py " in node_subscriber.next_line()
    node = started(need_node(), EXAMPLES / "node" / "pub_sub.js", "publish", grape)
    assert node.next_line().startswith("publishing on port ")

    subscriber = started(sys.executable, EXAMPLES / "pub_sub.py", "subscribe", "--grape", grape)

    def heard(word: str) -> bool:
        return any(word in line for line in list(subscriber.lines))

    eventually(lambda: heard(" of pub_sub.py ") and heard(" of pub_sub.js "), 20)
    # One that ends is noticed, and its successor found.
    ours.stop()
    eventually(lambda: heard("lost "))
    again = started(sys.executable, EXAMPLES / "pub_sub.py", "publish", "--grape", grape)
    again.next_line()
    eventually(lambda: heard(f" of pub_sub.py {again.pid}"), 20)
    assert subscriber.stop() == 0
