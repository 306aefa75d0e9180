#!/usr/bin/python3
"""The tests read and make Siphon's records and requests without its code. Here their numbers are held
to the product's: read from its headers, nothing is compiled or run."""

import pathlib
import re
import sys
import unittest

REPO = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "tests" / name) for name in ("lib", "support")]

import cli  # noqa: E402 (after the path is known)
import formats  # noqa: E402
import hostile_peer  # noqa: E402
import lane_proxy  # noqa: E402

BYTES = {"std::uint8_t": 1, "std::byte": 1, "char": 1, "std::uint16_t": 2, "std::uint32_t": 4,
         "std::int32_t": 4, "std::uint64_t": 8, "std::int64_t": 8}


def read(path):
    return re.sub(r"//[^\n]*", "", (REPO / path).read_text(encoding="utf-8"))


def constants(*paths):
    """{kName: number} of what these headers define as numbers."""
    found = {}
    for path in paths:
        for name, value in re.findall(r"constexpr [\w:]+ (k\w+) =\s*([^;]*);", read(path)):
            value = re.sub(r"\b(0x[0-9a-fA-F]+|\d+)[uUlL]+\b", r"\1", value)
            if not re.search(r"[^\w\s+*<>()]", value):
                names = set(re.findall(r"\bk\w+", value))
                if names <= found.keys() and not re.search(r"\b(?!k)[A-Za-z_]\w*", re.sub(
                        r"0x[0-9a-fA-F]+", "", value)):
                    found[name] = eval(value, {}, found)  # numbers and operators alone
    return found


def enumerators(path, enum):
    """{kName: number}."""
    body = re.search(rf"enum class {enum}\b[^{{]*{{(.*?)}}", read(path), flags=re.S)[1]
    return {name: int(value) for name, value in re.findall(r"(k\w+) = (\d+)", body)}


def layout(path, struct, known):
    """{field: offset} of a struct of plain fields, and its size as ""."""
    body = re.search(rf"struct {struct} {{(.*?)\n}};", read(path), flags=re.S)[1]
    found, at, widest = {}, 0, 1
    for kind, name, count in re.findall(
            r"^  (?!static)(?:std::atomic<)?([\w:]+)>? (\w+)(?:\[([^\]]+)\])?;", body, flags=re.M):
        width = BYTES[kind]
        widest = max(widest, width)
        at = -(-at // width) * width
        found[name] = at
        at += width * (eval(count, {}, known) if count else 1)
    found[""] = -(-at // widest) * widest
    return found


class FormatsTest(unittest.TestCase):

    def test_the_shared_region(self):
        path = "plugin/exchange/exchange.h"
        known = constants("plugin/core/names.h", path)
        header, grant, descriptor = (layout(path, struct, known)
                                     for struct in ("RegionHeader", "Grant", "Descriptor"))
        self.assertEqual(
            (known["kGrantsOffset"], grant[""], known["kGrantCount"]),
            (formats.GRANTS, formats.GRANT_BYTES, formats.GRANT_COUNT))
        self.assertEqual(
            (known["kDescriptorsOffset"], descriptor[""], known["kDescriptorCount"]),
            (formats.DESCRIPTORS, formats.DESCRIPTOR_BYTES, formats.DESCRIPTOR_COUNT))
        self.assertEqual(known["kDataOffset"], formats.DATA)
        for field, at in (("bulk_methods", formats.BULK_METHODS_AT),
                          ("data_bytes", formats.DATA_BYTES_AT),
                          ("boot_nonce", formats.BOOT_NONCE_AT),
                          ("hello_seq", formats.HELLO_SEQ_AT),
                          ("stale_refused", formats.STALE_REFUSED_AT),
                          ("layout", formats.LAYOUT_AT),
                          ("probe_armed", formats.PROBE_ARMED_AT),
                          ("probe_ticket", formats.PROBE_ARMED_AT + 4)):
            self.assertEqual(header[field], at, field)
        self.assertEqual(enumerators(path, "DescriptorState"), {
            "kFree": formats.FREE, "kArmed": formats.ARMED, "kCopying": formats.COPYING,
            "kDone": formats.DONE})
        self.assertEqual(enumerators(path, "OperationKind"),
                         {"kRead": formats.READ, "kWrite": formats.WRITE})
        layouts = enumerators(path, "LayoutState")
        self.assertEqual((layouts["kUnproven"], layouts["kFits"]),
                         (formats.UNPROVEN, formats.FITS))

    def test_requests_for_a_grant(self):
        text = read("plugin/exchange/exchange.h")
        size = re.search(r"struct GrantRequest {.*?kEncodedBytes = (\d+);", text, flags=re.S)[1]
        self.assertEqual(len(formats.grant_request(bytes(16), 1, 1, "")), int(size))
        self.assertEqual(len(formats.grant_name(bytes(16))), 13 + 32)
        self.assertIn("kGrantObjectNameBytes = 13 + 32", text)
        self.assertIn(r'kLabel = "siphon grant key id\n"', read("plugin/base/types.cc"))

    def test_the_class_methods(self):
        registered = re.findall(r'add_method\(handle, "(\w+)"', read("plugin/osd/cls_siphon.cc"))
        self.assertEqual(sorted(registered), sorted(formats.METHODS))

    def test_heads_and_extents(self):
        known = constants("plugin/core/head_register.h", "plugin/format/extent_format.h")
        self.assertEqual(formats.Head.SIZES, {
            1: (known["kFixedBytesV1"], known["kTrashBytesV1"]),
            2: (known["kFixedBytes"], known["kTrashBytes"])})
        self.assertEqual(formats.Head.RESERVATION, known["kReservationBytes"])
        for name in ("kBlockHeaderBytes", "kIndexEntryBytes"):
            self.assertEqual(known[name], formats.BLOCK_HEADER)
        self.assertEqual(known["kFooterBytes"], formats.FOOTER)
        for name, word in (("kBlockMagic", b"SBLK"), ("kFooterMagic", b"SFOT")):
            self.assertEqual(known[name].to_bytes(4, "little"), word)

    def test_the_lanes(self):
        known = constants("plugin/stream/frame.h", "plugin/stream/handshake.h")
        self.assertEqual(
            [known[name] for name in ("kHelloBytes", "kChallengeBytes", "kProofBytes",
                                      "kFrameHeaderBytes", "kFrameTrailerBytes")],
            [lane_proxy.HELLO_BYTES, lane_proxy.CHALLENGE_BYTES, lane_proxy.PROOF_BYTES,
             lane_proxy.HEADER_BYTES, lane_proxy.TRAILER_BYTES])
        self.assertEqual(enumerators("plugin/stream/frame.h", "FrameType")["kData"],
                         lane_proxy.DATA_FRAME)

    def test_the_calls(self):
        calls = re.findall(r"^  rpc (\w+)\(", read("proto/siphon/v1/siphon.proto"), flags=re.M)
        self.assertEqual(sorted(calls), sorted(set(hostile_peer.METHODS) - {"NoSuchMethod"}))

    def test_exit_codes(self):
        for name, code in enumerators("plugin/cli/exit_codes.h", "Exit").items():
            ours = re.sub(r"(?<!^)(?=[A-Z])", "_", name[1:]).upper()
            if name == "kBrokenPipe":  # no test goes by its name
                continue
            self.assertEqual(getattr(cli, ours), code, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
