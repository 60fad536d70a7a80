"""How a program ends that somebody has started from a shell."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_end() -> Iterator[None]:
    """Around the main part of a program: Ctrl-C ends it without a traceback, and so it ends when it prints
    and who reads that (``| head -3``) has gone.

    Raises:
        SystemExit: In place of KeyboardInterrupt (as shells count: 128 and the signal's number), and of
            BrokenPipeError (1, as the commands of this package).
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        # What is left in the buffer would fail once more, when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise SystemExit(1) from None
