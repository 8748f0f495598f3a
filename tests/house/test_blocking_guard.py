"""The guard on the event loop must bite: a test in which our code blocks the loop fails; in a thread it may wait."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

BLOCKING = """
import asyncio, importlib.util, time
from pathlib import Path

def ours(source):
    # Code whose file is inside the package's folder, as the guard looks at it.
    import switchroom
    name = str(Path(switchroom.__file__).parent / "blocking_probe.py")
    space = {}
    exec(compile(source, name, "exec"), space)
    return space["probe"]

async def test_sleep_on_the_loop():
    ours("import time\\ndef probe():\\n    time.sleep(0.01)")()

async def test_sleep_in_a_thread():
    await asyncio.to_thread(ours("import time\\ndef probe():\\n    time.sleep(0.01)"))
"""


def test_the_guard_fails_a_test_that_blocks_the_loop(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    pytester.makepyfile(BLOCKING)
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*BlockingError*time.sleep*"])
