// The leading fields of an OSD's operation as Ceph 16.2.15 declares them, with real std::strings:
// what a class method's context points to, for tests that have no OSD.
#pragma once

#include <cstdint>
#include <string>

namespace siphon::test {

struct FakeObject {
  std::string name = "siphon.grant.00112233445566778899aabbccddeeff";
  std::uint64_t snap = ~1ull;
  std::uint32_t hash = 0x12345678;
  bool max = false;
  std::uint32_t nibbles = 0x87654321;
  std::uint32_t bits = 0x1e6a2c48;
  std::int64_t pool = 42;
  std::string nspace = "n";
  std::string key = "an extent";
};

struct FakeOperation {
  void* op;
  std::uint64_t request_id[4];
  void* ops;
  FakeObject* obs;
  void* snapset;
  FakeObject new_obs;
};

}  // namespace siphon::test
