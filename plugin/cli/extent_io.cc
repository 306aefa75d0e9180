#include "plugin/cli/extent_io.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "plugin/base/crc32.h"
#include "plugin/base/ticker.h"
#include "plugin/cli/stream_io.h"

namespace siphon::cli {
namespace {

// Short, so that what a killed put leaves is soon anybody's to remove; renewed while it runs.
constexpr std::uint64_t kScratchLeaseMs = 10 * 60 * 1000;
constexpr std::chrono::milliseconds kRenewal{kScratchLeaseMs / 5};

// Takes an encoder's bytes: keeps them while they may still fit an inline extent, then writes them
// behind into a scratch extent.
class PutTarget {
 public:
  PutTarget(ExtentStore& store, const std::string& name, const PutRequest& request)
      : store_(store), name_(name), request_(request), limits_(store.limits()) {}

  Status take(std::span<const std::byte> bytes) {
    if (!writer_ && held_.size() + bytes.size() <= limits_.inline_max_bytes) {
      held_.insert(held_.end(), bytes.begin(), bytes.end());
      return {};
    }
    SIPHON_TRY(begin());
    return writer_->append(bytes);
  }

  Status commit(const SealedHeader& header) {
    if (!writer_ && !request_.leave_open && !request_.replace) {
      Status done = store_.put_inline(name_, new_private_id(), held_, header);
      // A head is there, perhaps with nothing but trash: the register decides.
      if (done || done.error().code != Code::kAlreadyExists) return done;
    }
    SIPHON_TRY(begin());
    SIPHON_TRY(writer_->finish());
    renewer_.reset();
    // Not before: a put that fails should have cost nothing.
    if (request_.replace) SIPHON_TRY(store_.make_room(name_, true, request_.on_gone));
    SIPHON_TRY(scratch_->publish(header, request_.replace,
                                 request_.leave_open ? ExtentState::kOpen : ExtentState::kSealed));
    if (request_.replace) (void)store_.trim_trash(name_, request_.on_gone);  // the next one tries
    return {};
  }

  void abort() {
    renewer_.reset();
    writer_.reset();
    if (scratch_) (void)scratch_->abort();
    scratch_.reset();
  }

  std::uint64_t durable_bytes() { return writer_ ? writer_->acknowledged_bytes() : 0; }

 private:
  Status begin() {
    if (writer_) return {};
    SIPHON_TRY(store_.make_room(name_, false));
    BeginOptions options;
    options.private_id = new_private_id();
    options.lease_unix_ms = now_unix_ms() + kScratchLeaseMs;
    options.replace = request_.replace;
    auto scratch = store_.begin(name_, options);
    if (!scratch) {
      // The reservation may have been made all the same: what it names is taken away again.
      if (scratch.error().code != Code::kAlreadyExists &&
          scratch.error().code != Code::kInvalidArgument) {
        (void)store_.collect(name_, options.private_id);
      }
      return fail(std::move(scratch).error());
    }
    scratch_ = std::move(*scratch);
    writer_ = std::make_unique<WriteBehind>(*scratch_, limits_);
    renewer_.emplace(kRenewal, [this, options, is_new = true]() mutable {
      if (!std::exchange(is_new, false)) renew(options);
      return true;
    });
    return writer_->append(std::exchange(held_, {}));
  }

  // However long the content takes to come: reserving the same id again moves the end of its lease.
  void renew(BeginOptions& options) {
    options.renews = true;
    options.lease_unix_ms = now_unix_ms() + kScratchLeaseMs;
    (void)store_.begin(name_, options);  // the next one, or the publish, says what is wrong
  }

  ExtentStore& store_;
  const std::string& name_;
  const PutRequest& request_;
  const StoreLimits limits_;
  std::vector<std::byte> held_;
  std::unique_ptr<ScratchExtent> scratch_;
  std::unique_ptr<WriteBehind> writer_;  // writes into scratch_: goes first
  std::optional<Ticker> renewer_;
};

// Blocks of equal length, however short the source's reads are.
Status encode_content(const ContentSource& content, std::uint64_t block_bytes,
                      ExtentEncoder& encoder, PutTarget& target, const IoControl& control) {
  std::vector<std::byte> block(block_bytes);
  for (;;) {
    std::size_t filled = 0;
    while (filled < block.size()) {
      SIPHON_TRY(control.check());
      auto got = content(std::span(block).subspan(filled));
      if (!got) return fail(std::move(got).error());
      if (*got == 0) break;
      filled += *got;
    }
    if (filled == 0) break;
    SIPHON_TRY(encoder.append(std::span(block).first(filled)));
    control.report(target.durable_bytes());
    if (filled < block.size()) break;
  }
  return {};
}

Result<std::unique_ptr<ExtentReader>> open_reader(ExtentStore& store, const std::string& name,
                                                  bool allow_open) {
  auto reader = store.open(name, {}, allow_open);
  if (!reader) return fail(std::move(reader).error());
  return std::move(*reader);
}

tl::unexpected<Error> damaged(const std::string& what) {
  return fail(Code::kDataLoss, what, Side::kSource, "do not use it; restore it from another copy");
}

// Blocks in order into the sink; returns the crc32 of what was read.
Result<std::uint32_t> deliver_blocks(ReadAhead& source, const std::vector<IndexEntry>& blocks,
                                     const ByteSink& sink, const IoControl& control) {
  std::vector<std::byte> buffer(kBlockHeaderBytes + kMaxBlockBytes);
  std::uint32_t crc = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    SIPHON_TRY(control.check());
    const IndexEntry& entry = blocks[i];
    const auto whole = std::span(buffer).first(kBlockHeaderBytes + entry.length_bytes);
    SIPHON_TRY(source.read(entry.offset_bytes, whole));
    const auto header = decode_block_header(whole.first(kBlockHeaderBytes));
    const auto content = whole.subspan(kBlockHeaderBytes);
    const std::string block = "block " + std::to_string(i);
    if (!header) return fail(header.error().with_context(block));
    if (header->length_bytes != entry.length_bytes || header->sha256 != entry.sha256) {
      return damaged(block + ": its header and the index disagree");
    }
    if (sha256(content) != entry.sha256) return damaged(block + ": its SHA-256 is wrong");
    crc = crc32(whole, crc);
    SIPHON_TRY(sink(content));
    control.report(entry.offset_bytes + whole.size());
  }
  return crc;
}

}  // namespace

Status IoControl::check() const {
  if (stop != nullptr && stop->load()) return fail(Code::kCancelled, "interrupted");
  return {};
}

Result<ExtentInfo> put_extent(ExtentStore& store, const std::string& name,
                              const ContentSource& content, const PutRequest& request,
                              const IoControl& control) {
  if (!request.replace) {
    if (auto there = store.stat(name); there) {
      return fail(Code::kAlreadyExists, "extent " + name + " already exists", Side::kRequester,
                  "choose another name, or --replace --yes-i-really-mean-it");
    }
  }
  PutTarget target(store, name, request);
  ExtentEncoder encoder([&](std::span<const std::byte> bytes) { return target.take(bytes); });
  Status status = encode_content(content, request.block_bytes, encoder, target, control);
  SealedHeader header;
  if (status && !request.leave_open) {
    auto sealed = encoder.seal();
    status = sealed ? Status{} : Status(fail(sealed.error()));
    if (sealed) header = *sealed;
  }
  if (status && request.before_publish) status = request.before_publish(encoder.blocks());
  if (status) status = control.check();
  if (status) {
    header.part_bytes = store.limits().part_bytes;
    header.sealed_unix_ms = request.leave_open ? 0 : now_unix_ms();
    if (request.leave_open) header.extent_bytes = encoder.extent_bytes();
    status = target.commit(header);
  }
  if (!status) {
    target.abort();
    return fail(std::move(status).error().with_context("put " + name));
  }
  control.report(encoder.extent_bytes());
  return store.stat(name);
}

Result<ExtentInfo> get_extent(ExtentStore& store, const std::string& name, const ByteSink& sink,
                              const IoControl& control) {
  const std::string what = "get " + name;
  auto reader = open_reader(store, name, false);
  if (!reader) return fail(std::move(reader).error().with_context(what));
  const ExtentInfo info = (*reader)->info();
  const std::uint64_t bytes = info.header.extent_bytes;
  ReadAhead ahead(**reader, store.limits());
  auto index = read_index(ahead.source(), bytes);
  if (!index) return fail(std::move(index).error().with_context(what));
  auto crc = deliver_blocks(ahead, *index, sink, control);
  if (!crc) return fail(std::move(crc).error().with_context(what));
  // Index and footer belong to the checksum, too.
  const std::uint64_t tail_offset =
      index->empty() ? 0
                     : index->back().offset_bytes + kBlockHeaderBytes + index->back().length_bytes;
  std::vector<std::byte> tail(std::min<std::uint64_t>(bytes - tail_offset, kMiB));
  for (std::uint64_t offset = tail_offset; offset < bytes;) {
    const auto piece = std::span(tail).first(std::min<std::uint64_t>(tail.size(), bytes - offset));
    if (auto ok = ahead.read(offset, piece); !ok) {
      return fail(std::move(ok).error().with_context(what));
    }
    *crc = crc32(piece, *crc);
    offset += piece.size();
  }
  if (*crc != info.header.crc32) {
    return damaged(what + ": the crc32 is " + crc32_hex(*crc) + ", sealed as " +
                   crc32_hex(info.header.crc32));
  }
  return info;
}

VerifyOutcome verify_extent_here(ExtentStore& store, const std::string& name,
                                 const IoControl& control) {
  VerifyOutcome outcome;
  outcome.extent = name;
  auto reader = open_reader(store, name, false);
  if (!reader) {
    outcome.status = fail(std::move(reader).error().with_context("verify " + name));
    return outcome;
  }
  outcome.header = (*reader)->info().header;
  outcome.private_id = (*reader)->info().private_id;
  ReadAhead ahead(**reader, store.limits());
  auto result = verify_extent(ahead.source(), outcome.header, [&](std::uint64_t done) {
    control.report(done);
    return control.check();
  });
  if (!result) {
    outcome.status = fail(std::move(result).error().with_context("verify " + name));
    return outcome;
  }
  outcome.bytes = result->extent_bytes;
  outcome.crc32 = result->crc32;
  outcome.block_count = result->block_count;
  outcome.content_digest = result->content_digest;
  return outcome;
}

Result<Blocks> read_blocks(ExtentStore& store, const std::string& name, const IoControl& control) {
  SIPHON_TRY(control.check());
  auto reader = open_reader(store, name, true);
  if (!reader) return fail(std::move(reader).error().with_context("blocks of " + name));
  Blocks blocks;
  blocks.info = (*reader)->info();
  blocks.bytes = blocks.info.header.extent_bytes;
  ReadAhead ahead(**reader, store.limits());
  if (blocks.info.state == ExtentState::kSealed) {
    auto index = read_index(ahead.source(), blocks.bytes);
    if (!index) return fail(std::move(index).error().with_context("index of " + name));
    blocks.entries = std::move(*index);
    blocks.valid_bytes = blocks.bytes;
    return blocks;
  }
  const ByteSource source = [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
    SIPHON_TRY(control.check());
    control.report(offset);
    return ahead.read(offset, out);
  };
  auto scan = scan_blocks(source, blocks.bytes);
  if (!scan) return fail(std::move(scan).error().with_context("scan of " + name));
  blocks.entries = std::move(scan->blocks);
  blocks.valid_bytes = scan->valid_bytes;
  return blocks;
}

Result<SealPlan> plan_seal(ExtentStore& store, const std::string& name, const IoControl& control) {
  SIPHON_TRY(control.check());
  auto reader = open_reader(store, name, true);
  if (!reader) return fail(std::move(reader).error().with_context("seal " + name));
  SealPlan plan;
  plan.seen = (*reader)->info();
  if (plan.seen.state == ExtentState::kSealed) {
    return fail(Code::kAlreadyExists, "extent " + name + " is sealed already", Side::kRequester);
  }
  ReadAhead ahead(**reader, store.limits());
  // What cannot be read is no block, and remembered: it may have held some.
  const ByteSource source = [&](std::uint64_t offset, std::span<std::byte> out) -> Status {
    SIPHON_TRY(control.check());
    control.report(offset);
    Status read = ahead.read(offset, out);
    if (read || read.error().code != Code::kDataLoss) return read;
    if (!plan.unreadable) plan.unreadable = std::move(read).error();
    std::ranges::fill(out, std::byte{0});
    return {};
  };
  const std::uint64_t bytes = plan.seen.header.extent_bytes;
  auto scan = scan_blocks(source, bytes);
  if (!scan) return fail(std::move(scan).error().with_context("scan of " + name));
  auto behind = find_blocks_behind(source, scan->valid_bytes, bytes);
  if (!behind) return fail(std::move(behind).error().with_context("scan of " + name));
  plan.behind = *behind;
  plan.valid_bytes = scan->valid_bytes;
  plan.dropped_bytes = bytes - scan->valid_bytes;
  ExtentEncoder encoder(
      [&](std::span<const std::byte> piece) -> Status {
        plan.tail.insert(plan.tail.end(), piece.begin(), piece.end());
        return {};
      },
      std::move(scan->blocks), scan->valid_bytes, scan->crc32);
  auto header = encoder.seal();
  if (!header) return fail(std::move(header).error().with_context("seal " + name));
  plan.header = *header;
  plan.header.part_bytes = plan.seen.header.part_bytes;
  plan.header.sealed_unix_ms = now_unix_ms();
  return plan;
}

Error seal_is_refused(const std::string& name, const SealPlan& plan) {
  std::string what = "extent " + name + " is damaged at byte " + std::to_string(plan.valid_bytes);
  if (plan.unreadable) what += " (" + plan.unreadable->message + ")";
  what += ": sealing it there cuts " + std::to_string(plan.dropped_bytes) + " bytes off";
  if (plan.behind.count > 0) {
    what += ", of which " + std::to_string(plan.behind.bytes) +
            " are sound: " + std::to_string(plan.behind.count) + " blocks from byte " +
            std::to_string(plan.behind.first_bytes) + " on";
  }
  return {Code::kDataLoss, what, Side::kSource, {}};
}

Status seal_extent(ExtentStore& store, const std::string& name, const SealPlan& plan) {
  if (plan.valid_bytes == 0 && plan.dropped_bytes > 0) {
    return fail(Code::kFailedPrecondition, "extent " + name + " begins with no whole block",
                Side::kSource, "look at it: siphon blocks; or remove it: siphon rm");
  }
  Status sealed = store.seal(name, plan.seen, plan.valid_bytes, plan.tail, plan.header);
  if (!sealed) return fail(std::move(sealed).error().with_context("seal " + name));
  return {};
}

}  // namespace siphon::cli
