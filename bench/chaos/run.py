"""A long run of faults with its ledger: `python bench/chaos/run.py --minutes 5`.

Beside the suite's half minute: the whole product (two API processes, the store) under enqueuers and holders, killed,
paused and cut off at random; then what each process was told is compared with what the store holds. Ends with 1 when a
call was lost, ended twice, or a late write was accepted. With `--cluster` the store is a cluster of three primaries
with a replica each, whose primary is killed and whose slot moves; `--replicas-ack 0` shows what asynchronous
replication may lose.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "chaos"))
from cluster_harm import ClusterHarm
from driver import Run, report, short_folder


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--minutes", type=float, default=5.0)
    words.add_argument("--seed", default=time.strftime("%Y%m%d"))
    words.add_argument("--lease-ms", type=int, default=1_500)
    words.add_argument("--rate", type=float, default=25.0, help="calls a second of each of three enqueuers")
    words.add_argument("--cluster", action="store_true")
    words.add_argument("--replicas-ack", type=int, default=1)
    given = words.parse_args()
    folder = short_folder()
    os.environ["CHAOS_REPLICAS_ACK"] = str(given.replicas_ack if given.cluster else 0)
    harm = ClusterHarm(replicas_ack=given.replicas_ack) if given.cluster else None
    run = Run(
        folder, seed=given.seed, seconds=given.minutes * 60, lease_ms=given.lease_ms, rate=given.rate, harm=harm,
        gap_s=(1.0, 4.0) if given.cluster else (0.4, 1.6),
    )  # fmt: skip
    try:
        found = run.run()
    finally:
        if harm is not None:
            harm.stop()
    print(report(run, found))
    if harm is not None:
        print(
            f"\nreplicas_ack {given.replicas_ack}; seconds without a primary: {[round(s, 2) for s in harm.failover_s]}"
        )
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()}")
    if found.faults:
        print("\nFOUND\n" + "\n".join(found.faults) + f"\nledgers kept in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
