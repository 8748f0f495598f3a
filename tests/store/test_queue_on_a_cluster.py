"""`tests/queue/test_queue.py`, each test of it, on a cluster of three primaries."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from adopted import adopted

globals().update(adopted("test_queue"))
