// What folders' daemons record of extents: their sealed headers, asked for beside the store. No
// byte of an extent moves.
#pragma once

#include <chrono>
#include <vector>

#include "plugin/cli/session.h"

namespace siphon::cli {

// One result per address, in order; each is behind a daemon. NOT_FOUND and FAILED_PRECONDITION
// (open) are the daemon's word of that extent; other errors say why it could not be asked. Blocks
// for as long as a daemon may take to answer, which Ctrl-C ends.
std::vector<Result<SealedHeader>> daemon_headers(const Session& session,
                                                 const std::vector<Address>& addresses,
                                                 std::chrono::milliseconds at_most);

}  // namespace siphon::cli
