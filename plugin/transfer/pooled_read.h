// Reads a range piece by piece through buffers of a pool, so that a companion's bytes come through
// the exchange: what the format's decoders want as a ByteSource. Thread safe, header only.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "plugin/base/buffer_pool.h"
#include "plugin/base/status.h"

namespace siphon {

// `read` fills one piece: Status(offset_bytes, span). A piece has at most `operation_bytes` and
// does not cross a multiple of `part_bytes` (0: there are no parts). When streams have all of the
// pool, `out` is read into directly (by a companion: through librados).
template <typename Read>
Status read_pooled(BufferPool& pool, std::uint32_t operation_bytes, std::uint64_t part_bytes,
                   std::uint64_t offset_bytes, std::span<std::byte> out, const Read& read) {
  constexpr std::chrono::milliseconds kPatience{20};
  while (!out.empty()) {
    std::uint64_t piece = std::min<std::uint64_t>(out.size(), operation_bytes);
    if (part_bytes != 0) piece = std::min(piece, part_bytes - offset_bytes % part_bytes);
    auto buffer = pool.acquire(piece, deadline_in(kPatience));
    if (buffer) {
      SIPHON_TRY(read(offset_bytes, buffer->span()));
      std::memcpy(out.data(), buffer->data(), piece);
    } else {
      SIPHON_TRY(read(offset_bytes, out.first(piece)));
    }
    offset_bytes += piece;
    out = out.subspan(piece);
  }
  return {};
}

}  // namespace siphon
