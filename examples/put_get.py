"""Store a text on the network of Grapes and fetch it again, through another Grape if there is one.

Start a Grape first, in another terminal:

    grape-py --dp 20001 --aph 30001

then

    python examples/put_get.py
"""

import argparse

from grenache_py import Link
from grenache_py.endings import quiet_end


def main() -> None:
    parser = argparse.ArgumentParser(description="Store a text and fetch it again.")
    parser.add_argument("--grape", default="http://127.0.0.1:30001", help="URL of the Grape to store at")
    parser.add_argument("--other", help="URL of the Grape to fetch from, if not the same")
    parser.add_argument("text", nargs="?", default="hello world")
    options = parser.parse_args()

    with Link(options.grape) as here, Link(options.other or options.grape) as there:
        key = here.put(options.text)
        print("stored under", key)
        item = there.get(key)
        print("fetched:", item.value if item else None)


if __name__ == "__main__":
    with quiet_end():
        main()
