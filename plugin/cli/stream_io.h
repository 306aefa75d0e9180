// Pipelined access to one extent of a store: reads ahead of a consumer, writes behind a producer.
// The consumer's and the producer's calls come from one thread each; the workers are inside.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/core/mutex.h"
#include "plugin/format/extent_format.h"

namespace siphon::cli {

// Reads any range of a pinned extent, fetching what follows in the background. Memory: read_depth
// + 2 operations. `reader` must outlive it.
class ReadAhead {
 public:
  ReadAhead(ExtentReader& reader, const StoreLimits& limits);
  ~ReadAhead();  // waits for the reads in flight
  // Fills all of `out`; blocks. Errors as ExtentReader::read.
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out);
  ByteSource source();

 private:
  struct Chunk {
    std::uint64_t offset_bytes;
    std::vector<std::byte> bytes;
    Status status;
    bool done = false;
  };
  std::uint64_t chunk_start(std::uint64_t offset_bytes) const;
  std::uint64_t chunk_end(std::uint64_t start_bytes) const;
  std::shared_ptr<Chunk> want(std::uint64_t start_bytes) SIPHON_REQUIRES(mutex_);
  void work();

  ExtentReader& reader_;
  const std::uint64_t extent_bytes_;
  const std::uint64_t part_bytes_;
  const std::uint64_t operation_bytes_;
  const std::size_t depth_;

  Mutex mutex_;
  Condition changed_;
  // Shared with the worker that fills it, so that it can be forgotten meanwhile.
  std::map<std::uint64_t, std::shared_ptr<Chunk>> chunks_ SIPHON_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Chunk>> queue_ SIPHON_GUARDED_BY(mutex_);
  bool stopping_ SIPHON_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> workers_;
};

// Writes a byte stream to a scratch extent, several operations in flight. Memory: write_depth * 2
// operations. `scratch` must outlive it.
class WriteBehind {
 public:
  WriteBehind(ScratchExtent& scratch, const StoreLimits& limits);
  ~WriteBehind();  // drops what is queued, waits for the writes in flight
  // Takes the next bytes; blocks while the pipeline is full. The first failure of any write is
  // returned from then on.
  Status append(std::span<const std::byte> bytes);
  // Writes the rest and waits until all is acknowledged.
  Status finish();
  std::uint64_t acknowledged_bytes();

 private:
  struct Piece {
    std::uint64_t offset_bytes = 0;
    std::vector<std::byte> bytes;
  };
  std::uint64_t room_at(std::uint64_t offset_bytes) const;
  Status submit();
  void work();

  ScratchExtent& scratch_;
  const std::uint64_t operation_bytes_;
  const std::size_t depth_;
  Piece current_;

  Mutex mutex_;
  Condition changed_;
  std::deque<Piece> queue_ SIPHON_GUARDED_BY(mutex_);
  std::size_t in_flight_ SIPHON_GUARDED_BY(mutex_) = 0;
  std::uint64_t acknowledged_bytes_ SIPHON_GUARDED_BY(mutex_) = 0;
  Status status_ SIPHON_GUARDED_BY(mutex_);
  bool stopping_ SIPHON_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> workers_;
};

}  // namespace siphon::cli
