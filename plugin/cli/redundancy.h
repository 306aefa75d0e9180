// Whether copies are on as many devices as their pool wants: what a move asks before it trashes.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "plugin/cli/session.h"

namespace siphon::cli {

// Those of `targets` (by index) whose placement groups are not active and clean at the pool's size,
// each with Reason::kDegraded. Waits up to --timeout for them to become so. Folders have none.
std::map<std::size_t, Error> not_yet_safe(Session& session, const std::vector<Address>& targets);

}  // namespace siphon::cli
