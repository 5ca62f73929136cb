#!/usr/bin/env python3
"""Requests at a steady pace, and how long each took: one that finds all connections waiting for the
server is late by its fault, and counts from the moment it was due.

Speaks over standard input: `begin` forgets what was measured, `end` prints it as one line of JSON.
Ends with its standard input.

    python3 load/steady.py 127.0.0.1:8080 /a/x requests_per_second < /dev/tty   # tokens in TOKENS
"""

import collections
import gc
import json
import os
import select
import socket
import sys
import time

CONNECTIONS = 64
DEADLINE_S = 10


class Connection:
    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(DEADLINE_S)
        self.due = None


class Steady:
    def __init__(self, host, port, path, per_s, tokens):
        # Used in turn: none is idle for so long that the server closes it.
        self.idle = collections.deque(Connection((host, int(port))) for _ in range(CONNECTIONS))
        self.by_fd = {one.socket.fileno(): one for one in self.idle}
        self.requests = [
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {token}\r\n\r\n".encode()
            for token in tokens]
        self.every = 1 / per_s
        self.latencies, self.failed, self.sent = [], 0, 0
        self.poll = select.epoll()
        for fd in self.by_fd:
            self.poll.register(fd, select.EPOLLIN)
        self.poll.register(0, select.EPOLLIN | select.EPOLLHUP)

    def run(self):
        due, held_up = time.monotonic(), False
        while True:
            now = time.monotonic()
            while due <= now and self.idle:
                connection = self.idle.popleft()
                # A timer of ours that is late is not the server's fault.
                connection.due = due if held_up else time.monotonic()
                connection.socket.sendall(self.requests[self.sent % len(self.requests)])
                self.sent += 1
                due += self.every
            held_up = not self.idle
            wait = 1 if held_up else max(0, due - time.monotonic())
            for fd, _ in self.poll.poll(wait):
                if fd == 0:
                    if not self.obey():
                        return
                else:
                    self.take(self.by_fd[fd])

    def take(self, connection):
        answer = connection.socket.recv(4096)
        now = time.monotonic()
        if not answer:
            raise SystemExit("a connection ended")
        self.latencies.append(now - connection.due)
        self.failed += not answer.startswith(b"HTTP/1.1 200")
        self.idle.append(connection)

    def obey(self):
        word = os.read(0, 64).decode().strip()
        if word == "end":
            print(json.dumps(self.summary()), flush=True)
        if word:
            self.latencies, self.failed = [], 0
        return word != ""

    def summary(self):
        ordered = sorted(self.latencies)
        at = {f"p{p}_ms": round(ordered[int(len(ordered) * p / 100)] * 1e3, 3)
              for p in (50, 99, 99.9)} if ordered else {}
        return {"requests": len(ordered), "failed": self.failed, **at,
                "max_ms": round(ordered[-1] * 1e3, 3) if ordered else None}


def main():
    host, port = sys.argv[1].split(":")
    tokens = os.environ["TOKENS"].split(",")
    gc.disable()
    try:
        # What measures must not wait behind what is measured.
        os.nice(-5)
    except PermissionError:
        print("measuring without priority", file=sys.stderr)
    Steady(host, port, sys.argv[2], float(sys.argv[3]), tokens).run()


if __name__ == "__main__":
    main()
