#!/usr/bin/env python3
"""CPU microseconds per request of the gateway, on both stores, and of nginx as a yardstick, in one
interleaved run.

Needs nginx, wrk and redis-server (Debian packages of those names) and target/release/turnpike. The
proxy under test has one thread on core 0; wrk, the upstream (nginx) and Redis share core 1.
Everything is on loopback and stops by itself. A round with one failed request is void.

    python3 load/cpu_per_request.py [rounds] [seconds] [name=binary ...]

With binaries, those are measured against each other, before and after a change, say, and only
what passes through them. Many short rounds (25 of 1 s) tell more on a noisy machine: the ratios are of
neighbours in time.
"""

import re
import statistics
import subprocess
import sys

from common import Servers, cpu_s, machine, redis_section, workers

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
BINARIES = dict(argument.split("=", 1) for argument in sys.argv[3:])
TOKEN = "LEG-00fa-91c2-77aa"
PLAN = {"RateLimit": 100_000_000, "Per": 60, "Quota": 10_000_000_000, "QuotaRenewalRate": 86_400}


def measure(pid, url, others=()):
    pids = workers(pid)
    before, before_others = cpu_s(pids), cpu_s(others)
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{SECONDS}s", "--latency",
         "-H", f"X-API-Key: {TOKEN}", url],
        capture_output=True, text=True, check=True,
    ).stdout
    used, used_others = cpu_s(pids) - before, cpu_s(others) - before_others
    if "Non-2xx" in out or "Socket errors" in out:
        return None, out
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    p99 = float(p99) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]
    return (used / requests * 1e6, requests / SECONDS, p99, used_others / requests * 1e6), out


def passing(name, gateway):
    """Two cases: what anybody may call, and what takes a token and two limits."""
    gateway.import_token(TOKEN, *gateway.open_app("load", PLAN))
    pid, url = gateway.process.pid, f"http://{gateway.proxy}"
    return [(f"{name}, keyless", pid, f"{url}/open/x", ()),
            (f"{name}, token + rate + quota", pid, f"{url}/a/x", ())]


def one_binary(servers, up):
    yardstick, yardstick_port = servers.nginx(
        "yardstick",
        f"upstream u {{ server 127.0.0.1:{up}; keepalive 64; }}\n"
        "server { listen 127.0.0.1:PORT; location / { proxy_pass http://u;"
        " proxy_http_version 1.1; proxy_set_header Connection ''; } }", "0")
    redis, redis_port = servers.redis("1")
    logged = servers.gateway("logged", up, "0", access="access.log")
    shared = servers.gateway("shared", up, "0", store=redis_section(redis_port))
    for gateway in [logged, shared]:
        gateway.import_token(TOKEN, *gateway.open_app("load", PLAN))
    return [
        ("nginx, passthrough", yardstick.pid, f"http://127.0.0.1:{yardstick_port}/x", ()),
        *passing("turnpike", servers.gateway("quiet", up, "0")),
        ("turnpike, the same on Redis", shared.process.pid, f"http://{shared.proxy}/a/x",
         (redis.pid,)),
        ("turnpike, access log to a file", logged.process.pid, f"http://{logged.proxy}/a/x", ()),
    ]


def main():
    print(f"# {machine()}; {ROUNDS} rounds of {SECONDS} s")
    with Servers() as servers:
        up = servers.upstream("1")
        binaries = [passing(name, servers.gateway(name, up, "0", binary=binary))
                    for name, binary in BINARIES.items()]
        cases = [case for kind in zip(*binaries) for case in kind] or one_binary(servers, up)
        results = {name: [] for name, *_ in cases}
        for round_ in range(ROUNDS):
            # Every other round in the other direction: no case always follows the same one.
            for name, pid, url, others in cases[:: 1 if round_ % 2 == 0 else -1]:
                got, out = measure(pid, url, others)
                if got is None:
                    print(f"void: {name}\n{out}")
                    continue
                results[name].append(got)
        for name, rows in results.items():
            cpu = sorted(row[0] for row in rows)
            rate = statistics.median(row[1] for row in rows)
            server = statistics.median(row[3] for row in rows)
            print(f"{name:42} {statistics.median(cpu):6.1f} us/request "
                  f"(min {cpu[0]:.1f}, max {cpu[-1]:.1f}), {rate:7.0f} requests/s, "
                  f"p99 {statistics.median(row[2] for row in rows):.2f} ms"
                  + (f"; redis-server {server:.2f} us/request" if server else ""))
        for first, *others in zip(*binaries):
            for other in others:
                pairs = zip(results[first[0]], results[other[0]])
                low, middle, high = statistics.quantiles(b[0] / a[0] for a, b in pairs)
                print(f"{other[0]:42} x{middle:.3f} of {first[0]} (quartiles x{low:.3f}, x{high:.3f})")


if __name__ == "__main__":
    main()
