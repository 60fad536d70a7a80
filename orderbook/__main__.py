"""``python -m orderbook`` is the ``orderbook`` command."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="orderbook")
