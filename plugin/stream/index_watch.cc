#include "plugin/stream/index_watch.h"

#include <algorithm>

namespace siphon {

std::unique_ptr<IndexWatch> IndexWatch::for_header(const SealedHeader& header) {
  if (header.has_digest() || !check_sealed_header(header)) return nullptr;
  const std::uint64_t end = header.extent_bytes - kFooterBytes;
  return std::unique_ptr<IndexWatch>(
      new IndexWatch(end - std::uint64_t{header.block_count} * kIndexEntryBytes, end));
}

void IndexWatch::see(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  const MutexLock lock(mutex_);
  const std::uint64_t from = std::max(offset_bytes, next_bytes_);
  const std::uint64_t to = std::min(offset_bytes + bytes.size(), end_bytes_);
  if (from >= to) return;
  const auto of_index = bytes.subspan(from - offset_bytes, to - from);
  if (from != next_bytes_) {
    early_.emplace(from, std::vector<std::byte>(of_index.begin(), of_index.end()));
    return;
  }
  digest_.add(of_index);
  next_bytes_ = to;
  for (auto it = early_.begin(); it != early_.end() && it->first == next_bytes_;
       it = early_.erase(it)) {
    digest_.add(it->second);
    next_bytes_ += it->second.size();
  }
}

std::optional<Sha256> IndexWatch::finish() {
  const MutexLock lock(mutex_);
  if (next_bytes_ != end_bytes_) return std::nullopt;
  return digest_.finish();
}

}  // namespace siphon
