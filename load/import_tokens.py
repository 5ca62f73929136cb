#!/usr/bin/env python3
"""The proof of the bulk import, on both stores: 100,000 lines with one wrong in a hundred, of every
code, tokens in the clear and as SHA-256 mixed, sent by `turnpike import`.

On each store:
1. The file is imported: counts, and every fault's line and code, are exact. Again: all unchanged.
2. Another gateway is killed (SIGKILL) in the middle of the same file, started again, and imports it
   again: every credential, as the listener shows it, is as on the first.
3. `rounds` times a steady 2,000 requests/s alone, beside an import of another file, and beside two processes
   that have nothing to do with the gateway and take what processor time is left (SCHED_IDLE): one
   hands the other 100 KB at a time, which remembers it, as a client and a store do. That is what being busy
   costs on this machine, whoever is. The cores are kept awake all the while.
4. No token, and no unsalted hash of one, lies in any log, report, metric, file of a store or list.

Needs nginx, redis-server (Debian packages of those names), chrt, root for its SCHED_FIFO (the steady client waits
for the gateway, and not for a turn of its own), and target/release/turnpike. Everything is
on loopback and stops by itself. A run with one failed request, or one wrong number, is void.

    python3 load/import_tokens.py [lines] [rounds] [seed] [embedded|redis]
"""

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time

from common import BINARY, SECRET, Servers, Steady, awake, cpu_s, idly, machine, redis_section
from import_file import Finder, ImportFile, token_of

LINES = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 5
STORES = sys.argv[4:] or ["embedded", "redis"]
PER_S = 2_000
ALONE_S = 8
CORES = "0-1023"
APPS = 20
PLAN = {"RateLimit": 100_000_000, "Per": 60, "Quota": 10_000_000_000, "QuotaRenewalRate": 86_400}
# What two gateways that did the same may show differently.
VARYING = ("ID", "CID", "CreatedAt", "UpdatedAt", "AccessRequest")


def check(what, got, expect):
    if got != expect:
        if isinstance(got, list):
            pairs = list(itertools.zip_longest(got, expect))
            at, (got, expect) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
            what = f"{what}, {at} of {len(pairs)}"
        raise SystemExit(f"void: {what}: {got} instead of {expect}")


class Place:
    """A gateway with what the lines of a file refer to."""

    def __init__(self, servers, name, upstream, store, pepper):
        self.servers = servers
        self.gateway = servers.gateway(
            name, upstream, CORES, store=f'{store}pepper_file = "{pepper}"\n',
            access="access.log", threads=0, log="info")
        call = self.gateway.call
        app, plan, product = self.gateway.open_app("robot", PLAN)
        self.used = [f"in-use-{n:04d}-LEG-" + "k" * 16 for n in range(100)]
        for token in self.used:
            self.gateway.import_token(token, app, plan, product)
        self.known = {
            "plan": plan, "plan_name": "robot", "product": product, "product_name": "robot",
            "documentation": call("/products", {"Name": "texts", "IsDocumentationOnly": True}),
            "used": self.used, "made": "made",
            "apps": [call("/apps", {"Name": f"app {n}", "UserID": 1}) for n in range(APPS)],
        }

    def file(self, name, seed, lines=LINES):
        return ImportFile(os.path.join(self.gateway.path, f"{name}.ndjson"), seed, lines, self.known)

    def command(self, file):
        plan, product = self.known["plan"], self.known["product"]
        command = [BINARY, "import", file.path, "--url", f"http://{self.gateway.admin}",
                   "--map", f"one={plan}:{product}", "--map", f"two={plan + 1}:{product}"]
        return {"args": command, "env": {"TURNPIKE_ADMIN__SECRET": SECRET}, "text": True,
                "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    def send(self, file, created, unchanged):
        """Imports a file; how long that took, in seconds. Everything it told must be right."""
        start = time.monotonic()
        done = subprocess.run(**self.command(file), check=False)
        took = time.monotonic() - start
        check(f"the exit code with {done.stdout}", done.returncode, 1)
        rows = dict(row.split() for row in done.stdout.splitlines() if len(row.split()) == 2)
        counts = [int(rows[name]) for name in
                  ("total", "created", "updated", "unchanged", "failed", "warnings")]
        check("counts", counts,
              [file.lines, created, 0, unchanged, len(file.faults), file.warned])
        with open(file.path + ".errors.ndjson") as errors:
            errors = [json.loads(line) for line in errors]
        told = [(e["line"], e["code"], e.get("first_line")) for e in errors if "warning" not in e]
        check("faults", told, file.told())
        with open(os.path.join(self.gateway.path, "told.txt"), "a") as told:
            told.write(done.stdout)
        return took

    def break_off(self, file):
        """Sends a file, and kills the gateway when a part of it is applied; how much was."""
        with subprocess.Popen(**self.command(file)) as sending:
            total = 0
            while total < file.lines // 3:
                time.sleep(0.005)
                imports = json.loads(self.gateway.ask("/v1/imports"))
                total = imports[0]["Total"] if imports else 0
            self.gateway.process.send_signal(signal.SIGKILL)
            self.gateway.process.wait()
            sending.communicate(timeout=60)
        check("the import was under way", (total < file.lines, sending.returncode), (True, 2))
        self.gateway = self.servers.serve(self.gateway.path, CORES)
        # It may have come up with its copy, and reach its store a moment later.
        while json.loads(self.gateway.ask("/v1/state/status"))["store"]["state"] != "up":
            time.sleep(0.01)
        return total

    def credentials(self):
        """All that were imported, as the listener shows them, by app and alias."""
        ask = self.gateway.ask
        apps = [app for app in json.loads(ask("/portal-api/apps?p=-2")) if app["Name"] != "robot"]
        all_ = {}
        for app in apps:
            for page in range(1, 1_000):
                path = f"/portal-api/apps/{app['ID']}/custom_credentials"
                rows = json.loads(ask(f"{path}?per_page=5000&page={page}"))
                for row in rows:
                    key = app["Name"], row["Alias"]
                    check(f"{key} is there once", key in all_, False)
                    all_[key] = {n: v for n, v in row.items() if n not in VARYING}
                if len(rows) < 5_000:
                    break
        return all_

    def enforced(self, file):
        """Tokens of good lines open what they should, those of wrong ones nothing."""
        for number, token, active in file.good[:: max(1, len(file.good) // 200)]:
            check(f"line {number}", self.status(token), 200 if active else 403)
        for token in file.wrong[:20]:
            check("a line with a fault", self.status(token), 403)

    def status(self, token):
        out = subprocess.run(
            ["curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "-H",
             f"X-API-Key: {token}", f"http://{self.gateway.proxy}/a/x"],
            capture_output=True, text=True, check=True).stdout
        return int(out)

    def memory_mib(self):
        """The most that the gateway has taken."""
        with open(f"/proc/{self.gateway.process.pid}/status") as f:
            line = next(line for line in f if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def grep(self, finder, folders):
        """Bytes looked at, none of which is part of a token."""
        looked = 0
        for path in self.written(folders):
            with open(path, "rb") as f:
                data = f.read()
            check(f"tokens in {path}", finder.found(data), 0)
            looked += len(data)
        paths = ["/metrics", "/v1/audit?limit=1000", "/v1/state/status", "/v1/imports"]
        for one in json.loads(self.gateway.ask("/v1/imports")):
            paths += [one["ErrorsURL"], one["ResultsURL"]]
        paths += [f"/portal-api/apps/{app}/custom_credentials?p=-2" for app in self.known["apps"]]
        for path in paths:
            data = self.gateway.ask(path)
            check(f"tokens in {path}", finder.found(data), 0)
            looked += len(data)
        return looked

    def written(self, folders):
        """The files of the gateway and in other folders, but for those that were imported."""
        for folder in [self.gateway.path, *folders]:
            for below, _, names in os.walk(folder):
                paths = (os.path.join(below, name) for name in names
                         if not name.endswith(".ndjson") or "errors" in name)
                # Sockets lie there, too.
                yield from filter(os.path.isfile, paths)


def during(steady, work):
    """What the steady requests were like while something was done; what that gave."""
    seen, gave, took = steady.during(work)
    check("failed requests", seen["failed"], 0)
    check("the pace was kept", abs(seen["requests"] / took / PER_S - 1) < 0.05, True)
    return seen, gave


NEIGHBOURS = """
import itertools, os, socket
here, there = socket.socketpair()
if os.fork() == 0:
    here.close()
    try:
        while not there.sendall(b"x" * 100_000) and there.recv(1):
            pass
    except OSError:
        pass
    os._exit(0)
there.close()
numbers, remembered = itertools.count(), {}
while True:
    left = 100_000
    while left:
        left -= len(here.recv(left))
    for number in itertools.islice(numbers, 300):
        remembered[number % 200_000] = str(number) * 8
    here.send(b"y")
"""


def neighbours():
    """Keeps others busy, who have nothing to do with the gateway."""
    with idly([sys.executable, "-c", NEIGHBOURS]):
        time.sleep(ALONE_S)


def beside(place, seed):
    """The p99 of a steady load with an import beside it, in multiples of that without, and of that beside
    others."""
    ratios, controls, files = [], [], []
    steady = Steady(place.gateway.proxy, "/a/x", PER_S, place.used, prefix=["chrt", "--fifo", "10"])
    time.sleep(2)
    for round_ in range(ROUNDS):
        # Lines of other rounds have taken the aliases of these.
        place.known["made"] = f"made in round {round_}"
        place.known["apps"] = [
            place.gateway.call("/apps", {"Name": f"app {round_} {n}", "UserID": 1})
            for n in range(APPS)]
        file = place.file(f"round-{round_}", seed + 1 + round_)
        files.append(file)
        alone = lambda: time.sleep(ALONE_S)
        both = lambda: place.send(file, len(file.good), 0)
        # Every other round the other way round: nothing always follows the same.
        if round_ % 2 == 0:
            quiet, _ = during(steady, alone)
            busy, took = during(steady, both)
            others, _ = during(steady, neighbours)
        else:
            others, _ = during(steady, neighbours)
            busy, took = during(steady, both)
            quiet, _ = during(steady, alone)
        ratios.append(busy["p99_ms"] / quiet["p99_ms"])
        controls.append(others["p99_ms"] / quiet["p99_ms"])
        print(f"  round {round_ + 1}: alone {quiet}\n    beside {busy}, import {took:.1f} s, p99 x {ratios[-1]:.2f}\n"
              f"    beside others {others}, p99 x {controls[-1]:.2f}", flush=True)
    steady.end()
    print(f"  p99 beside an import, median of {ROUNDS} rounds: x {statistics.median(ratios):.2f}; beside others: "
          f"x {statistics.median(controls):.2f}", flush=True)
    return files


def prove(servers, name, upstream, pepper, stores, folders):
    """`stores` are sections for two gateways, `folders` where their servers keep files."""
    print(f"# {name}")
    first = Place(servers, f"{name}-first", upstream, stores[0], pepper)
    file = first.file("tokens", SEED)
    before = cpu_s([first.gateway.process.pid])
    took = first.send(file, len(file.good), 0)
    cpu = cpu_s([first.gateway.process.pid]) - before
    again = first.send(file, 0, len(file.good))
    peak = first.memory_mib()
    print(f"  {LINES} lines, {len(file.good)} good, {len(file.faults)} wrong: {took:.1f} s, {cpu:.1f} s of CPU "
          f"({LINES / took:.0f} lines/s); again, all unchanged: {again:.1f} s; at most {peak:.0f} MiB", flush=True)
    first.enforced(file)

    second = Place(servers, f"{name}-second", upstream, stores[1], pepper)
    applied = second.break_off(file)
    done = subprocess.run(**second.command(file), check=False)
    check(f"the exit code with {done.stdout}", done.returncode, 1)
    expect, got = first.credentials(), second.credentials()
    check("credentials", len(expect), len(file.good))
    check("credentials after kill -9", sorted(got.items()), sorted(expect.items()))
    second.enforced(file)
    print(f"  killed after {applied} lines, done again: {len(got)} credentials are the same",
          flush=True)

    files = [file]
    if ROUNDS:
        with awake():
            files += beside(first, SEED)
    finder = Finder(files)
    looked = first.grep(finder, folders[0]) + second.grep(finder, folders[1])
    with open(file.path, "rb") as f:
        check("tokens are found where they are", LINES // 2 < finder.found(f.read()), True)
    print(f"  no token in {looked >> 20} MiB of logs, reports, metrics, stores and lists", flush=True)


def main():
    print(f"# {machine()}; {LINES} lines, seed {SEED}")
    with Servers() as servers:
        upstream = servers.upstream(CORES)
        pepper = os.path.join(servers.path("pepper"), "pepper")
        with open(pepper, "w") as f:
            f.write("7f" * 32)
        if "embedded" in STORES:
            embedded = ['[store]\nkind = "embedded"\n'] * 2
            prove(servers, "embedded", upstream, pepper, embedded, [[], []])
        if "redis" not in STORES:
            return
        redis = [servers.redis(CORES, f"redis-{n}", "--appendonly", "yes") for n in range(2)]
        folders = [[os.path.join(servers.folder.name, f"redis-{n}")] for n in range(2)]
        stores = [redis_section(port) for _, port in redis]
        prove(servers, "redis", upstream, pepper, stores, folders)


if __name__ == "__main__":
    main()
