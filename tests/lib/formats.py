"""What Siphon stores and what its class methods take, read and made without its code: written after
docs/extent_format.md and plugin/exchange/exchange.h, so that a test can hold the product to its own
documents. That the numbers here are still the product's is what tests/process/formats_test.py shows.
"""

import dataclasses
import functools
import hashlib
import pathlib
import random
import struct

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


# ------------------------------------------------------------------------------- bytes and checksums


@functools.cache
def _table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


def crc32c(data):
    """As docs/extent_format.md has it. Ceph's, from seed ~0, is this without the final inversion."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def ceph_crc32c(data):
    """As Ceph's: seed ~0, no final inversion."""
    return crc32c(data) ^ 0xFFFFFFFF


def write_random_file(path, size_bytes, seed):
    """A file of reproducible bytes that no compression or zero detection can shorten."""
    generator = random.Random(seed)
    with open(path, "wb") as file:
        left = size_bytes
        while left > 0:
            piece = generator.randbytes(min(left, 4 * MIB))
            file.write(piece)
            left -= len(piece)
    return pathlib.Path(path)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(4 * MIB), b""):
            digest.update(piece)
    return digest.hexdigest()


# --------------------------------------------------------------------------------- extents and heads

BLOCK_HEADER = 48  # bytes, as an entry of the block index
FOOTER = 64


@dataclasses.dataclass
class Head:
    """The register in the xattr siphon.head, as docs/extent_format.md lays it out: version 2, or 1,
    which has no digest."""

    state: int
    inline: bool
    generation: int
    current: str  # private id, hex; "" for none
    extent_bytes: int
    content_bytes: int
    crc32: int
    block_count: int
    part_bytes: int
    reservations: list  # private ids
    trash: list  # private ids
    format_version: int = 1
    content_digest: str = ""  # SHA-256, hex; "" where it is not known

    NONE, OPEN, SEALED = range(3)
    # Bytes of the fixed part and of an entry of the trash, by version; of a reservation.
    SIZES = {1: (96, 48), 2: (128, 96)}
    RESERVATION = 48

    @staticmethod
    def parse(raw):
        (magic, version, state, inline, generation, current, extent_bytes, content_bytes, crc,
         blocks, part_bytes, format_version, reserved, trashed, _sealed) = struct.unpack_from(
             "<4sHBBQ16sQQIIIHBBQ", raw)
        fixed, trash_bytes = Head.SIZES.get(version, (0, 0))
        trash = fixed + Head.RESERVATION * reserved
        if magic != b"SPHD" or not fixed or len(raw) != trash + trash_bytes * trashed + 4:
            raise AssertionError(f"not a head register: {raw.hex()}")
        digest = raw[72:104] if version == 2 and any(raw[72:104]) else b""
        return Head(state, bool(inline), generation, current.hex() if any(current) else "",
                    extent_bytes, content_bytes, crc, blocks, part_bytes,
                    [raw[at:at + 16].hex() for at in range(fixed, trash, Head.RESERVATION)],
                    [raw[at:at + 16].hex() for at in range(trash, len(raw) - 4, trash_bytes)],
                    format_version, digest.hex())

    def part_count(self):
        return 0 if self.inline else -(-self.extent_bytes // self.part_bytes)


def content_of(stream):
    """The content of an extent's byte stream: every block, its SHA-256 checked."""
    magic, version, _reserved, count, _crc, index_offset, content_bytes = struct.unpack_from(
        "<4sHHIIQQ", stream, len(stream) - FOOTER)
    if magic != b"SFOT" or version != 1 or index_offset != content_bytes + BLOCK_HEADER * count:
        raise AssertionError("not a sealed extent's footer")
    content, offset = [], 0
    for number in range(count):
        block_magic, _version, _r, length, digest = struct.unpack_from("<4sHHI32s", stream, offset)
        block = stream[offset + BLOCK_HEADER:offset + BLOCK_HEADER + length]
        if block_magic != b"SBLK" or hashlib.sha256(block).digest() != digest:
            raise AssertionError(f"block {number} at {offset} is not right")
        content.append(block)
        offset += BLOCK_HEADER + length
    if offset != index_offset:
        raise AssertionError("the blocks do not end where the index begins")
    return b"".join(content)


# ---------------------------------------------------------------------- the region and class methods

TRANSITIONS = ("reserve", "publish", "condemn", "forget", "seal", "restore", "discard")
METHODS = ("hello", "hello_head", "grant_read", "grant_write", "probe", "read_part", "write_part",
           *TRANSITIONS)

GRANTS, GRANT_BYTES, GRANT_COUNT = 4096, 208, 1024
DESCRIPTORS, DESCRIPTOR_BYTES, DESCRIPTOR_COUNT = 256 * KIB, 128, 2048
DATA = 512 * KIB
FREE, ARMED, COPYING, DONE = range(4)
UNPROVEN, FITS = range(2)
READ, WRITE = 1, 2
# Of RegionHeader: where its fields are.
BULK_METHODS_AT, DATA_BYTES_AT, BOOT_NONCE_AT, HELLO_SEQ_AT = 20, 40, 48, 56
STALE_REFUSED_AT, LAYOUT_AT, PROBE_ARMED_AT = 144, 160, 184


def key_id(nonce):
    """What a grant's object is named after (plugin/base/types.h, grant_key_id)."""
    return hashlib.sha256(b"siphon grant key id\n" + nonce).digest()[:16]


def grant_request(nonce, pool_id, ttl_s, nspace, group=0):
    """The input of grant_read and grant_write."""
    return struct.pack("<II16s16sqII128s", 3, group, key_id(nonce), nonce, pool_id, ttl_s,
                       len(nspace.encode()), nspace.encode())


def grant_name(nonce):
    """Of the object that they run on."""
    return f"siphon.grant.{key_id(nonce).hex()}"
