#!/usr/bin/env python3
"""The cases of tests/it/http1_cases.toml once more, with h11 (PyPI) on both sides of the gateway, and then
with h2 (PyPI) behind it: what the client gets and what the upstream sees is read by parsers that are neither
the gateway's nor the tests'.

    pip install h11 h2; load/conformance.py [path of turnpike]
"""

import json
import re
import socket
import subprocess
import sys
import threading
import tomllib

import h11
import h2.config
import h2.connection
import h2.events
import h2.exceptions

import common

CASES = f"{common.ROOT}/tests/it/http1_cases.toml"
OWN = ["host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"]
PROBE = b"GET /probe HTTP/1.1\r\nHost: gw\r\n\r\n"
HASTY = "first_byte_timeout_ms = 500\nhead_timeout_ms = 500\nkeep_alive_ms = 500"


class Upstream:
    """Answers 200 and keeps what it was sent."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.seen, self.faults = [], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        http = h11.Connection(h11.SERVER)
        request, body = None, b""
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(stream.recv(65536))
                elif isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self.seen.append(spelled(request, body, event.headers))
                    for answer in (
                        h11.Response(status_code=200, headers=[("Content-Length", "0")]),
                        h11.EndOfMessage(),
                    ):
                        stream.sendall(http.send(answer))
                    http.start_next_cycle()
                else:
                    return
        except h11.RemoteProtocolError as fault:
            # A request that was cut off is none; anything else is a fault.
            if "peer unexpectedly closed" not in str(fault) and "without sending" not in str(fault):
                self.faults.append(str(fault))
        except OSError:
            pass

    def taken(self):
        seen, self.seen = self.seen, []
        return seen

    @staticmethod
    def expected(request):
        return request


class Upstream2(Upstream):
    """The same over HTTP/2, by prior knowledge."""

    def serve(self, stream):
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        http = h2.connection.H2Connection(config)
        http.initiate_connection()
        requests = {}
        try:
            stream.sendall(http.data_to_send())
            while data := stream.recv(65536):
                for event in http.receive_data(data):
                    request = requests.get(getattr(event, "stream_id", None))
                    if isinstance(event, h2.events.RequestReceived):
                        requests[event.stream_id] = [event.headers, b"", []]
                    elif isinstance(event, h2.events.DataReceived):
                        request[1] += event.data
                        http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    elif isinstance(event, h2.events.TrailersReceived):
                        request[2] = event.headers
                    elif isinstance(event, h2.events.StreamEnded):
                        self.seen.append(spelled2(*request))
                        http.send_headers(event.stream_id, [(":status", "200"), ("content-length", "0")], True)
                stream.sendall(http.data_to_send())
        except h2.exceptions.ProtocolError as fault:
            self.faults.append(repr(fault))
        except OSError:
            pass

    @staticmethod
    def expected(request):
        """What belongs to connections of HTTP/1.1 does not go on; that there is no body needs no word."""
        gone = ("connection: ", "upgrade: ", "transfer-encoding: ", "content-length: 0")
        return " | ".join(word for word in request.split(" | ") if not word.startswith(gone))


def spelled2(headers, body, trailers):
    """A request over HTTP/2 as the table has it."""
    pseudo = {n: v for n, v in headers if n.startswith(b":")}
    plain = [(b"host", pseudo[b":authority"])] + [h for h in headers if not h[0].startswith(b":")]
    plain = [h for h in plain if h != (b"content-length", b"0")]
    request = h11.Request(method=pseudo[b":method"], target=pseudo[b":path"], headers=plain)
    return spelled(request, body, trailers)


def spelled(request, body, trailers):
    """A request as the table has it."""
    headers = [(n.decode(), v.decode("latin-1")) for n, v in request.headers]
    own = sorted(n for n, _ in headers if n in OWN)
    rest = sorted((h for h in headers if h[0] not in OWN), key=lambda h: h[0])
    words = [f"{request.method.decode()} {request.target.decode()}"]
    words += [f"{n}: {v}" for n, v in rest]
    words += [f"= {body.decode('latin-1')}"] if body else []
    words += [f"~ {n.decode()}: {v.decode('latin-1')}" for n, v in trailers]
    return " | ".join(words) if own == OWN else f"not each of {OWN} once: {own}"


def repeated(text):
    return re.sub(r"<((?:.|\n)*?)\*(\d+)>", lambda m: m[1] * int(m[2]), text).encode("latin-1")


def answer(stream, ahead, method):
    """The next answer's status, and what was read too far."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    http.send(h11.Request(method=method, target="/", headers=[("Host", "gw")]))
    http.send(h11.EndOfMessage())
    if ahead:
        http.receive_data(ahead)
    status, ended = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            ended = stream.recv(65536)
            http.receive_data(ended)
        elif isinstance(event, h11.InformationalResponse):
            return event.status_code, http.trailing_data[0]
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return status, http.trailing_data[0]
        elif isinstance(event, h11.ConnectionClosed):
            return None, b""


def speak(port, send, statuses, end):
    """What is not as the case says."""
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(20)
        try:
            stream.sendall(send)
        except OSError:
            pass
        method = send.split(b" ")[0] if send[:5] == b"HEAD " else b"GET"
        got, ahead = [], b""
        try:
            while len(got) < len(statuses):
                status, ahead = answer(stream, ahead, method)
                got.append(status)
            if got != statuses:
                return f"answered {got}"
            if end == "keeps":
                stream.sendall(PROBE)
                status, _ = answer(stream, ahead, b"GET")
                return None if status == 200 else f"then {status}"
            rest = ahead + stream.recv(65536)
        except ConnectionResetError:
            return None if got == statuses and end == "closes" else f"reset after {got}"
        except (OSError, h11.ProtocolError) as fault:
            return f"{fault} after {got}"
        return f"and then {rest}" if rest else None


def gateway(servers, upstream, binary, name, proxy, api):
    path = servers.path(name)
    with open(f"{path}/turnpike.toml", "w") as f:
        f.write(
            f'[proxy]\nlisten = ["127.0.0.1:0"]\n{proxy}\n'
            f'[admin]\nlisten = "127.0.0.1:0"\nsecret = "{common.SECRET}"\n'
            f'[[apis]]\nid = "open"\nlisten_path = "/"\nkeyless = true\nbody_bytes_max = 100000\n{api}\n'
            f'targets = ["http://127.0.0.1:{upstream.port}"]\n'
            f'[[apis]]\nid = "a"\nlisten_path = "/api/"\ntargets = ["http://127.0.0.1:{upstream.port}"]\n'
        )
    process = servers.start("0-1", binary, "serve", "--config", f"{path}/turnpike.toml",
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return int(json.loads(process.stdout.readline())["proxy"][0].rsplit(":", 1)[1])


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else common.BINARY
    with open(CASES, "rb") as f:
        table = tomllib.load(f)
    odd = check(table, binary, Upstream(), "")
    print(f"{sum(map(len, table.values()))} cases, {odd} odd; h11 {h11.__version__}")
    odd2 = check(table, binary, Upstream2(), "http2 = true")
    print(f"the same with HTTP/2 upstream, {odd2} odd; h2 {h2.__version__}")
    return 1 if odd or odd2 else 0


def check(table, binary, upstream, api):
    """How many cases are not as they should be."""
    odd = []
    with common.Servers() as servers:
        usual = gateway(servers, upstream, binary, "usual", "", api)
        hasty = gateway(servers, upstream, binary, "hasty", HASTY, f"{api}\nidle_timeout_ms = 500")
        for group, rows in table.items():
            for name, send, outcome, *saw in rows:
                *statuses, end = outcome.split()
                port = hasty if group == "slow" else usual
                fault = speak(port, repeated(send), [int(s) for s in statuses], end)
                expect = [upstream.expected(s) for s in saw] + ["GET /probe"] * (end == "keeps")
                seen = upstream.taken()
                if fault or seen != expect:
                    odd.append(f"{group}: {name}: {fault or 'as it should be'}; saw {seen}")
    odd += [f"the upstream could not read: {fault}" for fault in upstream.faults]
    for line in odd:
        print(line)
    return len(odd)


if __name__ == "__main__":
    sys.exit(main())
