#!/usr/bin/env python3
"""Calls to the counter store per million requests: three gateways on one redis-server.

A hot key at about 1,000 requests a second and at full speed, with a quota of 100 million; then
10,000 keys with one quota each, half a run and a whole run, to tell calls that grow with keys and
time from calls that grow with requests.

Needs nginx, wrk and redis-server (Debian packages of those names) and target/release/turnpike.
Everything is on loopback and stops by itself. A run with one failed request is void.

    python3 load/store_calls.py [seconds] [keys]
"""

import os
import re
import socket
import subprocess
import sys
import threading
import time

from common import Servers, machine, redis_section

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
KEYS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
GATEWAYS = 3
RESERVES = "turnpike_store_reserves_total"
QUOTA = {"UnlimitedRateLimit": True, "Quota": 100_000_000, "QuotaRenewalRate": 86_400}


class Paced(threading.Thread):
    """One keep-alive connection that sends so many requests a second."""

    def __init__(self, address, token, per_s, seconds):
        super().__init__()
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(10)
        self.request = f"GET /a/x HTTP/1.1\r\nHost: g\r\nX-API-Key: {token}\r\n\r\n".encode()
        self.per_s, self.seconds, self.sent, self.failed = per_s, seconds, 0, 0

    def run(self):
        start = time.monotonic()
        while self.sent < self.per_s * self.seconds:
            wait = start + self.sent / self.per_s - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.socket.sendall(self.request)
            answer = self.socket.recv(4096)
            self.failed += not answer.startswith(b"HTTP/1.1 200")
            self.sent += 1


def calls(gateways):
    return sum(gateway.metric(RESERVES) for gateway in gateways)


def report(name, requests, before, after, seconds, note=""):
    made = after - before
    print(f"{name:46} {requests:9d} requests in {seconds:3d} s ({requests / seconds:7.0f}/s), "
          f"{made:7.0f} calls: {made / requests * 1e6:8.0f} per million{note}", flush=True)


def paced(gateways, token, per_s, seconds):
    clients = [Paced(gateway.proxy, token, per_s / len(gateways), seconds) for gateway in gateways]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    failed = sum(client.failed for client in clients)
    if failed:
        raise SystemExit(f"void: {failed} requests failed")
    return sum(client.sent for client in clients)


def full_speed(gateways, seconds, connections, *arguments):
    runs = [subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *arguments, f"http://{gateway.proxy}/a/x"],
        stdout=subprocess.PIPE, text=True) for gateway in gateways]
    requests = 0
    for run in runs:
        out, _ = run.communicate(timeout=seconds + 60)
        if "Non-2xx" in out or "Socket errors" in out:
            raise SystemExit(f"void\n{out}")
        requests += int(re.search(r"(\d+) requests in", out).group(1))
    return requests


def many_keys(servers, gateways):
    """Each gateway sends for all keys, in an order of its own."""
    app = gateways[0].open_app("keys", {**QUOTA, "Quota": 1_000_000})
    for n in range(KEYS):
        gateways[0].import_token(f"key-of-the-load-{n:06d}", *app)
    script = os.path.join(servers.folder.name, "keys.lua")
    with open(script, "w") as f:
        f.write(
            "math.randomseed(os.time())\nlocal order = {}\n"
            f"for n = 1, {KEYS} do order[n] = n - 1 end\n"
            "for n = #order, 2, -1 do local m = math.random(n)\n"
            "  order[n], order[m] = order[m], order[n] end\n"
            "local at = 0\n"
            "function request()\n  at = at % #order + 1\n"
            "  local token = string.format('key-of-the-load-%06d', order[at])\n"
            "  return wrk.format('GET', nil, {['X-API-Key'] = token})\nend\n"
        )
    print(f"# {KEYS} keys")
    for seconds in [SECONDS, 2 * SECONDS]:
        before = calls(gateways)
        requests = full_speed(gateways, seconds, 8, "-s", script)
        after = calls(gateways)
        per_key = (after - before) / (KEYS * GATEWAYS)
        report(f"{KEYS} keys, full speed", requests, before, after, seconds,
               f", {per_key:.2f} per key and gateway, {per_key / seconds * 10:.2f} in 10 s")


def main():
    print(f"# {machine()}; {GATEWAYS} gateways, one redis-server")
    with Servers() as servers:
        up = servers.upstream("0-1023")
        _, port = servers.redis("0-1023")
        gateways = [servers.gateway(f"g{n}", up, "0-1023", store=redis_section(port))
                    for n in range(GATEWAYS)]
        app = gateways[0].open_app("hot", QUOTA)
        gateways[0].import_token("hot-key-of-the-load", *app)
        paced(gateways, "hot-key-of-the-load", 1_000, 5)
        before = calls(gateways)
        requests = paced(gateways, "hot-key-of-the-load", 1_050, SECONDS)
        report("hot key, 1,050 requests/s", requests, before, calls(gateways), SECONDS)
        before = calls(gateways)
        requests = full_speed(gateways, SECONDS, 16, "-H", "X-API-Key: hot-key-of-the-load")
        report("hot key, full speed", requests, before, calls(gateways), SECONDS)
        many_keys(servers, gateways)


if __name__ == "__main__":
    main()
