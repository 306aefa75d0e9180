// The target's way to its sources: the second call over gRPC.
#pragma once

#include <memory>

#include "plugin/rpc/client.h"
#include "plugin/transfer/second_call.h"

namespace siphon::rpc {

// Thread safe; each call has a connection of its own.
std::unique_ptr<SourceCaller> make_source_caller(ClientOptions options);

}  // namespace siphon::rpc
