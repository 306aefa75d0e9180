// A build without Ceph (SIPHON_WITH_CEPH=OFF) instead of companion.cc: no OSD starts this one.
#include "plugin/agent/backend.h"

namespace siphon::agent {

Result<std::unique_ptr<Backend>> make_companion(const Invocation&, const Config&) {
  return fail(Code::kFailedPrecondition,
              "this siphond has no Ceph in it: it cannot be an OSD's companion", Side::kNone,
              "put a siphond built with SIPHON_WITH_CEPH=ON beside libcls_siphon.so");
}

}  // namespace siphon::agent
