"""Compiles the modules that every order and every call pass through; all else stands in setup.cfg.

mypyc turns them into C extensions, from the types that mypy checks. Each has its source beside it, which does
the same where there is no C compiler. ``GRENACHE_PURE=1`` builds without it; an editable install is never
compiled, since then an edit would change nothing.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

COMPILED = {
    "grenache": """
        grenache_py/aio/handling.py
        grenache_py/codec.py
        grenache_py/deadlines.py
        grenache_py/transports/broadcast.py
        grenache_py/transports/busy_poll.py
        grenache_py/transports/poll_budget.py
        grenache_py/transports/rpc_server.py
        grenache_py/transports/rpc_ws.py
        grenache_py/transports/steps.py
        grenache_py/transports/sync_poll.py
        grenache_py/transports/sync_ws.py
        grenache_py/transports/threads.py
        grenache_py/transports/ws.py
        grenache_py/transports/ws_calls.py
        grenache_py/transports/ws_client.py
        grenache_py/transports/ws_frames.py
        grenache_py/wire.py
    """,
    "orderbook": """
        orderbook/book.py
        orderbook/carrier.py
        orderbook/confirmations.py
        orderbook/desk.py
        orderbook/effects.py
        orderbook/engine/book.py
        orderbook/engine/check.py
        orderbook/engine/entering.py
        orderbook/engine/events.py
        orderbook/engine/ladder.py
        orderbook/engine/reserving.py
        orderbook/engine/resting.py
        orderbook/engine/rules.py
        orderbook/engine/state.py
        orderbook/engine/stops.py
        orderbook/entry_checks.py
        orderbook/envelopes.py
        orderbook/event_forms.py
        orderbook/journal/disk.py
        orderbook/journal/inserts.py
        orderbook/journal/redo.py
        orderbook/journal/rows.py
        orderbook/journal/syncer.py
        orderbook/journal/takeover.py
        orderbook/journal/writer.py
        orderbook/ledger.py
        orderbook/limits.py
        orderbook/lines.py
        orderbook/maker.py
        orderbook/market.py
        orderbook/metrics.py
        orderbook/model.py
        orderbook/names.py
        orderbook/negotiation.py
        orderbook/outbox.py
        orderbook/retries.py
        orderbook/roster.py
        orderbook/selection.py
        orderbook/signing/channel.py
        orderbook/signing/gate.py
        orderbook/signing/keyring.py
        orderbook/signing/session.py
        orderbook/sources.py
        orderbook/starts.py
        orderbook/taker.py
        orderbook/under_way.py
    """,
}
"""Of each package. Not in here: classes of msgspec (made by its metaclass), and what only waits."""


def modules(package: str) -> list[str]:
    """Those of a package that are compiled for this Python.

    From 3.12 on a compiled coroutine that is cancelled warns of a deprecation, since mypyc uses the old
    signature of ``throw``; where warnings are errors it would raise that instead.
    """
    files = COMPILED[package].split()
    if sys.version_info < (3, 12):
        return files
    return [file for file in files if "async def" not in Path(__file__).parent.joinpath(file).read_text()]


def extensions() -> list[Extension]:
    """What is to be compiled in this build; nothing where that is not wanted or not possible."""
    building = {"bdist_wheel", "build", "build_ext", "install"} & set(sys.argv)
    if not building or os.environ.get("GRENACHE_PURE") or sys.implementation.name != "cpython":
        return []
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        print(f"no C compiler ({compiler}): built without compiled modules, which works, but slower")
        return []
    from mypyc.build import mypycify  # only here, since not every build has it

    groups = [(modules(package), package) for package in COMPILED]
    compiled = mypycify(
        [
            "--ignore-missing-imports",
            "--follow-imports=silent",
            *(file for files, _ in groups for file in files),
        ],
        opt_level="2",
        debug_level="0",
        separate=[([*files], package) for files, package in groups],
    )
    if sys.platform != "win32":
        for extension in compiled:
            # Nobody else calls what is in it: so calls within it are direct, which saves 6 % of an order.
            extension.extra_compile_args.append("-fvisibility=hidden")
    return compiled


if __name__ == "__main__":
    setup(ext_modules=extensions())
