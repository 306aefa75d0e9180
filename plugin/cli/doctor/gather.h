// Where `siphon doctor` gets its facts from. Changes nothing in the cluster: it asks mons, mgr and
// OSDs, says hello, tries rights with operations that cannot succeed, and leaves grants of a few
// seconds in the memory of the devices that it asks to describe themselves.
#pragma once

#include "plugin/base/status.h"
#include "plugin/cli/doctor/facts.h"
#include "plugin/cli/session.h"

namespace siphon::cli::doctor {

// What the session's options ask for. Blocks for a few of its timeouts at most, whatever does not
// answer: that is then not seen. Errors: no connection to the cluster; NOT_FOUND (a pool, or the
// entity of --as); CANCELLED when interrupted.
Result<Facts> gather(Session& session);

}  // namespace siphon::cli::doctor
