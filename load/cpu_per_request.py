#!/usr/bin/env python3
"""CPU microseconds per request of the gateway, and of nginx as a yardstick, in one interleaved run.

Needs nginx and wrk (Debian packages of those names) and target/release/turnpike. The proxy under
test has one thread on core 0; wrk and the upstream (nginx) share core 1. Everything is on loopback
and stops by itself. A round with one failed request is void.

    python3 load/cpu_per_request.py [rounds] [seconds]
"""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
SECONDS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECRET = "a-secret-of-the-load-test"
TICKS = os.sysconf("SC_CLK_TCK")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def nginx(folder, name, body, core):
    port = free_port()
    path = os.path.join(folder, name)
    os.makedirs(path)
    conf = os.path.join(path, "nginx.conf")
    with open(conf, "w") as f:
        f.write(
            f"daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;\n"
            "events { worker_connections 1024; }\n"
            "http { access_log off; keepalive_requests 100000000;\n"
            + body.replace("PORT", str(port)) + "}\n"
        )
    process = subprocess.Popen(["taskset", "-c", str(core), "nginx", "-p", path, "-c", conf])
    return process, port


def workers(pid):
    out = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [pid] + [int(p) for p in out.split()]


def cpu_s(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def call(admin, path, body):
    request = urllib.request.Request(
        f"http://{admin}/portal-api{path}", json.dumps(body).encode(), {"Authorization": SECRET}
    )
    with OPENER.open(request) as answer:
        return json.load(answer)["ID"]


def gateway(folder, upstream, access):
    path = os.path.join(folder, f"gateway-{access}")
    os.makedirs(path)
    log = os.path.join(path, "access.log") if access == "file" else "off"
    api = "[[apis]]\nid = \"{0}\"\nlisten_path = \"/{0}/\"\ntargets = [\"http://127.0.0.1:{1}\"]\n"
    with open(os.path.join(path, "turnpike.toml"), "w") as f:
        f.write(
            '[proxy]\nlisten = ["127.0.0.1:0"]\nthreads = 1\n'
            f'[admin]\nlisten = "127.0.0.1:0"\nsecret = "{SECRET}"\n'
            f'[log]\nfilter = "warn"\naccess = "{log}"\n'
            + api.format("open", upstream) + "keyless = true\n" + api.format("a", upstream)
        )
    process = subprocess.Popen(
        ["taskset", "-c", "0", f"{ROOT}/target/release/turnpike", "serve", "--config",
         f"{path}/turnpike.toml"],
        stdout=subprocess.PIPE, text=True,
    )
    bound = json.loads(process.stdout.readline())
    admin = bound["admin"]
    plan = call(admin, "/plans", {"Name": "p", "ProviderID": 1, "RateLimit": 100_000_000, "Per": 60,
                                  "Quota": 10_000_000_000, "QuotaRenewalRate": 86_400})
    product = call(admin, "/products", {"Name": "a", "ProviderID": 1, "IsDocumentationOnly": False,
                                        "APIDetails": [{"APIID": "a"}]})
    app = call(admin, "/apps", {"Name": "a", "UserID": 1})
    call(admin, f"/apps/{app}/custom_credentials", {
        "Alias": "load", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "AuthenticationMethod": "authToken",
        "AuthTokenType": "AUTH_TOKEN_CUSTOM", "KeyID": "LEG-00fa-91c2-77aa", "PlanID": plan,
        "ProductIDs": [product]})
    return process, bound["proxy"][0]


def measure(pid, url):
    pids = workers(pid)
    before = cpu_s(pids)
    out = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{SECONDS}s", "--latency",
         "-H", "X-API-Key: LEG-00fa-91c2-77aa", url],
        capture_output=True, text=True, check=True,
    ).stdout
    used = cpu_s(pids) - before
    if "Non-2xx" in out or "Socket errors" in out:
        return None, out
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    p99 = re.search(r"99%\s+(\S+)", out).group(1)
    return (used / requests * 1e6, requests / SECONDS, p99), out


def main():
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            up, up_port = nginx(folder, "upstream",
                                "server { listen 127.0.0.1:PORT; location / { return 200 'ok'; } }", 1)
            started.append(up)
            proxy, proxy_port = nginx(
                folder, "yardstick",
                f"upstream u {{ server 127.0.0.1:{up_port}; keepalive 64; }}\n"
                "server { listen 127.0.0.1:PORT; location / { proxy_pass http://u;"
                " proxy_http_version 1.1; proxy_set_header Connection ''; } }", 0)
            started.append(proxy)
            quiet, quiet_at = gateway(folder, up_port, "off")
            started.append(quiet)
            logged, logged_at = gateway(folder, up_port, "file")
            started.append(logged)
            cases = [
                ("nginx, passthrough", proxy.pid, f"http://127.0.0.1:{proxy_port}/x"),
                ("turnpike, keyless", quiet.pid, f"http://{quiet_at}/open/x"),
                ("turnpike, token + rate + quota", quiet.pid, f"http://{quiet_at}/a/x"),
                ("turnpike, the same, access log to a file", logged.pid, f"http://{logged_at}/a/x"),
            ]
            results = {name: [] for name, _, _ in cases}
            for _ in range(ROUNDS):
                for name, pid, url in cases:
                    got, out = measure(pid, url)
                    if got is None:
                        print(f"void: {name}\n{out}")
                        continue
                    results[name].append(got)
            for name, rows in results.items():
                cpu = sorted(row[0] for row in rows)
                rate = statistics.median(row[1] for row in rows)
                print(f"{name:42} {statistics.median(cpu):6.1f} us/request "
                      f"(min {cpu[0]:.1f}, max {cpu[-1]:.1f}), {rate:7.0f} requests/s, "
                      f"p99 {', '.join(row[2] for row in rows)}")
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(20)


main()
