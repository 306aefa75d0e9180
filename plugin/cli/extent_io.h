// Whole extents through any ExtentStore, on this machine: what put, get, seal, blocks and
// verify --local do. Functions block and may run concurrently on different extents.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "adapters/extent_store.h"
#include "plugin/base/status.h"
#include "plugin/format/extent_format.h"
#include "plugin/transfer/types.h"

namespace siphon::cli {

// Watched between blocks. `stop` set: CANCELLED, nothing left behind.
struct IoControl {
  const std::atomic<bool>* stop = nullptr;
  std::function<void(std::uint64_t done_bytes)> progress;  // may be empty
  Status check() const;
  void report(std::uint64_t done_bytes) const {
    if (progress) progress(done_bytes);
  }
};

// Reads up to out.size() bytes; 0 is the end.
using ContentSource = std::function<Result<std::size_t>(std::span<std::byte> out)>;

struct PutRequest {
  std::uint64_t block_bytes = kMaxBlockBytes;
  bool leave_open = false;  // publish without index and footer
  bool replace = false;
  // Asked when all is read and before anything is published, with the blocks; may be empty.
  std::function<Status(std::span<const IndexEntry> blocks)> before_publish;
  // Told of each generation that left the trash for good to make room; may be empty.
  std::function<void(const TrashEntry&)> on_gone;
};
// Small ones in one operation, larger ones through a scratch extent that is aborted on any
// failure: nobody ever sees a part of it. ALREADY_EXISTS unless `replace`. An empty content is an
// extent without blocks. Returns what stands there now.
Result<ExtentInfo> put_extent(ExtentStore& store, const std::string& name,
                              const ContentSource& content, const PutRequest& request,
                              const IoControl& control);

// Hands the content of a sealed extent to `sink`, block by block, each after its SHA-256 was
// right; at the end checks the crc32 of everything. DATA_LOSS names what differs: what went to the
// sink before it is then not to be used.
Result<ExtentInfo> get_extent(ExtentStore& store, const std::string& name, const ByteSink& sink,
                              const IoControl& control);

// Re-reads everything. The outcome's status says what is wrong.
VerifyOutcome verify_extent_here(ExtentStore& store, const std::string& name,
                                 const IoControl& control);

struct Blocks {
  ExtentInfo info;
  std::vector<IndexEntry> entries;
  std::uint64_t valid_bytes = 0;  // open: where the whole blocks end
  std::uint64_t bytes = 0;        // all that is there
};
// The index of a sealed extent, or what a scan of an open one finds.
Result<Blocks> read_blocks(ExtentStore& store, const std::string& name, const IoControl& control);

// What sealing an open extent after its last whole block comes to; changes nothing.
struct SealPlan {
  ExtentInfo seen;
  SealedHeader header;
  std::vector<std::byte> tail;
  std::uint64_t valid_bytes = 0;
  std::uint64_t dropped_bytes = 0;  // all that is behind
  BlocksBehind behind;              // what is sound among it
  // The first thing that could not be read: damaged, or a part is missing.
  std::optional<Error> unreadable;
  // A write that was torn loses its own blocks and no other. Anything else is damage.
  bool is_damaged() const { return behind.count > 0 || unreadable; }
};
Result<SealPlan> plan_seal(ExtentStore& store, const std::string& name, const IoControl& control);
// DATA_LOSS, with what sealing would cut off.
Error seal_is_refused(const std::string& name, const SealPlan& plan);
// Seals what was planned, if it is still there. FAILED_PRECONDITION: no whole block would be left.
Status seal_extent(ExtentStore& store, const std::string& name, const SealPlan& plan);

}  // namespace siphon::cli
