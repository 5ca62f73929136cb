#!/usr/bin/env python3
"""Change under a steady load: reloads, upgrades, targets that are killed and return.

Needs nginx and, for `redis`, redis-server (Debian packages of those names) and target/release/turnpike;
everything is on loopback and stops by itself. One in ten requests is a POST with a body, which is not
safe to repeat: only those that were in flight on a target when it was killed may fail. Every GET has to
be answered with 200, and every unit has to be counted once.

    python3 load/change.py [embedded|redis] [requests per second] [reloads] [upgrades] [kills]
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

from common import BINARY, SECRET, Gateway, Servers, free_port, machine, redis_section

STORE = sys.argv[1] if len(sys.argv) > 1 else "embedded"
RATE, RELOADS, UPGRADES, KILLS = [
    int(given) for given in sys.argv[2:] + ["2000", "20", "5", "6"][len(sys.argv[2:]):]]
CLIENTS = 100
QUOTA = 100_000_000
TOKEN = "LEG-00fa-91c2-77aa"
PLAN = {"UnlimitedRateLimit": True, "Quota": QUOTA, "QuotaRenewalRate": 86_400}
REPEATED = 'turnpike_upstream_retries_total{api="a",kind="repeated"}'
APPLIED = 'turnpike_config_reloads_total{result="applied"}'


class Target:
    """An nginx that can be killed and come back on its port."""

    def __init__(self, servers, name):
        self.servers, self.port, self.path = servers, free_port(), servers.path(name)
        with open(f"{self.path}/nginx.conf", "w") as f:
            # One process, so that a kill takes the connections along.
            f.write(f"daemon off; master_process off; pid {self.path}/pid;\n"
                    f"error_log {self.path}/error.log;\nevents {{ worker_connections 1024; }}\n"
                    f"http {{ access_log off; keepalive_requests 100000000;\n"
                    f"client_body_temp_path {self.path};\n"
                    f"server {{ listen 127.0.0.1:{self.port} backlog=4096;"
                    " location / { return 200 'ok'; } } }\n")
        self.start()

    def start(self):
        conf = f"{self.path}/nginx.conf"
        self.process = self.servers.start("0,1", "nginx", "-p", self.path, "-c", conf)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Load:
    """Clients that send at a steady pace over connections that they keep, or, some, do not."""

    def __init__(self, address):
        self.port, self.running = int(address.rsplit(":", 1)[1]), True
        self.answered, self.latencies, self.failures = 0, [], []
        self.phase = "steady"

    async def client(self, n):
        pause = CLIENTS / RATE
        due = time.monotonic() + pause * n / CLIENTS
        stream, sent = None, 0
        while self.running:
            await asyncio.sleep(max(0, due - time.monotonic()))
            due = max(due + pause, time.monotonic())
            method = "POST" if sent % 10 == 9 else "GET"
            sent += 1
            began = time.monotonic()
            try:
                if stream is None:
                    stream = await asyncio.open_connection("127.0.0.1", self.port)
                status, close = await asyncio.wait_for(self.exchange(stream, method), 15)
            except Exception as error:  # Whatever it is, a client saw it.
                self.failures.append((self.phase, method, repr(error)))
                stream = self.drop(stream)
                continue
            if status == 200:
                self.answered += 1
                self.latencies.append((time.monotonic() - began, self.phase))
            else:
                self.failures.append((self.phase, method, str(status)))
            if close or n % 10 == 0:
                stream = self.drop(stream)
        self.drop(stream)

    @staticmethod
    def drop(stream):
        if stream is not None:
            stream[1].close()

    async def exchange(self, stream, method):
        reader, writer = stream
        body = b"hello" if method == "POST" else b""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} /a/x HTTP/1.1\r\nHost: gw\r\nX-API-Key: {TOKEN}\r\n{length}\r\n"
        writer.write(head.encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        await reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split(" ")[1]), headers.get("connection") == "close"

    def report(self, seconds):
        rate = self.answered / seconds
        print(f"{self.answered} requests answered with 200 in {seconds:.0f} s ({rate:.0f}/s)")
        for phase in ["steady", "reload", "upgrade", "kill"]:
            took = sorted(latency for latency, in_phase in self.latencies if in_phase == phase)
            if took:
                at = [took[min(len(took) - 1, int(len(took) * q))] * 1e3 for q in (0.5, 0.99, 1)]
                print(f"  {phase:8} {len(took):7} requests, p50 {at[0]:.1f} ms, "
                      f"p99 {at[1]:.1f} ms, most {at[2]:.0f} ms")
        for failure in self.failures[:20]:
            print("  failed:", *failure)


class Changing(Gateway):
    """A gateway that reads another file, or that another process takes over from."""

    def __init__(self, servers, targets):
        self.servers, self.targets, self.path = servers, targets, servers.path("gateway")
        self.store = redis_section(servers.redis("0,1")[1]) if STORE == "redis" else ""
        self.log = os.path.join(self.path, "log")
        self.repeated = 0
        self.write(0)
        process = self.spawn()
        bound = json.loads(process.stdout.readline())
        super().__init__(process, self.path, bound["proxy"][0], bound["admin"])

    def write(self, version):
        urls = ", ".join(f'"http://127.0.0.1:{target.port}"' for target in self.targets)
        text = (
            '[proxy]\nlisten = ["127.0.0.1:0"]\nthreads = 1\n'
            f'[admin]\nlisten = "127.0.0.1:0"\nsecret = "{SECRET}"\n'
            f'[log]\nfilter = "info"\naccess = "off"\n{self.store}'
            f'[[apis]]\nid = "a"\nlisten_path = "/a/"\ntargets = [{urls}]\n'
            f'response_headers = {{ set = {{ X-Version = "{version}" }} }}\n'
            'health = { every_ms = 250, rise = 1, fall = 2 }\nejection = { base_ms = 1000 }\n')
        with open(f"{self.path}/new", "w") as f:
            f.write(text)
        os.rename(f"{self.path}/new", f"{self.path}/turnpike.toml")

    def spawn(self, *more):
        with open(self.log, "a") as log:
            return self.servers.start(
                "0,1", BINARY, "serve", "--config", f"{self.path}/turnpike.toml", *more,
                stdout=subprocess.PIPE, stderr=log, text=True)

    def reload(self, version):
        before = self.metric(APPLIED)
        self.write(version)
        self.process.send_signal(signal.SIGHUP)
        while self.metric(APPLIED) == before:
            time.sleep(0.02)

    def upgrade(self):
        self.repeated += self.metric(REPEATED)
        old, self.process = self.process, self.spawn("--upgrade")
        self.process.stdout.readline()
        assert old.wait(30) == 0


async def change(gateway, targets, load):
    """One change after the other; what is sent meanwhile is of its phase."""

    async def beside(phase, work, *arguments):
        load.phase = phase
        await asyncio.to_thread(work, *arguments)
        await asyncio.sleep(1.5)
        load.phase = "steady"
        await asyncio.sleep(1)

    await asyncio.sleep(3)
    for n in range(RELOADS):
        await beside("reload", gateway.reload, n + 1)
    for _ in range(UPGRADES):
        await beside("upgrade", gateway.upgrade)
    for n in range(KILLS):
        target = targets[n % len(targets)]
        await beside("kill", target.kill)
        await beside("kill", target.start)


def judge(gateway, load, quota):
    gets = [failure for failure in load.failures if failure[1] == "GET"]
    posts = [failure for failure in load.failures if failure[1] == "POST"]
    outside = [failure for failure in posts if failure[0] != "kill"]
    repeated = int(gateway.repeated + gateway.metric(REPEATED))
    charged, lost, held = quota["used"], quota["lost"], quota["held"]
    # A POST that failed on a killed target was charged too.
    expect = load.answered + repeated + len(posts)
    print(f"{RELOADS} reloads, {UPGRADES} upgrades, {KILLS} kills and returns of one of 3 targets")
    print(f"failed: {len(gets)} GET, {len(posts) - len(outside)} POST in flight on a killed target, "
          f"{len(outside)} other POST")
    print(f"units: {charged} charged, {expect} expected ({load.answered} answered, "
          f"{repeated} repeated, {len(posts)} failed POST); {lost} lost, {held} held")
    return not gets and not outside and charged == expect and lost == 0


async def main():
    print(f"# {machine()}; {STORE} store, {CLIENTS} clients, {RATE} requests/s")
    with Servers() as servers:
        targets = [Target(servers, f"target-{n}") for n in range(3)]
        gateway = Changing(servers, targets)
        credential = gateway.import_token(TOKEN, *gateway.open_app("load", PLAN))
        load, began = Load(gateway.proxy), time.monotonic()
        clients = [asyncio.create_task(load.client(n)) for n in range(CLIENTS)]
        await change(gateway, targets, load)
        load.running = False
        await asyncio.gather(*clients)
        load.report(time.monotonic() - began)
        return judge(gateway, load, gateway.quota(credential))


sys.exit(0 if asyncio.run(main()) else 1)
