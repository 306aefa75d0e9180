"""A hostile wire: a proxy on the path of the lanes, between two processes that do not know of it.

It listens on 127.0.0.2 at the target's data ports and passes everything on to 127.0.0.1 at the
same port; redirect_connect.so brings the source's connections here. It knows the frame
(docs/wire_format.md) just enough to hit a chosen byte of a payload, a header or a trailer;
nothing here is Siphon's code.

    proxy = LaneProxy(range(25010, 25014))
    fault = proxy.add(Fault("flip", "payload", 1_000_003, bit=5))
    ... run a copy ...
    assert fault.fired.is_set()

Each fault strikes once, at the first lane that carries the byte. One thread per direction of a
lane.
"""

import contextlib
import dataclasses
import socket
import struct
import threading

LISTEN, TARGET = "127.0.0.2", "127.0.0.1"
HELLO_BYTES, CHALLENGE_BYTES, PROOF_BYTES = 64, 64, 32
HANDSHAKE_BYTES = HELLO_BYTES + PROOF_BYTES  # what the source sends before its first frame
HEADER_BYTES, TRAILER_BYTES = 64, 8
LENGTH_OFFSET = 12  # of the payload's length in the header
DATA_FRAME, TYPE_OFFSET = 1, 5
CHUNK = 256 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset
CONNECT_TIMEOUT_S = 10


@dataclasses.dataclass
class Fault:
    """What happens to the byte `at` (from 0) of all bytes of `part` that a lane has carried.

    action   flip      one bit of it is inverted, all else passes
             cut       both connections are reset before it
             truncate  the target sees an orderly end before it; the source's bytes are thrown away
             stall     it and all after it wait for `release`
             trickle   from it on, one byte each `interval_s`
    part     handshake, header, payload, trailer
    """

    action: str
    part: str
    at: int
    bit: int = 0
    interval_s: float = 1.0
    fired: threading.Event = dataclasses.field(default_factory=threading.Event)
    release: threading.Event = dataclasses.field(default_factory=threading.Event)


class Parts:
    """Which part of the stream each byte belongs to, as the bytes pass."""

    def __init__(self):
        self._part, self._left = "handshake", HANDSHAKE_BYTES
        self._header = b""
        self.seen = {"handshake": 0, "header": 0, "payload": 0, "trailer": 0}

    def split(self, data):
        """[(part, start, end, number of bytes of that part before)] of one chunk."""
        found, at = [], 0
        while at < len(data):
            size = min(self._left, len(data) - at)
            found.append((self._part, at, at + size, self.seen[self._part]))
            self.seen[self._part] += size
            if self._part == "header":
                self._header += data[at:at + size]
            self._left -= size
            at += size
            if self._left == 0:
                self._next()
        return found

    def _next(self):
        if self._part == "header" and self._header[TYPE_OFFSET] == DATA_FRAME:
            (length,) = struct.unpack_from("<I", self._header, LENGTH_OFFSET)
            self._part, self._left = "payload", length
        elif self._part == "payload":
            self._part, self._left = "trailer", TRAILER_BYTES
        else:
            self._part, self._left = "header", HEADER_BYTES
        if self._part != "payload":
            self._header = b""


class Lane:
    """One connection through the proxy."""

    def __init__(self, proxy, number, source, port):
        self.number, self.port = number, port
        self.sent_head = b""  # the source's Hello and Proof
        self.received_head = b""  # the target's Challenge
        self.proven = threading.Event()  # the whole handshake has passed
        self._proxy, self._source, self._target = proxy, source, None

    def run(self):
        try:
            self._proxy.before_connect(self)
            self._target = socket.create_connection((TARGET, self.port), CONNECT_TIMEOUT_S)
            self._target.settimeout(None)
            back = threading.Thread(target=self._backward, daemon=True)
            back.start()
            self._forward()
            back.join()
        except OSError:
            pass
        finally:
            self.close()

    def close(self, reset=False):
        for connection in (self._source, self._target):
            if connection is None:
                continue
            with contextlib.suppress(OSError):
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                else:
                    connection.shutdown(socket.SHUT_RDWR)
            if reset:
                connection.close()
        if not reset:
            for connection in (self._source, self._target):
                if connection is not None:
                    connection.close()

    def _backward(self):
        with contextlib.suppress(OSError):
            while data := self._target.recv(CHUNK):
                if len(self.received_head) < CHALLENGE_BYTES:
                    self.received_head = (self.received_head + data)[:CHALLENGE_BYTES]
                self._source.sendall(data)
        with contextlib.suppress(OSError):
            self._source.shutdown(socket.SHUT_RDWR)  # the target has gone: so has the wire

    def _forward(self):
        parts = Parts()
        while data := self._source.recv(CHUNK):
            if not self._pass_on(data, parts.split(data)):
                return
            if len(self.sent_head) < HANDSHAKE_BYTES:
                self.sent_head = (self.sent_head + data)[:HANDSHAKE_BYTES]
                if len(self.sent_head) == HANDSHAKE_BYTES:
                    self.proven.set()
        with contextlib.suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)

    def _pass_on(self, data, segments):
        hit = self._proxy.take_fault(segments)
        if hit is None:
            self._target.sendall(data)
            return True
        fault, at = hit
        if fault.action == "flip":
            changed = bytearray(data)
            changed[at] ^= 1 << fault.bit
            self._target.sendall(changed)
            fault.fired.set()
            return True
        self._target.sendall(data[:at])
        fault.fired.set()
        if fault.action == "cut":
            self.close(reset=True)
            return False
        if fault.action == "truncate":
            self._target.shutdown(socket.SHUT_WR)
            while self._source.recv(CHUNK):
                pass
            return False
        if fault.action == "stall":
            fault.release.wait()
            self._target.sendall(data[at:])
            return True
        for byte in data[at:]:  # trickle: until somebody has had enough
            self._target.sendall(bytes([byte]))
            if fault.release.wait(fault.interval_s):
                return False
        return True


class LaneProxy:
    """Listens until `close`. `before_connect(lane)` runs before a lane is connected to the target;
    it may take its time."""

    def __init__(self, ports):
        self.lanes = []
        self.before_connect = lambda lane: None
        self._faults = []
        self._lock = threading.Lock()
        self._listeners = []
        self._closed = False
        for port in ports:
            listener = socket.create_server((LISTEN, port), backlog=32)
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()

    def add(self, fault):
        with self._lock:
            self._faults.append(fault)
        return fault

    def take_fault(self, segments):
        """The first waiting fault whose byte is in these segments, and the byte's place."""
        with self._lock:
            for fault in self._faults:
                for part, start, end, before in segments:
                    at = start + fault.at - before
                    if part == fault.part and start <= at < end:
                        self._faults.remove(fault)
                        return fault, at
        return None

    def _accept(self, listener, port):
        while not self._closed:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                lane = Lane(self, len(self.lanes), connection, port)
                self.lanes.append(lane)
            threading.Thread(target=lane.run, daemon=True).start()

    def close(self):
        self._closed = True
        with self._lock:
            for fault in self._faults:
                fault.release.set()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for lane in list(self.lanes):
            lane.close()


class RawConnection:
    """A connection to a data port by somebody without a ticket."""

    def __init__(self, port, send=b"", timeout_s=CONNECT_TIMEOUT_S):
        self.socket = socket.create_connection((TARGET, port), timeout_s)
        if send:
            self.socket.sendall(send)

    def receive(self, size):
        """Up to `size` bytes; fewer when the connection was closed first."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while len(data) < size:
                piece = self.socket.recv(size - len(data))
                if not piece:
                    break
                data += piece
        return data

    def send(self, data):
        self.socket.sendall(data)

    def wait_closed(self, deadline_s=30):
        """Waits until the other side has closed it; returns what it had said before."""
        self.socket.settimeout(deadline_s)
        data = b""
        with self.socket, contextlib.suppress(ConnectionError):
            while piece := self.socket.recv(4096):
                data += piece
        return data

    def close(self):
        self.socket.close()
