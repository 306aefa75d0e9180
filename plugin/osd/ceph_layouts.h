// Where an OSD keeps what a class method runs on, by Ceph release: the layouts that were verified.
//
// A layout is data, which operated_object.cc reads by; so a wrong row reads wrong, and that is how
// the tests have wrong ones. A row is for one release: version and commit, as `ceph-osd --version`
// prints them. Which releases have one, and how a row comes about: docs/operations.md, "Another
// release of Ceph".
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace siphon::osd {

// Offsets in bytes (src/osd/PrimaryLogPG.h `struct OpContext`, src/osd/osd_types.h `ObjectState`
// and `object_info_t`, which begin with src/common/hobject.h `hobject_t`).
struct OperationLayout {
  // Of the OpContext: two pointers that are never null, the pointer to the object's state, and the
  // state that the operation makes, which starts as a copy of it.
  std::size_t op, ops, obs, new_obs;
  // Of the object's hobject_t.
  std::size_t name, hash, max, hash_reverse_nibbles, hash_reverse_bits, pool, nspace;
};

// Pacific to Tentacle, on 64-bit Linux with libstdc++.
inline constexpr OperationLayout kSincePacific{
    .op = 0x00,
    .ops = 0x28,
    .obs = 0x30,
    .new_obs = 0x40,
    .name = 0x00,
    .hash = 0x28,
    .max = 0x2c,
    .hash_reverse_nibbles = 0x30,
    .hash_reverse_bits = 0x34,
    .pool = 0x38,
    .nspace = 0x40,
};

struct CephLayout {
  const char* name;
  const char* version;
  const char* commit;
  OperationLayout operation;
};

// The rows this library was built with.
std::span<const CephLayout> verified_layouts();

// The row of that release; null when it has none.
inline const CephLayout* find_layout(std::string_view version, std::string_view commit) {
  for (const CephLayout& row : verified_layouts()) {
    if (row.version == version && row.commit == commit) return &row;
  }
  return nullptr;
}

}  // namespace siphon::osd
