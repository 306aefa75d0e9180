#include "plugin/osd/ceph_layouts.h"

namespace siphon::osd {
namespace {

// Pacific to Tentacle, on 64-bit Linux with libstdc++.
constexpr OperationLayout kSincePacific{
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

constexpr CephLayout kVerified[] = {
    {"Pacific", "16.2.15", "618f440892089921c3e944a991122ddc44e60516", kSincePacific},
    {"Reef", "18.2.7", "6b0e988052ec84cf2d4a54ff9bbbc5e720b621ad", kSincePacific},
    {"Tentacle", "20.2.4", "7f793731f1b39eb4f465e960113d2363c311b964", kSincePacific},
};

}  // namespace

std::span<const CephLayout> verified_layouts() { return kVerified; }

}  // namespace siphon::osd
