#!/usr/bin/python3
"""Does to a daemon's ports what somebody without any right can do, and ends by itself.

    hostile_peer.py SECONDS CONTROL_PORT,... DATA_PORT,...

Floods of connections, half-open HTTP/2, garbage, large requests of empty messages, endless
metadata, metadata of one byte for kilobytes, slow ones, streams without end, made-up proofs: a
thread each, on 127.0.0.1, for SECONDS. What it was told goes to stdout as it is (a few MiB at
most), to stderr one line of JSON: how often it did what. Needs nothing but Python, and no file:
`flooded` runs it as another user.
"""

import collections
import itertools
import json
import os
import pathlib
import random
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = \
    0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SERVICE = "/siphon.v1.SiphonService/"
METHODS = ("Transfer", "Watch", "Stream", "Cancel", "List", "Verify", "Challenge", "Describe",
           "NoSuchMethod")
MOST_HEARD = 4 << 20

# For the tests. How long their floods last: SIPHON_TEST_FLOOD_SECONDS=300 makes it five minutes.
FLOOD_S = float(os.environ.get("SIPHON_TEST_FLOOD_SECONDS", "12"))
# What docs/operations.md promises, with the 64 MiB in which the bytes in flight are. Several times
# of it under a sanitizer, which keeps what was freed and puts more beside what is not.
SANITIZED = (pathlib.Path(os.environ.get("SIPHON_BIN_DIR", ".")).parent / "reports").is_dir()
BOUND_BYTES = (2048 if SANITIZED else 256) << 20

# A TransferRequest of 4 million extents, two bytes each, as gRPC has it.
EMPTY_MESSAGES = b"\0" + struct.pack(">I", 8 << 20) + b"\x2a\x00" * (4 << 20)

over = threading.Event()
done = collections.Counter()
heard = []
heard_bytes = 0
lock = threading.Lock()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + \
        struct.pack(">I", stream) + payload


def integer(value, bits):
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out = bytearray([most])
    value -= most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes(out + bytes([value]))


def field(name, value):
    """One header, literally and for no table (RFC 7541, 6.2.2)."""
    name, value = (x.encode() if isinstance(x, str) else x for x in (name, value))
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def headers(method, *more):
    path = method if method.startswith("/") else SERVICE + method
    return b"".join(field(*pair) for pair in (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"), ("te", "trailers"), *more))


def message(payload):
    return b"\0" + struct.pack(">I", len(payload)) + payload


def in_frames(payload, stream):
    """As DATA frames of 16 KiB, the last of which ends the stream."""
    pieces = [payload[i:i + 16384] for i in range(0, len(payload), 16384)] or [b""]
    return b"".join(frame(DATA, END_STREAM if i + 1 == len(pieces) else 0, stream, piece)
                    for i, piece in enumerate(pieces))


class Connection:
    """A socket that never makes us wait for the daemon, and keeps what it says."""

    def __init__(self, port, greet=True):
        self.socket = socket.socket()
        self.socket.settimeout(2)
        self.socket.connect(("127.0.0.1", port))
        self.streams = itertools.count(1, 2)
        self.said = bytearray()
        self.window = self.first_window = 65535
        self.windows = collections.Counter()  # 0: the connection's; what they are beyond the first
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_requests(self, calls, body):
        """Each of `calls` (header blocks) with `body`, all at once, as fast as the windows that the
        daemon opens allow: that is how it is made to take most."""
        self.send(frame(SETTINGS, ACK, 0))
        left = {}
        for block in calls:
            stream = next(self.streams)
            self.send(frame(HEADERS, END_HEADERS, stream, block))
            left[stream] = memoryview(body)
        until = time.monotonic() + 3
        while any(left.values()) and time.monotonic() < until and not over.is_set():
            moved = False
            for stream, view in left.items():
                count = min(len(view), self.window + self.windows[0],
                            self.first_window + self.windows[stream], 16384)
                if count <= 0:
                    continue
                self.send(frame(DATA, 0, stream, view[:count]))
                left[stream] = view[count:]
                self.windows[0] -= count
                self.windows[stream] -= count
                moved = True
            if not self.hear(0 if moved else 0.1):
                return

    def _note_windows(self, data):
        """What its frames say of windows."""
        self.said += data
        while len(self.said) >= 9:
            length = int.from_bytes(self.said[:3], "big")
            if len(self.said) < 9 + length:
                return
            kind, flags = self.said[3], self.said[4]
            stream = int.from_bytes(self.said[5:9], "big")
            payload = self.said[9:9 + length]
            del self.said[:9 + length]
            if kind == WINDOW_UPDATE:
                self.windows[stream] += int.from_bytes(payload, "big")
            elif kind == SETTINGS and not flags & ACK:
                for i in range(0, length, 6):
                    name, value = struct.unpack(">HI", payload[i:i + 6])
                    if name == 4:
                        self.first_window = value

    def hear(self, wait_s=0.0):
        """False once the daemon has hung up."""
        global heard_bytes
        while select.select([self.socket], [], [], wait_s)[0]:
            data = self.socket.recv(65536)
            with lock:
                if heard_bytes < MOST_HEARD:
                    heard.append(data)
                    heard_bytes += len(data)
            if not data:
                return False
            self._note_windows(data)
            wait_s = 0
        return True

    def send(self, data, piece=65536):
        """All of it, as fast as the daemon takes it; OSError when it takes no more."""
        view = memoryview(data)
        until = time.monotonic() + 2
        while view and not over.is_set():
            if time.monotonic() > until:
                raise OSError("not taken")
            readable, writable, _ = select.select([self.socket], [self.socket], [], 0.5)
            if readable and not self.hear():
                raise OSError("closed")
            if writable:
                view = view[self.socket.send(view[:piece]):]


# ---- what is done, each time from the beginning ------------------------------------------------


def knock(port):
    with Connection(port, greet=False):
        done["connections"] += 1


def crowd(port):
    """Hundreds that say nothing."""
    crowd_of = []
    try:
        for _ in range(300):
            crowd_of.append(Connection(port, greet=False))
            done["connections"] += 1
        over.wait(0.5)
        for connection in crowd_of:
            connection.hear()
    finally:
        for connection in crowd_of:
            connection.socket.close()


def half_open(port):
    """HTTP/2 that never gets to a call."""
    kept = []
    try:
        for start in (PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:5],
                      PREFACE + frame(SETTINGS, 0, 0),
                      PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, headers("List")),
                      PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 4, 1, headers("List"))) * 20:
            kept.append(Connection(port, greet=False))
            kept[-1].socket.send(start)
            done["half open"] += 1
        over.wait(1)
        for connection in kept:
            connection.hear()
    finally:
        for connection in kept:
            connection.socket.close()


def garbage(port):
    with Connection(port, greet=random.random() < 0.5) as c:
        done["garbage"] += 1
        c.send(random.randbytes(random.choice((1, 100, 9000, 1 << 20))))
        c.hear(0.05)


def large_requests(port):
    """8 MiB of empty messages, several at once."""
    with Connection(port) as c:
        done["large requests"] += 6
        c.hear(0.2)
        c.send_requests([headers(method) for method in random.sample(METHODS, 6)],
                        EMPTY_MESSAGES)


def regardless_of_windows(port):
    with Connection(port) as c:
        done["requests past the window"] += 1
        c.send(frame(HEADERS, END_HEADERS, 1, headers("Transfer")) + in_frames(EMPTY_MESSAGES, 1))


def announced_length(port):
    """A message that is said to be of four gigabytes, and comes in small pieces."""
    with Connection(port) as c:
        for _ in range(32):
            stream = next(c.streams)
            done["announced lengths"] += 1
            c.send(frame(HEADERS, END_HEADERS, stream, headers("Transfer")) +
                   frame(DATA, 0, stream, b"\0\xff\xff\xff\xff" + bytes(100)))
        c.hear(0.3)


def huge_metadata(port):
    with Connection(port) as c:
        done["huge metadata"] += 1
        big = headers("List", ("x-big", b"y" * (1 << 20)))
        c.send(frame(HEADERS, 0, 1, big[:16384]))
        for i in range(16384, len(big), 16384):
            c.send(frame(CONTINUATION, 0, 1, big[i:i + 16384]))
        c.hear(0.05)


def endless_metadata(port):
    """CONTINUATION frames without end, of names that fill tables."""
    with Connection(port) as c:
        c.send(frame(HEADERS, 0, 1, headers("List")))
        for i in range(200000):
            if over.is_set():
                return
            done["continuations"] += 1
            c.send(frame(CONTINUATION, 0, 1, b"\x40" + field(f"x-{i}", b"z" * 100)[1:]))


def indexed_metadata(port):
    """Calls with a header that the daemon has in its table: one byte for four kilobytes, up to so
    many that they would be gigabytes."""
    with Connection(port) as c:
        block = headers("List")
        c.send(frame(HEADERS, END_HEADERS, next(c.streams),
                     block + b"\x40" + field("x-big", b"z" * 4000)[1:]))
        while c.hear(0.05) and not over.is_set():
            for count in (1, 2, 100, 16000):
                done["indexed metadata"] += count
                c.send(frame(HEADERS, END_HEADERS, next(c.streams), block + b"\xbe" * count))


def expanding_metadata(port):
    """Header blocks that never end, of a few kilobytes that would be sixteen megabytes each: fields
    by one byte, of what the daemon has in its table. gRPC makes copies of "lb-cost-bin"."""
    kept = []
    try:
        for name, value, count in ((b"lb-cost-bin", bytes(9) + b"n" * 4000, 3900),
                                   (b"x", b"", 16000), (None, None, 16000)) * 7:
            block = headers("List")
            block += b"\x82" if name is None else b"\x40" + field(name, value)[1:]
            kept.append(Connection(port))
            kept[-1].send(frame(HEADERS, 0, 1, block + (b"\x90" if name is None else b"\xbe") *
                                (count - len(block))))
            done["expanding metadata"] += 1
        over.wait(2)
    finally:
        for connection in kept:
            connection.socket.close()


def malformed_metadata(port):
    """Each a line in the daemon's log, if it would say so."""
    with Connection(port) as c:
        done["malformed metadata"] += 1
        c.send(frame(HEADERS, 0, 1, b"\x40" + field("grpc-timeout", b"?")[1:] + b"\xbe" * 15000))
        c.hear(0.05)


def slow(port):
    with Connection(port, greet=False) as c:
        done["slow"] += 1
        call = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, headers("Transfer"))
        for byte in call:
            if over.wait(0.05):
                return
            c.send(bytes([byte]))


def streams_without_end(port):
    """Never acknowledges the settings, so that the limit of streams does not hold."""
    with Connection(port) as c:
        block = headers("Transfer")
        while not over.is_set():
            done["streams"] += 1000
            c.send(b"".join(frame(HEADERS, END_HEADERS, next(c.streams), block)
                            for _ in range(1000)))


def rapid_reset(port):
    with Connection(port) as c:
        block = headers("Watch")
        while not over.is_set():
            done["resets"] += 1000
            many = bytearray()
            for _ in range(1000):
                stream = next(c.streams)
                many += frame(HEADERS, END_HEADERS, stream, block)
                many += frame(RST_STREAM, 0, stream, b"\0\0\0\x08")
            c.send(many)


def pings(port):
    with Connection(port) as c:
        while not over.is_set():
            done["pings and settings"] += 2000
            c.send((frame(PING, 0, 0, bytes(8)) + frame(SETTINGS, 0, 0)) * 1000)


def asks(port):
    """Whole calls, with made-up proofs; and listens to the answers."""
    with Connection(port) as c:
        c.send(frame(SETTINGS, ACK, 0))
        for method in (*METHODS, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"):
            stream = next(c.streams)
            done["calls"] += 1
            proofs = [("siphon-" + what + "-bin", os.urandom(124).hex())
                      for what in ("read", "write", "secret", "scope")]
            body = message(random.randbytes(random.choice((0, 3, 200))))
            c.send(frame(HEADERS, END_HEADERS, stream,
                         headers(method, *random.sample(proofs, random.randrange(5)))) +
                   in_frames(body, stream))
        c.hear(0.2)


CONTROL = (knock, crowd, half_open, garbage, large_requests, large_requests, regardless_of_windows,
           announced_length, huge_metadata, endless_metadata, indexed_metadata, expanding_metadata,
           malformed_metadata, slow, streams_without_end, rapid_reset, pings, asks)
LANES = (knock, garbage, regardless_of_windows, slow)


def again_and_again(what, ports):
    for port in itertools.cycle(ports):
        if over.is_set():
            return
        try:
            what(port)
        except OSError:  # refused, closed, not taken: that is what the daemon should do
            done["turned away"] += 1
            over.wait(0.01)


def main():
    seconds = float(sys.argv[1])
    control, data = ([int(port) for port in word.split(",")] for word in sys.argv[2:4])
    threads = [threading.Thread(target=again_and_again, args=(what, control[i % len(control):] +
                                                              control[:i % len(control)]))
               for i, what in enumerate(CONTROL)]
    threads += [threading.Thread(target=again_and_again, args=(what, data)) for what in LANES]
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join()
    sys.stdout.buffer.write(b"".join(heard))
    print(json.dumps(done), file=sys.stderr)


def flooded(control_ports, data_ports, copy):
    """Calls copy(0), copy(1)... until a flood of FLOOD_S is over, which this file makes as another
    user's process where there is one to be. Returns how many, the bytes that the flood was told,
    and its counts."""
    words = [",".join(map(str, ports)) for ports in (control_ports, data_ports)]
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    copies = 0
    with subprocess.Popen(["/usr/bin/python3", "-c", pathlib.Path(__file__).read_text(),
                           str(FLOOD_S), *words], cwd="/", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                          **(nobody if os.geteuid() == 0 else {})) as flood:
        output = []
        reader = threading.Thread(target=lambda: output.extend(flood.communicate()))
        reader.start()
        try:
            while reader.is_alive():
                copy(copies)
                copies += 1
        finally:
            if reader.is_alive():  # a copy failed
                flood.kill()
            reader.join()
    told, counts = output
    if flood.returncode != 0:
        raise AssertionError(counts.decode()[-2000:])
    return copies, told, json.loads(counts)


def memory(pid, what="VmHWM"):
    """What a process has, or had at most, in memory."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", text).group(1)) * 1024


if __name__ == "__main__":
    main()
