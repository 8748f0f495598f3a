"""Words that the whole chain of hearing gets wrong, on recordings of people (Debian's `pocketsphinx-testdata`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "voice" / "word_errors.py"
MOST = 0.1
"""Of the words; 3 % on both lines when this was written."""


def test_people_are_understood_clean_and_over_the_telephone() -> None:
    done = subprocess.run([sys.executable, str(BENCH)], capture_output=True, text=True, check=False, timeout=280)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^moonshine (clean|phone) +(\d+) of (\d+) words wrong", done.stdout, re.MULTILINE)
    assert [line for line, _, _ in lines] == ["clean", "phone"]
    for line, wrong, words in lines:
        assert int(words) >= 100 and int(wrong) <= MOST * int(words), f"{line}: {wrong} of {words} words wrong"
