// What RadosStore hands out: readers and scratch extents. For the store alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "adapters/extent_store.h"
#include "adapters/rados/parts.h"
#include "adapters/rados/rados_internal.h"
#include "adapters/rados/rados_store.h"
#include "adapters/store_util.h"
#include "plugin/core/mutex.h"

namespace siphon {

class RadosReader final : public ExtentReader {
 public:
  RadosReader(RadosStore& store, librados::IoCtx io, ExtentInfo info, std::size_t prefetched_bytes)
      : store_(store),
        io_(std::move(io)),
        info_(std::move(info)),
        prefetched_bytes_(prefetched_bytes) {}

  const ExtentInfo& info() const override { return info_; }
  std::size_t prefetched_bytes() const override { return prefetched_bytes_; }

  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    const std::uint32_t part_bytes = info_.header.part_bytes;
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), info_.header.extent_bytes, part_bytes,
                               store_.limits_.operation_bytes));
    if (out.empty()) return {};
    const std::uint64_t part = offset_bytes / part_bytes;
    const std::string object = info_.is_inline ? rados_internal::head_object(info_.name)
                                               : part_object(info_.private_id, part);
    std::size_t got = 0;
    const int result = store_.io_->read(
        io_, object, info_.is_inline ? offset_bytes : offset_bytes % part_bytes, out, got);
    if (result == 0 && got == out.size()) return {};
    if (result < 0 && result != -ENOENT) {
      return fail(store_.damaged(
          rados_internal::to_error(result, "read " + store_.describe(info_.name)), object));
    }
    return fail(explain_missing(object));
  }

 private:
  // Bytes that the header promises are not there: taken away behind us, or lost?
  Error explain_missing(const std::string& object) {
    auto head = store_.read_head(io_, info_.name);
    if (!head) return std::move(head).error();
    const HeadRegister& reg = head->reg;
    if (!head->present || reg.state == ExtentState::kNone || reg.current != info_.private_id) {
      return {Code::kNotFound,
              store_.describe(info_.name) + " was replaced or removed while it was read",
              Side::kNone, "look at it again, then retry"};
    }
    return {Code::kDataLoss,
            store_.describe(info_.name) + ": object " + object + " is missing or too short",
            Side::kNone, "check what is left of it: siphon verify"};
  }

  RadosStore& store_;
  librados::IoCtx io_;
  const ExtentInfo info_;
  const std::size_t prefetched_bytes_;
};

class RadosScratch final : public ScratchExtent {
 public:
  RadosScratch(RadosStore& store, librados::IoCtx io, std::string name, const BeginOptions& options,
               std::uint64_t generation)
      : store_(store),
        io_(std::move(io)),
        name_(std::move(name)),
        id_(options.private_id),
        known_bytes_(options.extent_bytes),
        stop_(options.stop),
        generation_(generation) {}

  const PrivateId& private_id() const override { return id_; }
  std::uint32_t part_bytes() const override { return store_.limits_.part_bytes; }

  Status write(std::uint64_t offset_bytes, std::span<const std::byte> in) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, in.size(), end_bytes(), part_bytes(),
                               store_.limits_.operation_bytes));
    if (finished_) return fail(Code::kFailedPrecondition, "write after publish or abort");
    if (in.empty()) return {};
    const std::uint64_t end = offset_bytes + in.size();
    const bool whole = offset_bytes % part_bytes() == 0 &&
                       (in.size() == part_bytes() || known_bytes_ == 0 || end == known_bytes_);
    if (store_.limits_.in_order && !whole) return write_in_order(offset_bytes, in);
    return write_object(offset_bytes, in);
  }

  Status read(std::uint64_t offset_bytes, std::span<std::byte> out) override {
    SIPHON_TRY(check_io_bounds(offset_bytes, out.size(), end_bytes(), part_bytes(),
                               store_.limits_.operation_bytes));
    if (out.empty()) return {};
    const std::string object = part_object(id_, offset_bytes / part_bytes());
    std::size_t got = 0;
    const int result = store_.io_->read(io_, object, offset_bytes % part_bytes(), out, got);
    if (result < 0 && result != -ENOENT) {
      return fail(store_.damaged(
          rados_internal::to_error(result, "read back " + store_.describe(name_)), object));
    }
    if (result < 0 || got < out.size()) return fail(scratch_is_short(name_));
    return {};
  }

  Status publish(const SealedHeader& header, bool replace, ExtentState as_state) override {
    if (as_state == ExtentState::kNone) {
      return fail(Code::kInvalidArgument, "publish as neither open nor sealed");
    }
    if (as_state == ExtentState::kSealed) SIPHON_TRY(check_length(header.extent_bytes));
    TransitionRequest request =
        publish_request(id_, generation_, header, part_bytes(), replace, as_state);
    if (request.open) request.header.extent_bytes = 0;  // unknown: it may grow until it is sealed
    SIPHON_TRY(store_.transition(io_, name_, request));
    finished_ = true;
    return {};
  }

  bool settled() const override { return !uncertain_; }
  Status abort() override {
    // A write that got no answer may still happen: then a trash entry stays for the collector,
    // who looks for the parts again.
    SIPHON_TRY(store_.drop(name_, id_, parts_of(written_end_, part_bytes()), uncertain_));
    finished_ = true;
    return {};
  }

 private:
  Status write_object(std::uint64_t offset_bytes, std::span<const std::byte> in) {
    const std::uint64_t part = offset_bytes / part_bytes();
    const std::uint64_t part_start = part * part_bytes();
    const std::string object = part_object(id_, part);
    raise_end(offset_bytes + in.size());
    const int result =
        store_.io_->write(io_, object, offset_bytes - part_start, in,
                          std::min<std::uint64_t>(part_bytes(), end_bytes() - part_start), stop_);
    if (result == 0) return {};
    if (result == -EINTR && stop_.stop_requested()) {
      return fail(Code::kCancelled, "write " + store_.describe(name_) + ": cancelled");
    }
    if (result == -ETIMEDOUT) uncertain_ = true;
    if (result == -EBADMSG) {
      return fail(Code::kDataLoss,
                  "write " + store_.describe(name_) +
                      ": the bytes changed in memory after they were verified",
                  Side::kTarget, "retry; if it happens again, test that host's memory");
    }
    return fail(store_.damaged(rados_internal::to_error(result, "write " + store_.describe(name_)),
                               object));
  }

  // Where a pool takes whole stripes at an object's end only: what is less waits for the next
  // piece. A part's last append may be of any length.
  Status write_in_order(std::uint64_t offset_bytes, std::span<const std::byte> in) {
    const MutexLock lock(order_mutex_);
    const std::uint64_t in_part = offset_bytes % part_bytes();
    if (in_part == 0) rest_.clear();
    if (in_part != 0 && offset_bytes != next_bytes_) {
      return fail(Code::kFailedPrecondition,
                  "write " + store_.describe(name_) + ": the pool takes no overwrites, and byte " +
                      std::to_string(offset_bytes) + " came when " + std::to_string(next_bytes_) +
                      " was due",
                  Side::kTarget,
                  "ceph osd pool set " + store_.location_.pool +
                      " allow_ec_overwrites true, or use another pool");
    }
    const std::uint64_t end = offset_bytes + in.size();
    const std::uint64_t start = offset_bytes - rest_.size();
    const bool last = end % part_bytes() == 0 || end == known_bytes_;
    const std::uint64_t stripe = store_.stripe_bytes_;
    const std::size_t now = last ? end - start : (end - start) / stripe * stripe;
    std::span<const std::byte> out = in;
    std::vector<std::byte> joined;
    if (!rest_.empty()) {
      joined.reserve(rest_.size() + in.size());
      joined.insert(joined.end(), rest_.begin(), rest_.end());
      joined.insert(joined.end(), in.begin(), in.end());
      out = joined;
    }
    if (now > 0) SIPHON_TRY(write_object(start, out.first(now)));
    const std::span<const std::byte> left = out.subspan(now);
    rest_ = std::vector<std::byte>(left.begin(), left.end());
    next_bytes_ = end;
    return {};
  }

  std::uint64_t end_bytes() const {
    return known_bytes_ != 0 ? known_bytes_ : store_.limits_.max_extent_bytes;
  }
  void raise_end(std::uint64_t end_bytes) {
    std::uint64_t seen = written_end_;
    while (seen < end_bytes && !written_end_.compare_exchange_weak(seen, end_bytes)) {
    }
  }
  // That what is there ends where the header says. Asks the parts only when this attempt did not
  // write up to there itself (a resumed one).
  Status check_length(std::uint64_t extent_bytes) {
    if (written_end_ == extent_bytes) return {};
    std::uint64_t total_bytes = 0;
    const int result = measure_parts(io_, id_, part_bytes(), total_bytes);
    if (result < 0)
      return fail(rados_internal::to_error(result, "measure " + store_.describe(name_)));
    if (total_bytes == extent_bytes) return {};
    auto head = store_.read_head(io_, name_);
    if (!head) return fail(std::move(head).error());
    const auto is_ours = [this](const Reservation& entry) { return entry.id == id_; };
    if (std::ranges::none_of(head->reg.reservations, is_ours)) {
      return fail(transition_error(-ECANCELED, Transition::kPublish, name_));
    }
    return fail(Code::kFailedPrecondition, "publish " + name_ + ": " + std::to_string(total_bytes) +
                                               " of " + std::to_string(extent_bytes) +
                                               " bytes were written");
  }

  RadosStore& store_;
  librados::IoCtx io_;
  const std::string name_;
  const PrivateId id_;
  const std::uint64_t known_bytes_;  // 0: unknown
  const std::stop_token stop_;
  const std::uint64_t generation_;  // what begin saw
  std::atomic<std::uint64_t> written_end_{0};
  Mutex order_mutex_;
  std::uint64_t next_bytes_ SIPHON_GUARDED_BY(order_mutex_) = 0;
  // Before next_bytes_, less than a stripe, not written yet.
  std::vector<std::byte> rest_ SIPHON_GUARDED_BY(order_mutex_);
  std::atomic<bool> uncertain_{false};
  std::atomic<bool> finished_{false};
};

}  // namespace siphon
