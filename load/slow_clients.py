#!/usr/bin/env python3
"""What 1,000 slow clients of each of slowhttptest's kinds cost a good one: its p99 beside them, and before;
and the gateway's memory.

Needs nginx, wrk and slowhttptest (Debian packages of those names) and target/release/turnpike. The gateway
has one thread on core 0; the upstream, the good client and the slow ones share core 1.

    python3 load/slow_clients.py [seconds]
"""

import os
import re
import subprocess
import sys
import time

from common import Servers, machine

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
CONNECTIONS = "1000"
BIG = 4 << 20
# How the slow ones behave: options of slowhttptest, and the path they ask for.
KINDS = [
    ("heads (slowloris)", ["-H", "-i", "2"], "/open/x"),
    ("bodies (R-U-Dead-Yet)", ["-B", "-i", "2", "-s", "8192"], "/open/whole"),
    ("ranges (Apache killer)", ["-R", "-a", "0", "-b", "3000"], "/open/x"),
    ("reads", ["-X", "-w", "1", "-y", "10", "-n", "2", "-z", "32", "-k", "1"], "/open/big"),
]


def p99_ms(url):
    """Of a client that is not slow, on 8 connections."""
    out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", "-c8", f"-d{SECONDS // 2}s", "--latency", url],
                         capture_output=True, text=True, check=True).stdout
    failed = "Non-2xx" in out or "Socket errors" in out
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    requests = re.search(r"(\d+) requests in", out).group(1)
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit], failed, int(requests)


def memory_kib(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"{what}:\s+(\d+)", f.read()).group(1))


def main():
    print(f"# {machine()}; {CONNECTIONS} connections, {SECONDS} s each")
    with Servers() as servers:
        path = servers.path("files")
        with open(os.path.join(path, "big"), "wb") as f:
            f.write(b"x" * BIG)
        _, up = servers.nginx(
            "upstream", f"server {{ listen 127.0.0.1:PORT; location / {{ return 200 'ok'; }}"
            f" location /big {{ root {path}; }}"
            # Asks for nothing before it has the whole body.
            " location /whole { proxy_pass http://127.0.0.1:PORT/; } }", "1")
        gateway = servers.gateway("gateway", up, "0")
        url, pid = f"http://{gateway.proxy}/open/x", gateway.process.pid
        p99_ms(url)
        for name, options, path in KINDS:
            usual, failed, count = p99_ms(url)
            rss = memory_kib(pid, "VmRSS")
            with open(f"/proc/{pid}/clear_refs", "w") as f:
                f.write("5")  # The peak begins anew.
            slow = subprocess.Popen(
                ["taskset", "-c", "1", "slowhttptest", "-c", CONNECTIONS, "-r", "500", "-l", str(SECONDS),
                 "-u", f"http://{gateway.proxy}{path}", *options],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            time.sleep(SECONDS / 4)
            held = gateway.metric("turnpike_connections")
            beside, failed_beside, count_beside = p99_ms(url)
            told = slow.communicate(timeout=SECONDS + 60)[0]
            told = re.sub(r"\x1b\[[\d;]*m", "", told)
            last = {key: value for key, value in re.findall(
                r"(closed|connected|error|pending):\s+(\d+)", told)}
            ended = re.search(r"Exit status: (.*)", told)
            print(f"{name:24} p99 {usual:.2f} ms ({count} requests), beside them {beside:.2f} ms "
                  f"({count_beside}), x{beside / usual:.2f}{', FAILED REQUESTS' * (failed or failed_beside)}; "
                  f"{held:.0f} connections held; memory {rss / 1024:.1f} MiB, at most "
                  f"{memory_kib(pid, 'VmHWM') / 1024:.1f}; slow ones at the end: {last}, "
                  f"{ended.group(1) if ended else ''}")
        print("cut off, by reason:", {
            reason: gateway.metric(f'turnpike_clients_cut_off_total{{reason="{reason}"}}')
            for reason in ["first_byte", "head", "untaken", "flood", "handshake"]})


if __name__ == "__main__":
    main()
