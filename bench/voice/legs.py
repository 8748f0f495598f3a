"""How many two-way Opus legs a core carries: ours and Pipecat's SmallWebRTC in one run, on one core each in turn.

    python bench/voice/legs.py [--pipecat /path/to/python] [--legs 8,16,32,48] [--seconds 10]

The server has one core alone, the callers another. Both servers decode, hand 20 ms on, encode and send: each caller
hears himself. CPU is the server's own, from its threads' schedstat, so that what else runs disturbs it least; `us a
frame` is that for 20 ms in and 20 ms out, also where not all frames came through (20,000 of them are a core at work).
`late`: packets more than 40 ms behind the steadiest of their leg. `echo`: mouth to ear and back, both directions.
Pipecat is installed apart (`pip install "pipecat-ai[webrtc]"`), since it pins what we do not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))
SERVER, LOAD = CORES[0], CORES[-1]


def cpu_s(pid: int) -> float:
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(name: str, command: list[str], label: str, legs: int, seconds: float) -> dict[str, object]:
    port = free_port()
    pin = ["taskset", "-c"]
    server = subprocess.Popen([*pin, str(SERVER), *command, str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline().strip() == "ready", f"{name} did not start"
        empty = rss_mb(server.pid)
        words = [
            sys.executable,
            str(HERE / "load.py"),
            f"http://127.0.0.1:{port}/offer",
            label,
            str(legs),
            str(seconds),
        ]
        load = subprocess.Popen([*pin, str(LOAD), *words], stdout=subprocess.PIPE, text=True)
        assert load.stdout is not None
        assert load.stdout.readline().strip() == "window", f"{name}: the callers did not connect"
        began, spent = time.monotonic(), cpu_s(server.pid)
        line = load.stdout.readline()
        share = (cpu_s(server.pid) - spent) / (time.monotonic() - began)
        memory = (rss_mb(server.pid) - empty) / legs
        load.wait(20)
    finally:
        server.kill()
        server.wait()
    figures = json.loads(line)
    return {
        "server": name,
        "legs": legs,
        "cpu_percent": round(share * 100, 1),
        "per_leg_percent": round(share * 100 / legs, 2),
        "us_a_frame": round(share * 1e6 / (legs * figures["fps_mean"])),
        "mb_a_leg": round(memory, 2),
        **figures,
    }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--pipecat", help="a Python that has pipecat-ai[webrtc]")
    options.add_argument("--legs", default="8,16,32,48")
    options.add_argument("--seconds", type=float, default=10)
    given = options.parse_args()
    servers = {"switchroom": ([sys.executable, str(HERE / "ours.py")], "events")}
    if given.pipecat:
        servers["pipecat"] = ([given.pipecat, str(HERE / "peer_pipecat.py")], "signalling")
    print(f"{len(CORES)} cores, load {os.getloadavg()[0]:.1f}")
    print("server      legs  CPU %  % a leg  us a frame  MB a leg  frames/s  least  late %  late p99 ms  echo p50 ms")
    for legs in (int(word) for word in given.legs.split(",")):
        for name, (command, label) in servers.items():
            row = measure(name, command, label, legs, given.seconds)
            print(
                f"{row['server']:<11} {row['legs']:>4}  {row['cpu_percent']:>5}  {row['per_leg_percent']:>7}  "
                f"{row['us_a_frame']:>10}  "
                f"{row['mb_a_leg']:>8}  {row['fps_mean']:>8}  {row['fps_min']:>5}  "
                f"{row['late_percent']:>6}  {row['late_p99_ms']:>11}  {row['round_trip_p50_ms']!s:>11}",
                flush=True,
            )


if __name__ == "__main__":
    main()
