// Tables of layouts for libraries that a cluster test loads into real OSDs: plugin/osd/ceph_layouts
// with one row for the Ceph of this machine that is wrong, or with none.
#include "plugin/osd/ceph_layouts.h"

namespace siphon::osd {

#if defined(SIPHON_TEST_WRONG_POOL) || defined(SIPHON_TEST_WRONG_POINTER)

constexpr CephLayout wrong() {
  CephLayout row{"", SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT, kSincePacific};
  OperationLayout& layout = row.operation;
#if defined(SIPHON_TEST_WRONG_POOL)
  // Where the pool's id should be, the namespace's length is: a number that may well be one, and
  // the same in both copies. Nothing but a probe tells.
  row.name = "wrong pool";
  layout.pool = layout.nspace + 8;
#else
  // The pointer to the object's state is taken from where the copy of it begins, and its hash from
  // beyond all memory that a process can have.
  row.name = "wrong pointer";
  layout.obs = layout.new_obs;
  layout.hash = std::size_t{1} << 46;
#endif
  return row;
}

constexpr CephLayout kRow = wrong();
std::span<const CephLayout> verified_layouts() { return {&kRow, 1}; }

#else

std::span<const CephLayout> verified_layouts() { return {}; }

#endif

}  // namespace siphon::osd
