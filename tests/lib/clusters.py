"""A cluster's daemons, asked without Ceph's tools."""

import json
import pathlib
import socket
import struct

from waiting import DEADLINE_S


def ask_admin_socket(folder, osd, prefix, **arguments):
    """What `ceph daemon osd.N PREFIX` answers in the cluster of this folder, parsed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE_S)
        connection.connect(str(pathlib.Path(folder) / "run" / f"ceph-osd.{osd}.asok"))
        connection.sendall(json.dumps({"prefix": prefix, **arguments}).encode() + b"\0")
        with connection.makefile("rb") as answer:
            head = answer.read(4)
            text = answer.read(struct.unpack(">I", head)[0]) if len(head) == 4 else b""
    if not text:
        raise ConnectionError(f"osd.{osd} cut its answer to '{prefix}' short")
    return json.loads(text)
