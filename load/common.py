"""What the load scripts share: servers on loopback that stop with the script, and CPU time."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = f"{ROOT}/target/release/turnpike"
SECRET = "a-secret-of-the-load-test"
NUMBERS = itertools.count(1)
TICKS = os.sysconf("SC_CLK_TCK")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def idly(*commands):
    """Runs what everybody else is put before (SCHED_IDLE); ends it on the way out."""
    started = [subprocess.Popen(["chrt", "--idle", "0", *command]) for command in commands]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def awake():
    """Keeps all cores awake: to wake one of a virtual machine from its sleep takes a millisecond, often several,
    and a server with little to do would be measured by that."""
    spin = [sys.executable, "-c", "while True: pass"]
    return idly(*(["taskset", "-c", str(core), *spin] for core in range(os.cpu_count())))


class Servers:
    """Starts servers in a temporary folder; ends them, in reverse order, on the way out."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        # Workers of nginx are nobody, and read files in it.
        os.chmod(self.folder.name, 0o755)
        self.started = []
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self.folder.cleanup()

    def path(self, name):
        path = os.path.join(self.folder.name, name)
        os.makedirs(path)
        return path

    def start(self, core, *command, **options):
        process = subprocess.Popen(["taskset", "-c", core, *command], **options)
        self.started.append(process)
        return process

    def nginx(self, name, body, core):
        """A server of nginx; `PORT` in its body is where it listens."""
        port, path = free_port(), self.path(name)
        conf = os.path.join(path, "nginx.conf")
        with open(conf, "w") as f:
            f.write(
                f"daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;\n"
                "events { worker_connections 4096; }\n"
                "http { access_log off; keepalive_requests 100000000;\n"
                + body.replace("PORT", str(port)) + "}\n"
            )
        return self.start(core, "nginx", "-p", path, "-c", conf), port

    def upstream(self, core):
        body = "server { listen 127.0.0.1:PORT; location / { return 200 'ok'; } }"
        return self.nginx("upstream", body, core)[1]

    def redis(self, core, name="redis", *arguments):
        """A redis-server without files, as its default `appendonly no` is."""
        port, path = free_port(), self.path(name)
        process = self.start(
            core, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--dir", path, *arguments, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if "Ready to accept" in line:
                return process, port
        raise SystemExit("redis-server does not start")

    def gateway(self, name, upstream, core, store="", access="off", binary=BINARY, threads=1,
                log="error"):
        """A gateway with the APIs `open` (keyless) and `a`."""
        path = self.path(name)
        api = ("[[apis]]\nid = \"{0}\"\nlisten_path = \"/{0}/\"\n"
               "targets = [\"http://127.0.0.1:{1}\"]\n")
        with open(os.path.join(path, "turnpike.toml"), "w") as f:
            f.write(
                f'[proxy]\nlisten = ["127.0.0.1:0"]\nthreads = {threads}\n'
                f'[admin]\nlisten = "127.0.0.1:0"\nsecret = "{SECRET}"\n'
                f'[log]\nfilter = "{log}"\naccess = "{access}"\n{store}'
                + api.format("open", upstream) + "keyless = true\n" + api.format("a", upstream)
            )
        return self.serve(path, core, binary)

    def serve(self, path, core, binary=BINARY):
        """The gateway of a folder, once more if it ran before; its log is `log` in there."""
        with open(f"{path}/log", "a") as log:
            process = self.start(core, binary, "serve", "--config", f"{path}/turnpike.toml",
                                 stdout=subprocess.PIPE, stderr=log, text=True)
        line = process.stdout.readline()
        if not line:
            with open(f"{path}/log") as log:
                raise SystemExit(f"a gateway does not start: {log.read()}")
        bound = json.loads(line)
        return Gateway(process, path, bound["proxy"][0], bound["admin"])


class Steady:
    """`load/steady.py` at work: a good client that keeps its pace."""

    def __init__(self, address, path, per_s, tokens, prefix=()):
        self.process = subprocess.Popen(
            [*prefix, sys.executable, f"{ROOT}/load/steady.py", address, path, str(per_s)],
            env={**os.environ, "TOKENS": ",".join(tokens)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def during(self, work):
        """What its requests were like while something was done; what that gave, and how long it took."""
        self.say("begin")
        start = time.monotonic()
        gave = work()
        took = time.monotonic() - start
        self.say("end")
        return json.loads(self.process.stdout.readline()), gave, took

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def redis_section(port):
    return f'[store]\nkind = "redis"\nurls = ["redis://127.0.0.1:{port}/0"]\n'


class Gateway:
    def __init__(self, process, path, proxy, admin):
        self.process, self.path, self.proxy, self.admin = process, path, proxy, admin

    def ask(self, path, body=None):
        """The bytes the admin listener answers with."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self.admin}{path}"
        try:
            with OPENER.open(urllib.request.Request(url, data, {"Authorization": SECRET})) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error.code} {error.read().decode()}") from error

    def call(self, path, body):
        """Makes an object through the portal's API; its number."""
        return json.loads(self.ask(f"/portal-api{path}", body))["ID"]

    def open_app(self, name, plan):
        """A plan with these limits, a product of `a`, an app: what credentials need."""
        plan = self.call("/plans", {"Name": name, "ProviderID": 1, **plan})
        product = self.call("/products", {
            "Name": name, "ProviderID": 1, "IsDocumentationOnly": False,
            "APIDetails": [{"APIID": "a"}]})
        return self.call("/apps", {"Name": name, "UserID": 1}), plan, product

    def import_token(self, token, app, plan, product):
        return self.call(f"/apps/{app}/custom_credentials", {
            "Alias": f"token {next(NUMBERS)}", "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
            "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
            "KeyID": token, "PlanID": plan, "ProductIDs": [product]})

    def quota(self, credential):
        """What was used of a credential's quota, and the like."""
        limits = json.loads(self.ask(f"/v1/usage/credentials/{credential}"))["limits"]
        return next(limit for limit in limits if limit["kind"] == "quota")

    def metric(self, name):
        """The sum of a metric over its labels."""
        lines = self.ask("/metrics").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.startswith((name + "{", name + " ")))


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


def machine():
    """One line about where and of what a figure was measured."""
    with open("/proc/cpuinfo") as f:
        model = next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} cores of {model}, commit {commit}"
