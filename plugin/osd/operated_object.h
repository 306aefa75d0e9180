// Which object, in which pool and namespace, a class method is really running on.
//
// The object class SDK does not say. `grant_read` and `grant_write` need it: their caller proved
// by cephx that it may call them in the pool the OSD is operating on, and only the OSD knows which
// one that is; believing the caller's claim would turn a right in one pool into a right in any.
//
// So this reads it where the OSD keeps it. A class method's context is a
// `PrimaryLogPG::OpContext**`; where its few leading fields are, the layout says (ceph_layouts.h).
// What keeps a wrong layout from being believed: it is used only after the build check
// (ceph_build.h); the answer is refused unless the parts that can be checked against each other
// agree; and no grant is given before a probe has shown that it is right (cls_siphon.cc). What
// keeps it from doing harm: memory that is not there is an error, not a signal.
#pragma once

#include <cstdint>
#include <string>

#include "plugin/osd/ceph_layouts.h"

namespace siphon::osd {

struct OperatedObject {
  std::string name;
  std::string nspace;
  std::int64_t pool_id = -1;
  bool operator==(const OperatedObject&) const = default;
};

// False when anything looks unlike the expected layout; `out` is then unspecified. Throws nothing
// but bad_alloc, never blocks. `context` is the method's cls_method_context_t.
bool find_operated_object(const OperationLayout& layout, void* context, OperatedObject& out);

}  // namespace siphon::osd
