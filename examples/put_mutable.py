"""Store versions of a signed value, and fetch the newest one through another Grape.

Start two Grapes first, each in a terminal (a Grape gives signed values to others to keep):

    grape-py --dp 20001 --aph 30001
    grape-py --dp 20002 --aph 40001 --bn 127.0.0.1:20001

then

    python examples/put_mutable.py --other http://127.0.0.1:40001

Whoever has the key can store the next version, and nobody else; the name of the value stays the same. Grapes
forget values after a while: store a version again, with a higher ``seq``, to keep it.
"""

import argparse
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py import Link
from grenache_py.endings import quiet_end
from grenache_py.errors import GrapeReplyError


def main() -> None:
    parser = argparse.ArgumentParser(description="Store versions of a signed value and fetch the newest.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of the Grape to store at")
    parser.add_argument("--other", help="URL of the Grape to fetch from, if not the same")
    options = parser.parse_args()

    # Keep yours in a file: grenache_py.keyfile.create_key and load_key, or grenache-py keygen.
    key = Ed25519PrivateKey.generate()
    with Link(options.grape) as here, Link(options.other or options.grape) as there:
        name = here.put_mutable("first", key, salt=b"greeting")
        print("stored under", name)
        here.put_mutable("second", key, salt=b"greeting")

        item = there.get(name, salt=b"greeting")
        if item is None or item.seq is None:
            sys.exit("the other Grape does not find it: does it know the first one?")
        print(f"version {item.seq}: {item.value}")

        # "Only if nobody was faster": compare and swap.
        here.put_mutable("third", key, salt=b"greeting", seq=item.seq + 1, cas=item.seq)
        try:
            here.put_mutable("too late", key, salt=b"greeting", seq=item.seq + 2, cas=item.seq)
        except GrapeReplyError as error:
            print("refused:", error.status)
        item = there.get(name, salt=b"greeting")
        if item is not None:
            print(f"version {item.seq}: {item.value}")


if __name__ == "__main__":
    with quiet_end():
        main()
