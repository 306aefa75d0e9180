#include "plugin/cli/stream_io.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace siphon::cli {
namespace {

// An inline extent has no parts: one part without end.
std::uint64_t part_size(std::uint32_t part_bytes) {
  return part_bytes == 0 ? std::numeric_limits<std::uint64_t>::max() : part_bytes;
}

}  // namespace

ReadAhead::ReadAhead(ExtentReader& reader, const StoreLimits& limits)
    : reader_(reader),
      extent_bytes_(reader.info().header.extent_bytes),
      part_bytes_(part_size(reader.info().header.part_bytes)),
      operation_bytes_(std::max<std::uint64_t>(limits.operation_bytes, 4096)),
      depth_(std::clamp<std::size_t>(limits.read_depth, 1, 16)) {
  for (std::size_t i = 0; i < depth_; ++i) workers_.emplace_back([this] { work(); });
}

ReadAhead::~ReadAhead() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  changed_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::uint64_t ReadAhead::chunk_start(std::uint64_t offset_bytes) const {
  const std::uint64_t in_part = offset_bytes % part_bytes_;
  return offset_bytes - in_part % operation_bytes_;
}

std::uint64_t ReadAhead::chunk_end(std::uint64_t start_bytes) const {
  const std::uint64_t room = part_bytes_ - start_bytes % part_bytes_;
  const std::uint64_t left = extent_bytes_ - start_bytes;
  return start_bytes + std::min({operation_bytes_, room, left});
}

std::shared_ptr<ReadAhead::Chunk> ReadAhead::want(std::uint64_t start_bytes) {
  auto& chunk = chunks_[start_bytes];
  if (!chunk) {
    chunk = std::make_shared<Chunk>();
    chunk->offset_bytes = start_bytes;
    chunk->bytes.resize(chunk_end(start_bytes) - start_bytes);
    queue_.push_back(chunk);
    changed_.notify_all();
  }
  return chunk;
}

Status ReadAhead::read(std::uint64_t offset_bytes, std::span<std::byte> out) {
  if (offset_bytes > extent_bytes_ || out.size() > extent_bytes_ - offset_bytes) {
    return fail(Code::kOutOfRange, "a read beyond the extent's end");
  }
  while (!out.empty()) {
    const std::uint64_t start = chunk_start(offset_bytes);
    std::shared_ptr<Chunk> chunk;
    {
      MutexLock lock(mutex_);
      // Forget what lies behind the reader, and what it has jumped away from.
      std::erase_if(chunks_, [&](const auto& entry) {
        return entry.first < start || entry.first > start + (depth_ + 1) * operation_bytes_;
      });
      std::erase_if(queue_, [&](const auto& c) SIPHON_REQUIRES(mutex_) {
        return !chunks_.contains(c->offset_bytes);
      });
      chunk = want(start);
      std::uint64_t next = chunk_end(start);
      for (std::size_t i = 0; i < depth_ && next < extent_bytes_; ++i) {
        want(next);
        next = chunk_end(next);
      }
      changed_.wait(lock, [&]() SIPHON_REQUIRES(mutex_) { return chunk->done; });
    }
    SIPHON_TRY(chunk->status);
    const std::uint64_t skip = offset_bytes - start;
    const std::size_t n = std::min<std::uint64_t>(out.size(), chunk->bytes.size() - skip);
    std::memcpy(out.data(), chunk->bytes.data() + skip, n);
    out = out.subspan(n);
    offset_bytes += n;
  }
  return {};
}

ByteSource ReadAhead::source() {
  return [this](std::uint64_t offset_bytes, std::span<std::byte> out) {
    return read(offset_bytes, out);
  };
}

void ReadAhead::work() {
  for (;;) {
    std::shared_ptr<Chunk> chunk;
    {
      MutexLock lock(mutex_);
      changed_.wait(lock, [&]() SIPHON_REQUIRES(mutex_) { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      chunk = std::move(queue_.front());
      queue_.pop_front();
    }
    Status status = reader_.read(chunk->offset_bytes, chunk->bytes);
    {
      const MutexLock lock(mutex_);
      chunk->status = std::move(status);
      chunk->done = true;
    }
    changed_.notify_all();
  }
}

WriteBehind::WriteBehind(ScratchExtent& scratch, const StoreLimits& limits)
    : scratch_(scratch),
      operation_bytes_(std::max<std::uint64_t>(limits.operation_bytes, 4096)),
      depth_(std::clamp<std::size_t>(limits.write_depth, 1, 16)) {
  for (std::size_t i = 0; i < depth_; ++i) workers_.emplace_back([this] { work(); });
}

WriteBehind::~WriteBehind() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    queue_.clear();
  }
  changed_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::uint64_t WriteBehind::room_at(std::uint64_t offset_bytes) const {
  const std::uint64_t part = part_size(scratch_.part_bytes());
  return std::min(operation_bytes_, part - offset_bytes % part);
}

Status WriteBehind::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::uint64_t room = room_at(current_.offset_bytes) - current_.bytes.size();
    const std::size_t n = std::min<std::uint64_t>(room, bytes.size());
    if (current_.bytes.empty()) current_.bytes.reserve(room);
    current_.bytes.insert(current_.bytes.end(), bytes.begin(),
                          bytes.begin() + static_cast<std::ptrdiff_t>(n));
    bytes = bytes.subspan(n);
    if (n == room) SIPHON_TRY(submit());
  }
  return {};
}

Status WriteBehind::submit() {
  const std::uint64_t next = current_.offset_bytes + current_.bytes.size();
  {
    MutexLock lock(mutex_);
    changed_.wait(lock,
                  [&]() SIPHON_REQUIRES(mutex_) { return !status_ || queue_.size() < depth_; });
    if (!status_) return status_;
    queue_.push_back(std::move(current_));
  }
  changed_.notify_all();
  current_ = Piece{next, {}};
  return {};
}

Status WriteBehind::finish() {
  if (!current_.bytes.empty()) SIPHON_TRY(submit());
  MutexLock lock(mutex_);
  changed_.wait(lock, [&]() SIPHON_REQUIRES(mutex_) {
    return !status_ || (queue_.empty() && in_flight_ == 0);
  });
  // Even a failed pipeline is left only when nothing is in flight any more.
  changed_.wait(lock, [&]() SIPHON_REQUIRES(mutex_) { return in_flight_ == 0; });
  return status_;
}

std::uint64_t WriteBehind::acknowledged_bytes() {
  const MutexLock lock(mutex_);
  return acknowledged_bytes_;
}

void WriteBehind::work() {
  MutexLock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&]() SIPHON_REQUIRES(mutex_) { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    Piece piece = std::move(queue_.front());
    queue_.pop_front();
    if (!status_) continue;
    ++in_flight_;
    lock.unlock();
    changed_.notify_all();
    Status status = scratch_.write(piece.offset_bytes, piece.bytes);
    lock.lock();
    --in_flight_;
    if (status) {
      acknowledged_bytes_ += piece.bytes.size();
    } else if (status_) {
      status_ = std::move(status);
    }
    changed_.notify_all();
  }
}

}  // namespace siphon::cli
