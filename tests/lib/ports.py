"""Ports of this machine: ranges to use, and who listens, as the kernel says."""

import contextlib
import fcntl
import os
import pathlib
import socket
import sys
import tempfile

SPAN = 500  # what one cluster owns, see vstart-scripts/cluster
FIRST_PORTS = range(19000, 32000, SPAN)  # above Ceph's own, below the kernel's ephemeral ones

# In /proc/net/tcp.
ESTABLISHED, CLOSE_WAIT, LISTEN = "01", "08", "0A"
LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def port_range():
    """The first of SPAN ports that no other test on this machine has, for as long as the context
    lasts."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"siphon-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in FIRST_PORTS:
        with open(folder / str(port), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if is_free(port):
                yield port
                return
    raise RuntimeError("no range of ports is free")


def own_ports():
    """The same, unless SIPHON_TEST_PORT names the first one."""
    fixed = os.environ.get("SIPHON_TEST_PORT")
    return contextlib.nullcontext(int(fixed)) if fixed else port_range()


def sockets():
    """(own address, peer's address, state) of every TCP socket."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):  # gRPC's sockets are IPv6 ones
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            yield tuple(line.split()[1:4])


def port_of(address):
    return int(address.rpartition(":")[2], 16)


def listening_ports(first, last):
    """Those of [first, last] that somebody listens on, whatever the address."""
    return sorted({port_of(own) for own, _, state in sockets()
                   if state == LISTEN and first <= port_of(own) <= last})


def listening(ports):
    """Those of `ports` that somebody listens on at 127.0.0.1."""
    taken = {port_of(own) for own, _, state in sockets()
             if state == LISTEN and own.partition(":")[0].endswith(LOOPBACK)}
    return sorted(taken & set(ports))


def is_connected_to(port):
    """Whether anybody here still has a connection to it, even one that its end has left."""
    return any(port_of(peer) == port and state in (ESTABLISHED, CLOSE_WAIT)
               for _, peer, state in sockets())
