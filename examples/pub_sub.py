"""Publish and subscribe: a publisher says something every so often, and subscribers hear all publishers.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001

then as many publishers and subscribers as you like, in any order, and end and restart some of them:

    python examples/pub_sub.py publish
    python examples/pub_sub.py subscribe

examples/node/pub_sub.js does the same with Node.
"""

import argparse
import os
import signal
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

from grenache_py import Link
from grenache_py.endings import quiet_end
from grenache_py.ws import PeerPub, PeerSub

NAME = "pub_test"


def publish(link: Link, ended: threading.Event) -> None:
    service = PeerPub(link).transport("server")
    service.listen(0)
    link.start_announcing(NAME, service.port)
    print(f"publishing on port {service.port}; Ctrl-C ends it", flush=True)
    number = 0
    while not ended.wait(0.1):
        number += 1
        service.pub(f"message {number} of pub_sub.py {os.getpid()}")  # a text, or bytes


def subscribe(link: Link, ended: threading.Event) -> None:
    subscriber = PeerSub(link, interval=2)
    heard: SimpleQueue[str] = SimpleQueue()
    subscriber.on("connected", lambda destination: heard.put(f"connected to {destination}"))
    subscriber.on("disconnected", lambda destination: heard.put(f"lost {destination}"))
    subscriber.on("message", lambda message, destination: heard.put(f"{destination} says: {message}"))

    found = subscriber.sub(NAME)
    print(f"subscribed to {found} publishers; Ctrl-C ends it", flush=True)
    while not ended.is_set():
        with suppress(Empty):
            print(heard.get(timeout=0.1), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish or subscribe.")
    parser.add_argument("what", choices=["publish", "subscribe"])
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    options = parser.parse_args()

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())

    with Link(options.grape) as link:
        publish(link, ended) if options.what == "publish" else subscribe(link, ended)


if __name__ == "__main__":
    with quiet_end():
        main()
