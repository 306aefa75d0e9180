#include "plugin/osd/ceph_layouts.h"

namespace siphon::osd {
namespace {

constexpr CephLayout kVerified[] = {
    {"Pacific", "16.2.15", "618f440892089921c3e944a991122ddc44e60516", kSincePacific},
    {"Reef", "18.2.7", "6b0e988052ec84cf2d4a54ff9bbbc5e720b621ad", kSincePacific},
    {"Tentacle", "20.2.4", "7f793731f1b39eb4f465e960113d2363c311b964", kSincePacific},
};

}  // namespace

std::span<const CephLayout> verified_layouts() { return kVerified; }

}  // namespace siphon::osd
