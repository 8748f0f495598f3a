"""`tests/queue/test_routing.py`, each test of it, on a cluster of three primaries."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from adopted import adopted

# It counts the commands of one server, and the nodes of a cluster talk among themselves.
globals().update(adopted("test_routing", "test_a_waiting_holder_is_woken_at_once_and_asks_the_store_nothing_meanwhile"))
