"""Half a minute of faults against the whole product: every accepted call is accounted for exactly once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from driver import Run, report, short_folder


@pytest.mark.timeout(240)
def test_nothing_is_lost_and_nothing_ends_twice() -> None:
    folder = short_folder()
    run = Run(folder, seed="suite", seconds=25)
    found = run.run()
    print("\n" + report(run, found))
    assert found.faults == []
    assert found.counts["calls accepted (202)"] > 200
    assert len(run.faults) >= 4
    shutil.rmtree(folder, ignore_errors=True)  # kept when something was found
