"""Files over streams: a worker that keeps what it is sent, and a client that sends a file and reads it back.

Start a Grape first, then a worker and clients, each in a terminal:

    grape-py --dp 20001 --aph 30001
    python examples/stream_files.py serve --folder /tmp/files
    python examples/stream_files.py put README.md
    python examples/stream_files.py get README.md

Files of any size pass: no more than a small buffer is held on either side.
"""

import argparse
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from grenache_py import Handler, Link, PeerRPCClient, PeerRPCServer
from grenache_py.endings import quiet_end


def serve(link: Link, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    service = PeerRPCServer(link, disable_buffered=True).transport("server")

    @service.on("stream")
    def handle(rid: str, key: str, stream: BinaryIO, handler: Handler) -> None:
        # Only the name of a file counts, not the way to it: callers must not reach other folders.
        path = folder / Path(handler.args["name"]).name
        if handler.action == "put":
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file)
            handler.reply(None, path.stat().st_size)
        elif path.is_file():
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream)
        else:
            handler.reply("ERR_NO_SUCH_FILE")

    service.listen(0)
    link.start_announcing("files", service.port)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"serving files on port {service.port}; Ctrl-C ends it", flush=True)
    while not ended.wait(1):
        pass


def put(link: Link, path: Path) -> None:
    with PeerRPCClient(link).stream("files", headers={"_a": "put", "_ar": {"name": path.name}}) as stream:
        with path.open("rb") as file:
            shutil.copyfileobj(file, stream)
        stream.end()
        print("kept:", stream.read().decode())  # [rid, error, size]


def get(link: Link, path: Path) -> None:
    with PeerRPCClient(link).stream("files", headers={"_a": "get", "_ar": {"name": path.name}}) as stream:
        stream.end()
        shutil.copyfileobj(stream, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Files over streams.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of a Grape on this machine")
    parser.add_argument("--folder", type=Path, default=Path("files"), help="where the worker keeps files")
    parser.add_argument("what", choices=["serve", "put", "get"])
    parser.add_argument("file", nargs="?", type=Path)
    options = parser.parse_args()
    with Link(options.grape) as link:
        if options.what == "serve":
            serve(link, options.folder)
        elif options.file is None:
            parser.error("which file?")
        else:
            (put if options.what == "put" else get)(link, options.file)


if __name__ == "__main__":
    with quiet_end():
        main()
