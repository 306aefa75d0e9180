// IndexWatch: the content digest of an extent whose sealed header has none (version 1), computed
// from the index while the extent is streamed. The index is the stream's tail, so that nothing is
// read twice, and nothing else of the extent is looked at: 48 bytes hashed per block.
//
// Thread safe. Pieces may come in any order; what comes too early is kept, at most the index's part
// of the reads that are under way at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "plugin/core/mutex.h"
#include "plugin/format/extent_format.h"

namespace siphon {

class IndexWatch {
 public:
  // Null when the header has its digest, or contradicts itself (the target refuses it then).
  static std::unique_ptr<IndexWatch> for_header(const SealedHeader& header);

  // These bytes of the extent, each once.
  void see(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  // Once all have been seen; nullopt before.
  std::optional<Sha256> finish();

 private:
  IndexWatch(std::uint64_t begin_bytes, std::uint64_t end_bytes)
      : next_bytes_(begin_bytes), end_bytes_(end_bytes) {}

  Mutex mutex_;
  std::uint64_t next_bytes_ SIPHON_GUARDED_BY(mutex_);
  const std::uint64_t end_bytes_;
  IndexDigest digest_ SIPHON_GUARDED_BY(mutex_);
  std::map<std::uint64_t, std::vector<std::byte>> early_ SIPHON_GUARDED_BY(mutex_);  // by offset
};

}  // namespace siphon
