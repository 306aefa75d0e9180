// Questions to a cluster that change nothing in it: what `siphon doctor` asks.
//
// Each blocks for the connection's timeouts at most. Thread safe. No librados type here.
#pragma once

#include <string>
#include <string_view>

#include "adapters/rados/rados_cluster.h"
#include "plugin/base/status.h"
#include "plugin/base/types.h"

namespace siphon {

// Commands, {"prefix": "osd dump", "format": "json"} as text, and what was answered.
// PERMISSION_DENIED: the key may not; DEADLINE_EXCEEDED: no answer in time; NOT_FOUND and
// UNAVAILABLE of an OSD: there is none of that number, or it is down.
Result<std::string> ask_mons(RadosCluster& cluster, const std::string& command);
Result<std::string> ask_mgr(RadosCluster& cluster, const std::string& command);
Result<std::string> ask_osd(RadosCluster& cluster, int osd, const std::string& command);

// The object class siphon at the acting primary of `locator`. Runs none of its methods.
enum class LoadedClass { kMethods, kNoMethods, kAbsent };
Result<LoadedClass> loaded_class(RadosCluster& cluster, const Location& location,
                                 std::string_view locator);

// What this connection's key may do at `location`, found out by operations that cannot succeed: on
// an object that is not there, or with an input that no method takes. They leave, at most, an entry
// of a failed operation in the placement group's log.
enum class Act { kRead, kWrite, kHello, kGrantRead, kGrantWrite };
Result<bool> may(RadosCluster& cluster, const Location& location, std::string_view locator,
                 Act act);

}  // namespace siphon
