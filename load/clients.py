#!/usr/bin/env python3
"""Clients that others wrote, against a gateway: curl, nghttp, h2load and openssl s_client, over HTTP/1.1
and HTTP/2, in plain text and in TLS, with upstreams of either version. Prints what each said, and ends with
1 when one said something else than it should.

Needs nginx, curl, nghttp2-client and openssl (Debian packages of those names) and target/release/turnpike.

    python3 load/clients.py
"""

import json
import os
import re
import subprocess
import sys

import common
from common import Servers, free_port, machine

BINARY = sys.argv[1] if len(sys.argv) > 1 else common.BINARY
ODD = []


def run(what, expect, *command, lines=None):
    """Runs a client; prints the lines that say something, and notes when `expect` is not among them."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    out = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    shown = [line.strip() for line in out.splitlines() if re.search(lines or expect, line)]
    fine = re.search(expect, out, re.M) is not None
    print(f"{'ok  ' if fine else 'ODD '} {what}: {' | '.join(shown[:6]) or out.strip()[:300]}")
    if not fine:
        ODD.append(what)


def certificate(folder, name):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "1", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"],
        check=True, capture_output=True)


def gateway(servers):
    path = servers.path("gateway")
    for name in ["a.example", "b.example"]:
        certificate(path, name)
    body = ("server {{ listen 127.0.0.1:PORT{}; client_max_body_size 100m;"
            " location / {{ return 200 'ok'; }} location /big {{ root {}; }}"
            # Answers when it has the whole body.
            " location /whole {{ proxy_pass http://127.0.0.1:{}/; }} }}")
    with open(f"{path}/big", "wb") as f:
        f.write(os.urandom(4 << 20))
    _, one = servers.nginx("one", body.format("", path, "PORT"), "1")
    _, two = servers.nginx("two", body.format(" http2", path, one), "1")
    api = '[[apis]]\nid = "{0}"\nlisten_path = "/{0}/"\nkeyless = true\ntargets = ["http://127.0.0.1:{1}"]\n{2}'
    with open(f"{path}/turnpike.toml", "w") as f:
        f.write(
            '[proxy]\nlisten = ["127.0.0.1:0"]\nthreads = 1\n'
            '[[proxy.listeners]]\nlisten = "127.0.0.1:0"\n'
            'certificates = ["a.example.pem", "b.example.pem"]\nkeys = ["a.example.key", "b.example.key"]\n'
            f'[admin]\nlisten = "127.0.0.1:0"\nsecret = "{common.SECRET}"\n'
            'certificates = ["a.example.pem"]\nkeys = ["a.example.key"]\ntls_version_min = "1.3"\n'
            '[log]\nfilter = "error"\naccess = "off"\n'
            + api.format("one", one, "") + api.format("two", two, "http2 = true\n")
            + api.format("closed", free_port(), ""))
    process = servers.start("0", BINARY, "serve", "--config", f"{path}/turnpike.toml",
                            stdout=subprocess.PIPE, text=True)
    bound = json.loads(process.stdout.readline())
    return path, [at.rsplit(":", 1)[1] for at in bound["proxy"] + [bound["admin"]]]


def curl(path, plain, tls):
    base = ["curl", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w",
            "HTTP/%{http_version} %{http_code} %{size_download} bytes\n"]
    secure = [*base, "--cacert", f"{path}/a.example.pem", "--resolve", f"a.example:{tls}:127.0.0.1"]
    for up in ["one", "two"]:
        url, https = f"http://127.0.0.1:{plain}/{up}", f"https://a.example:{tls}/{up}"
        run(f"curl, /{up}", r"HTTP/1.1 200 2 bytes", *base, "--http1.1", f"{url}/x")
        run(f"curl, /{up}, prior knowledge", r"HTTP/2 200 4194304", *base, "--http2-prior-knowledge",
            f"{url}/big")
        run(f"curl, /{up}, asks for h2c", r"HTTP/1.1 200 2 bytes", *base, "--http2", f"{url}/x")
        run(f"curl, /{up}, TLS", r"HTTP/2 200 4194304", *secure, "--http2", f"{https}/big")
        run(f"curl, /{up}, TLS and HTTP/1.1", r"HTTP/1.1 200 4194304", *secure, "--http1.1", f"{https}/big")
        run(f"curl, /{up}, uploads 4 MiB", r"HTTP/1.1 200", *base, "--http1.1", "-X", "POST", "-T",
            f"{path}/big", f"{url}/whole")
        run(f"curl, /{up}, uploads 4 MiB over HTTP/2", r"HTTP/2 200", *secure, "-X", "POST", "-T",
            f"{path}/big", f"{https}/whole")
    run("curl, a target that is away", r"HTTP/1.1 502", *base, "--http1.1",
        f"http://127.0.0.1:{plain}/closed/x")
    run("curl, HTTP/0.9", r"HTTP/1.1 200", *base, "--http0.9", f"http://127.0.0.1:{plain}/one/x")
    run("curl, 20 requests at once on one connection", r"(HTTP/2 200 2 bytes\s+){20}", *secure, "-Z",
        *[arg for _ in range(20) for arg in ["-o", "/dev/null", f"https://a.example:{tls}/two/x"]],
        lines=r"HTTP/2 200 2 bytes")


def nghttp(plain, tls):
    lines = r":status|GOAWAY|error_code|ALPN|HTTP Upgrade"
    run("nghttp, prior knowledge", r":status: 200", "nghttp", "-nv", f"http://127.0.0.1:{plain}/one/x",
        lines=lines)
    run("nghttp, TLS", r":status: 200", "nghttp", "-nv", f"https://127.0.0.1:{tls}/two/x", lines=lines)
    run("nghttp, upgrades to h2c", r"HTTP Upgrade failed", "nghttp", "-nvu",
        f"http://127.0.0.1:{plain}/one/x", lines=lines)
    run("nghttp, a padded upload with trailers", r":status: 200", "nghttp", "-nv", "-b", "64", "-d", __file__,
        "--trailer", "x-sum: 1", f"http://127.0.0.1:{plain}/two/x", lines=lines)


def openssl(tls, admin):
    def client(*options, port=tls):
        return ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]

    lines = r"subject=|Protocol *:|ALPN|New, |alert|Reused|Server Temp Key"
    for name in ["a.example", "b.example"]:
        run(f"openssl, asks for {name}", f"subject=CN = {name}", *client("-servername", name), lines=lines)
    run("openssl, asks for nobody", "subject=CN = a.example", *client("-noservername"), lines=lines)
    run("openssl, TLS 1.2", "New, TLSv1.2", *client("-tls1_2"), lines=lines)
    run("openssl, TLS 1.1", "alert|no protocols", *client("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"),
        lines=lines)
    run("openssl, ALPN h2", "ALPN protocol: h2", *client("-alpn", "h2,http/1.1"), lines=lines)
    run("openssl, ALPN of something else", "alert", *client("-alpn", "spdy/1"), lines=lines)
    run("openssl, resumes TLS 1.2", "Reused, TLSv1.2", *client("-tls1_2", "-reconnect"), lines=lines)
    run("openssl, the admin listener", "ALPN protocol: http/1.1", *client("-alpn", "h2,http/1.1", port=admin),
        lines=lines)
    run("openssl, the admin listener, TLS 1.2", "alert", *client("-tls1_2", port=admin), lines=lines)


def h2load(plain, tls):
    lines = r"finished in|requests:|status codes|time for request"
    expect = r"status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx"
    for up in ["one", "two"]:
        for what, options, url in [
            ("HTTP/1.1", ["--h1"], f"http://127.0.0.1:{plain}/{up}/x"),
            ("HTTP/2", ["-m", "20"], f"http://127.0.0.1:{plain}/{up}/x"),
            ("HTTP/2 and TLS", ["-m", "20"], f"https://127.0.0.1:{tls}/{up}/x"),
        ]:
            run(f"h2load, /{up}, {what}", expect, "taskset", "-c", "1", "h2load", "-n", "20000", "-c", "8",
                *options, url, lines=lines)


def main():
    print(f"# {machine()}")
    with Servers() as servers:
        path, (plain, tls, admin) = gateway(servers)
        curl(path, plain, tls)
        nghttp(plain, tls)
        openssl(tls, admin)
        h2load(plain, tls)
    print(f"{len(ODD)} odd")
    return 1 if ODD else 0


if __name__ == "__main__":
    sys.exit(main())
