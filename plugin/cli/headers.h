// What folders' daemons record of extents: their sealed headers, asked for beside the store. No
// byte of an extent moves.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "plugin/cli/session.h"

namespace siphon::cli {

struct HeaderSeen {
  std::optional<SealedHeader> header;
  Status status = fail(Code::kUnknown, "not asked");
};

// One per address, in order; each is behind a daemon. NOT_FOUND, FAILED_PRECONDITION (open, or,
// with Reason::kNotSiphons, a foreign file) and DATA_LOSS are the daemon's word of that extent, the
// last one also beside a header: a file of another length. Other errors say why it could not be
// asked. Blocks for as long as a daemon may take to answer, which Ctrl-C ends.
std::vector<HeaderSeen> daemon_headers(const Session& session,
                                       const std::vector<Address>& addresses,
                                       std::chrono::milliseconds at_most);

}  // namespace siphon::cli
