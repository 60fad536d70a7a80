"""What a peer's process is set up with."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
from orderbook.peer import tune_process
tune_process()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most) != (64, most)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS tells a limit that it does not grant")
def test_it_may_open_as_many_files_as_the_system_lets_it():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
