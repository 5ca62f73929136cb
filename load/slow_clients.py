#!/usr/bin/env python3
"""What 1,000 slow clients of each of slowhttptest's kinds cost a good one: the p99 of its steady 1,000
requests/s alone, beside them, and while they are at another server, since the tool costs processor time,
too, in medians of several rounds; and the gateway's memory.

Needs nginx and slowhttptest (Debian packages of those names), chrt, and target/release/turnpike. The gateway
has one thread on core 0, as the other server; the upstream and the good client share core 1, and the slow
ones get what these leave of it. The good client goes first there (SCHED_FIFO, which takes root): what it
waits for is the gateway and the upstream, and not its own turn. Both cores are kept awake throughout.

    python3 load/slow_clients.py [seconds] [rounds]
"""

import os
import re
import statistics
import subprocess
import sys
import time

from common import Servers, Steady, awake, machine

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 12
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
CONNECTIONS = "1000"
PER_S = 1_000
BIG = 4 << 20
# How the slow ones behave: options of slowhttptest, and the path they ask for.
KINDS = [
    ("heads (slowloris)", ["-H", "-i", "2"], "/open/x"),
    ("bodies (R-U-Dead-Yet)", ["-B", "-i", "2", "-s", "8192"], "/open/whole"),
    ("ranges (Apache killer)", ["-R", "-a", "0", "-b", "3000"], "/open/x"),
    ("reads", ["-X", "-w", "1", "-y", "10", "-n", "2", "-z", "32", "-k", "1"], "/open/big"),
]


def memory_kib(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"{what}:\s+(\d+)", f.read()).group(1))


def beside(good, address, options, path):
    """What the good client saw while slow ones were at an address, and how these ended."""
    slow = subprocess.Popen(
        ["chrt", "--idle", "0", "taskset", "-c", "1", "slowhttptest", "-c", CONNECTIONS, "-r", "500",
         "-l", str(SECONDS), "-u", f"http://{address}{path}", *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(SECONDS / 4)
    seen = good.during(lambda: time.sleep(SECONDS / 2))[0]
    told = re.sub(r"\x1b\[[\d;]*m", "", slow.communicate(timeout=SECONDS + 60)[0])
    ended = re.search(r"Exit status: (.*)", told)
    return seen["p99_ms"], seen["requests"], seen["failed"], ended.group(1) if ended else ""


def round_of(gateway, other, good, name, options, path):
    """The good client's p99 beside slow ones of a kind, in multiples of that without any, and of that
    while they are elsewhere."""
    pid = gateway.process.pid
    time.sleep(3)  # Those of the kind before have left.
    alone = good.during(lambda: time.sleep(SECONDS / 2))[0]
    elsewhere, _, failed, _ = beside(good, other, options, path)
    rss = memory_kib(pid, "VmRSS")
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")  # The peak begins anew.
    p99, count, failed_beside, ended = beside(good, gateway.proxy, options, path)
    failed += failed_beside + alone["failed"]
    ratios = p99 / alone["p99_ms"], p99 / elsewhere
    print(f"{name:24} p99 {alone['p99_ms']:.2f} ms, with them elsewhere {elsewhere:.2f}, beside them {p99:.2f} "
          f"({count} requests), x{ratios[0]:.2f} and x{ratios[1]:.2f}{', FAILED REQUESTS' * bool(failed)}; memory "
          f"{rss / 1024:.1f} MiB, at most {memory_kib(pid, 'VmHWM') / 1024:.1f}; the slow ones: {ended}", flush=True)
    return ratios


def main():
    print(f"# {machine()}; {CONNECTIONS} connections, {SECONDS} s each", flush=True)
    with Servers() as servers, awake():
        path = servers.path("files")
        with open(os.path.join(path, "big"), "wb") as f:
            f.write(b"x" * BIG)
        _, up = servers.nginx(
            "upstream", f"server {{ listen 127.0.0.1:PORT; location / {{ return 200 'ok'; }}"
            f" location /big {{ root {path}; }}"
            # Asks for nothing before it has the whole body.
            " location /whole { proxy_pass http://127.0.0.1:PORT/; } }", "1")
        _, other = servers.nginx(
            # Else it keeps what slow readers leave in files, which may be on their way to the disk still when
            # these are at the gateway.
            "other", f"server {{ listen 127.0.0.1:PORT sndbuf=64k; proxy_buffering off; "
            f"location /open/ {{ proxy_pass http://127.0.0.1:{up}/; }} }}", "0")
        other = f"127.0.0.1:{other}"
        gateway = servers.gateway("gateway", up, "0")
        good = Steady(gateway.proxy, "/open/x", PER_S, ["none"],
                      prefix=["taskset", "-c", "1", "chrt", "--fifo", "10"])
        time.sleep(2)
        ratios = {name: [] for name, *_ in KINDS}
        for _ in range(ROUNDS):
            for name, options, path in KINDS:
                ratios[name].append(round_of(gateway, other, good, name, options, path))
        for name, seen in ratios.items():
            alone, elsewhere = (statistics.median(ratios) for ratios in zip(*seen))
            print(f"{name:24} p99 beside them, median of {ROUNDS} rounds: x{alone:.2f} of that without any, "
                  f"x{elsewhere:.2f} of that with them elsewhere")
        good.end()
        print("cut off, by reason:", {
            reason: gateway.metric(f'turnpike_clients_cut_off_total{{reason="{reason}"}}')
            for reason in ["first_byte", "head", "untaken", "flood", "handshake"]})


if __name__ == "__main__":
    main()
