#include "plugin/rpc/grpc_limits.h"

#include <dlfcn.h>
#include <grpc/support/log.h>

#include <algorithm>
#include <mutex>

#include "plugin/base/log.h"

// grpc_core::HPackParser::BeginFrame(batch, size limit, boundary, priority, {stream, type,
// client}): the last three are two bytes and a structure of eight. Ours is called in its place: the
// linker sees to that where gRPC is an archive (CMakeLists.txt), the loader where it is shared.
#define SIPHON_BEGIN_FRAME                                                                         \
  "_ZN9grpc_core11HPackParser10BeginFrameEP19grpc_metadata_batchjNS0_8BoundaryENS0_8PriorityENS0_" \
  "7LogInfoE"

using BeginFrame = void(void* parser, void* batch, std::uint32_t most_bytes, std::uint8_t boundary,
                        std::uint8_t priority, std::uint64_t log_info);

#ifdef SIPHON_GRPC_IS_ARCHIVE
BeginFrame grpcs_begin_frame __asm__("__real_" SIPHON_BEGIN_FRAME);
BeginFrame our_begin_frame __asm__("__wrap_" SIPHON_BEGIN_FRAME);
#else
static BeginFrame* const grpcs_begin_frame =
    reinterpret_cast<BeginFrame*>(::dlsym(RTLD_NEXT, SIPHON_BEGIN_FRAME));
BeginFrame our_begin_frame __asm__(SIPHON_BEGIN_FRAME);
#endif

void our_begin_frame(void* parser, void* batch, std::uint32_t most_bytes, std::uint8_t boundary,
                     std::uint8_t priority, std::uint64_t log_info) {
  grpcs_begin_frame(parser, batch, std::min(most_bytes, siphon::rpc::kMaxMetadataBytes), boundary,
                    priority, log_info);
}

namespace siphon::rpc {

void prepare_grpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args* line) { log::debug("gRPC: {}", line->message); });
  });
}

}  // namespace siphon::rpc
