// What PosixStore hands out: readers and scratch extents. For the store alone.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "adapters/posix/posix_store_impl.h"
#include "adapters/store_util.h"

namespace siphon {

class PosixReader final : public ExtentReader {
 public:
  PosixReader(Fd fd, ExtentInfo info, std::uint32_t operation_bytes)
      : fd_(std::move(fd)), info_(std::move(info)), operation_bytes_(operation_bytes) {}

  const ExtentInfo& info() const override { return info_; }
  std::size_t prefetched_bytes() const override { return prefetched_bytes_; }
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), info_.header.extent_bytes,
                               info_.header.part_bytes, operation_bytes_));
    return fill(offset_bytes, out);
  }
  // Reads all of an inline extent when it fits.
  Status prefetch(std::span<std::byte> out) {
    if (!info_.is_inline || info_.header.extent_bytes > out.size()) return {};
    SIPHON_TRY(fill(0, out.first(info_.header.extent_bytes)));
    prefetched_bytes_ = info_.header.extent_bytes;
    return {};
  }

 private:
  Status fill(std::uint64_t offset_bytes, std::span<std::byte> out) {
    auto bytes = posix::read_some(fd_.get(), offset_bytes, out, "extent " + info_.name);
    if (!bytes) return fail(std::move(bytes).error());
    if (*bytes < out.size()) {
      return fail(Code::kDataLoss, "extent " + info_.name + " ends after " +
                                       std::to_string(offset_bytes + *bytes) + " of " +
                                       std::to_string(info_.header.extent_bytes) + " bytes");
    }
    return {};
  }

  const Fd fd_;  // pins the file, whatever happens to its name
  const ExtentInfo info_;
  const std::uint32_t operation_bytes_;
  std::size_t prefetched_bytes_ = 0;
};

class PosixScratch final : public ScratchExtent {
 public:
  PosixScratch(PosixStore& store, std::string name, const BeginOptions& options,
               std::uint64_t generation, Fd fd)
      : store_(store),
        name_(std::move(name)),
        id_(options.private_id),
        declared_bytes_(options.extent_bytes),
        generation_(generation),
        fd_(std::move(fd)) {}

  const PrivateId& private_id() const override { return id_; }
  std::uint32_t part_bytes() const override { return store_.limits().part_bytes; }
  Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) override;
  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override;
  Status publish(const SealedHeader& header, bool replace, ExtentState as_state) override;
  Status abort() override {
    SIPHON_TRY(store_.collect(name_, id_));
    finished_ = true;
    return {};
  }

 private:
  Status make_durable();

  PosixStore& store_;
  const std::string name_;
  const PrivateId id_;
  const std::uint64_t declared_bytes_;  // 0: unknown
  const std::uint64_t generation_;      // what begin saw
  const Fd fd_;
  std::atomic<bool> finished_{false};
  // A failed fdatasync drops the dirty pages: the next one would succeed and prove nothing.
  bool sync_failed_ = false;
};

inline Status PosixScratch::write(std::uint64_t offset_bytes, std::span<const std::byte> in) {
  const StoreLimits limits = store_.limits();
  const std::uint64_t end = declared_bytes_ ? declared_bytes_ : limits.max_extent_bytes;
  SIPHON_TRY(check_io_bounds(offset_bytes, in.size(), end, part_bytes(), limits.operation_bytes));
  if (finished_) return fail(Code::kFailedPrecondition, "write after publish or abort");
  SIPHON_TRY(posix::write_all(fd_.get(), offset_bytes, in, "extent " + name_));
  // Starts write-back, so that publish finds little left to do. Only a hint.
  (void)::sync_file_range(fd_.get(), static_cast<off_t>(offset_bytes),
                          static_cast<off_t>(in.size()), SYNC_FILE_RANGE_WRITE);
  return {};
}

inline Status PosixScratch::read(std::uint64_t offset_bytes, std::span<std::byte> out) {
  const StoreLimits limits = store_.limits();
  const std::uint64_t end = declared_bytes_ ? declared_bytes_ : limits.max_extent_bytes;
  SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), end, part_bytes(), limits.operation_bytes));
  auto bytes = posix::read_some(fd_.get(), offset_bytes, out, "extent " + name_);
  if (!bytes) return fail(std::move(bytes).error());
  if (*bytes < out.size()) return fail(scratch_is_short(name_));
  return {};
}

inline Status PosixScratch::make_durable() {
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) return fail(posix::file_error(errno, "publish " + name_));
  if (static_cast<std::uint64_t>(st.st_size) < declared_bytes_ &&
      ::ftruncate(fd_.get(), st.st_size) != 0) {  // gives back the rest
    return fail(posix::file_error(errno, "publish " + name_));
  }
  if (!sync_failed_ && ::fdatasync(fd_.get()) == 0) return {};
  const int error = sync_failed_ ? EIO : errno;
  sync_failed_ = true;
  return fail(posix::file_error(error, "sync " + name_));
}

inline Status PosixScratch::publish(const SealedHeader& header, bool replace,
                                    ExtentState as_state) {
  if (as_state == ExtentState::kNone) {
    return fail(Code::kInvalidArgument, "publish as neither open nor sealed");
  }
  if (!finished_) SIPHON_TRY(make_durable());
  const TransitionRequest request =
      publish_request(id_, generation_, header, part_bytes(), replace, as_state);
  SIPHON_TRY(store_.publish(name_, request));
  finished_ = true;
  return {};
}

}  // namespace siphon
