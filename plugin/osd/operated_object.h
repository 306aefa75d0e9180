// Which object, in which pool and namespace, a class method is really running on.
//
// The object class SDK does not say. `grant_read` and `grant_write` need it: their caller proved
// by cephx that it may call them in the pool the OSD is operating on, and only the OSD knows which
// one that is; believing the caller's claim would turn a right in one pool into a right in any.
//
// So this reads it where the OSD keeps it. A class method's context is a
// `PrimaryLogPG::OpContext**`; the few leading fields used here are mirrored in the .cc, as they
// are in the one Ceph build this library was compiled for. Two things keep a wrong layout from
// being believed: it is used only after the build check (ceph_build.h), and the answer is refused
// unless the parts of the layout that can be checked against each other agree.
#pragma once

#include <cstdint>
#include <string_view>

namespace siphon::osd {

// Views into the OSD's own object: valid during the method call only.
struct OperatedObject {
  std::string_view name;
  std::string_view nspace;
  std::int64_t pool_id = -1;
};

// False when anything looks unlike the expected layout; `out` is then unspecified. Never throws,
// never blocks. `context` is the method's cls_method_context_t.
bool find_operated_object(void* context, OperatedObject& out);

}  // namespace siphon::osd
