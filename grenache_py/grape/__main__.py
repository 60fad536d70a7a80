"""``python -m grenache_py.grape``: the same as ``grape-py``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main(prog_name="python -m grenache_py.grape")
