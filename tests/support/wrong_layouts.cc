// Tables of layouts for libraries that a cluster test loads into real OSDs: plugin/osd/ceph_layouts
// with one row for the Ceph of this machine that is wrong, or with none.
#include "plugin/osd/ceph_layouts.h"

namespace siphon::osd {

#if defined(SIPHON_TEST_WRONG_POOL)

// Where the pool's id should be, the namespace's length is: a number that may well be one, and the
// same in both copies. Nothing but a probe tells.
constexpr CephLayout kRow{"wrong pool",
                          SIPHON_CEPH_VERSION,
                          SIPHON_CEPH_COMMIT,
                          {.op = 0x00,
                           .ops = 0x28,
                           .obs = 0x30,
                           .new_obs = 0x40,
                           .name = 0x00,
                           .hash = 0x28,
                           .max = 0x2c,
                           .hash_reverse_nibbles = 0x30,
                           .hash_reverse_bits = 0x34,
                           .pool = 0x48,
                           .nspace = 0x40}};
std::span<const CephLayout> verified_layouts() { return {&kRow, 1}; }

#elif defined(SIPHON_TEST_WRONG_POINTER)

// The pointer to the object's state is taken from where the copy of it begins, and its hash from
// beyond all memory that a process can have.
constexpr CephLayout kRow{"wrong pointer",
                          SIPHON_CEPH_VERSION,
                          SIPHON_CEPH_COMMIT,
                          {.op = 0x00,
                           .ops = 0x28,
                           .obs = 0x40,
                           .new_obs = 0x40,
                           .name = 0x00,
                           .hash = std::size_t{1} << 46,
                           .max = 0x2c,
                           .hash_reverse_nibbles = 0x30,
                           .hash_reverse_bits = 0x34,
                           .pool = 0x38,
                           .nspace = 0x40}};
std::span<const CephLayout> verified_layouts() { return {&kRow, 1}; }

#else

std::span<const CephLayout> verified_layouts() { return {}; }

#endif

}  // namespace siphon::osd
