"""crc32c (Castagnoli), for the tests that make or check records of Siphon's."""

import functools


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
