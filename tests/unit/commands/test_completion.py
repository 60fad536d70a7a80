"""Shells complete commands and options."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from grenache_py.cli import cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_for_our_name(shell):
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_GRENACHE_PY_COMPLETE" in result.stdout
    assert "grenache-py" in result.stdout
    parser = shutil.which(shell)
    if parser is not None:
        subprocess.run([parser, "-n"], input=result.stdout, text=True, check=True, timeout=20)


def test_bash_completes_with_it():
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = CliRunner().invoke(cli, ["completion", "bash"]).stdout
    program = Path(sys.executable).with_name("grenache-py")
    if not program.exists():
        pytest.skip("the console script is not installed")
    words = f"COMP_WORDS=({program} re); COMP_CWORD=1; _grenache_py_completion {program}"
    done = subprocess.run(
        [bash, "-c", f'{script}\n{words}; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout.split() == ["request"]
