// A whole transfer in one process, for its tests: TargetTransfer and SourceService over memory
// stores, with real lanes on loopback. Only the second call is short: it calls the source directly.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "adapters/memory/memory_store.h"
#include "adapters/store_util.h"
#include "plugin/base/crc32.h"
#include "plugin/transfer/manager.h"
#include "plugin/transfer/source.h"
#include "plugin/transfer/target.h"
#include "tests/contract/samples.h"
#include "tests/support/manual_clock.h"

namespace siphon::target_test {

using contract::Bytes;
using contract::code_of;
using contract::make_sample;
using contract::Sample;
using contract::small_parts;

// Opens once; a wait that takes longer than any test should fails it instead of hanging.
class Gate {
 public:
  void open() {
    {
      std::lock_guard lock(mutex_);
      open_ = true;
    }
    changed_.notify_all();
  }
  void wait(std::chrono::seconds at_most = std::chrono::seconds(20)) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, at_most, [this] { return open_; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

// One end's store. Counts the operations; a test may add a reaction of its own to them.
class End {
 public:
  explicit End(const Location& at) : provider({at.pool}, small_parts()), location(at) {
    provider.set_fault_hook([this](const MemoryOperation& op) -> Status {
      {
        std::lock_guard lock(mutex_);
        ++counts_[{std::string(op.operation), std::string(op.name)}];
      }
      return react ? react(op) : Status{};
    });
  }
  // How often; `name` empty: for all extents together.
  int count(const std::string& operation, const std::string& name = "") {
    std::lock_guard lock(mutex_);
    int sum = 0;
    for (const auto& [key, n] : counts_) {
      if (key.first == operation && (name.empty() || key.second == name)) sum += n;
    }
    return sum;
  }
  ExtentStore& store() { return **provider.open(location); }

  Sample put(const std::string& name, std::size_t bytes) {
    return put(name, make_sample(bytes, std::hash<std::string>{}(name)));
  }
  Sample put(const std::string& name, Sample sample) {
    const StoreLimits limits = store().limits();
    if (sample.bytes.size() <= limits.inline_max_bytes) {
      EXPECT_TRUE(store().put_inline(name, new_private_id(), sample.bytes, sample.header));
      return sample;
    }
    BeginOptions options{sample.bytes.size(), new_private_id(), now_unix_ms() + 1'000'000};
    auto scratch = store().begin(name, options);
    EXPECT_TRUE(scratch);
    EXPECT_TRUE(write_range(**scratch, limits, 0, sample.bytes));
    EXPECT_TRUE((*scratch)->publish(sample.header, false, ExtentState::kSealed));
    return sample;
  }
  Bytes read(const std::string& name) {
    auto reader = store().open(name, {});
    EXPECT_TRUE(reader) << name;
    if (!reader) return {};
    Bytes bytes((*reader)->info().header.extent_bytes);
    EXPECT_TRUE(read_range(**reader, store().limits(), 0, bytes));
    return bytes;
  }
  std::size_t stored(const std::string& name) { return provider.raw_count(location, name); }

  MemoryProvider provider;
  const Location location;
  std::function<Status(const MemoryOperation&)> react;  // set while nothing runs

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, int> counts_;
};

class DirectCaller final : public SourceCaller {
 public:
  DirectCaller(SourceService& service, ExtentStore& store) : service_(service), store_(store) {}
  StreamEnd stream(const StreamCall& call,
                   const std::function<void(const SourceReport&)>& on_report,
                   std::stop_token stop) override {
    if (call.headers_only && hang_at_headers) {
      hang_at_headers(stop);
      StreamEnd end;
      end.status = header_end;
      return end;
    }
    if (fails) {
      const auto spoilt = [&](const SourceReport& said) {
        SourceReport report = said;
        for (auto& e : report.extents) {
          if (fails(e.index)) e.claim = fail(Code::kDataLoss, "rot", Side::kSource);
        }
        on_report(report);
      };
      return service_.stream(call, store_, spoilt, std::move(stop));
    }
    if (!lose_connection_when) return service_.stream(call, store_, on_report, std::move(stop));
    // The source goes on sending, and nobody hears what it has to say.
    lost_ = std::jthread([this, order = copy_of(call)] {
      (void)service_.stream(order, store_, [](const SourceReport&) {}, {});
    });
    lose_connection_when->wait();
    StreamEnd end;
    end.status = fail(Code::kUnavailable, "the connection was lost");
    return end;
  }

  Gate* lose_connection_when = nullptr;
  std::function<bool(std::uint32_t)> fails;  // by index: the source finds rot in it
  // Instead of an answer to the question for headers; the call ends when it returns.
  std::function<void(const std::stop_token&)> hang_at_headers;
  Status header_end = fail(Code::kCancelled, "the second call was cancelled");
  void join() {
    if (lost_.joinable()) lost_.join();
  }

 private:
  static StreamCall copy_of(const StreamCall& c) {
    return {c.transfer_id,  c.attempt,        c.source_address,   c.source,     c.extents,
            c.data,         c.ticket.clone(), c.target_device,    c.lanes,      c.max_frame_bytes,
            c.minimum_rate, c.deadline,       c.bytes_per_second, c.source_key, c.target_store};
  }
  SourceService& service_;
  ExtentStore& store_;
  std::jthread lost_;
};

class TargetTransferTest : public ::testing::Test {
 protected:
  TargetTransferTest() {
    settings_.device = "osd.2";
    settings_.lanes = 2;
    settings_.max_frame_bytes = 128 * kKiB;
    settings_.max_extent_bytes = kGiB;
    journal_ = *AttemptJournal::open(":memory:");
  }

  // The source has it; the requester believes it has `planned_bytes` (by default the truth).
  const Sample& offer(const std::string& name, std::size_t bytes) {
    return samples_[name] = source_.put(name, bytes);
  }
  // The same, but it was sealed before there were digests.
  void offer_version_1(const std::string& name, std::size_t bytes) {
    Sample sample = make_sample(bytes, std::hash<std::string>{}(name));
    sample.header.format_version = 1;
    sample.header.content_digest = {};
    samples_[name] = source_.put(name, std::move(sample));
  }
  void order(const std::string& name) { order(name, samples_.at(name).bytes.size()); }
  void order(const std::string& name, std::uint64_t planned_bytes) {
    spec_.extents.push_back({name, name, planned_bytes});
  }

  void run(bool source_ends_too = false) {
    if (spec_.id.empty()) spec_.id = new_transfer_id();
    spec_.source = source_.location;
    spec_.target = target_.location;
    TargetTransfer transfer(
        spec_, target_.store(),
        {settings_, receive_pool_, *journal_, caller_, counters_, receive_throttle_,
         [this](Attempt a) { left_behind_.push_back(std::move(a)); }, clock_},
        known_);
    transfer_ = &transfer;
    transfer.run();
    if (source_ends_too) caller_.join();
    std::size_t cursor = 0;
    auto update = transfer.wait_update(&cursor, std::chrono::milliseconds(0));
    transfer_ = nullptr;
    ASSERT_TRUE(update.summary);
    summary_ = *update.summary;
    progress_ = update.progress;
    for (ExtentOutcome& o : update.outcomes) {
      const std::string name = o.target_extent;
      left_for_good_[name] = o.all_left_for_good();
      EXPECT_TRUE(outcomes_.emplace(name, std::move(o.result)).second) << name;
    }
    EXPECT_EQ(outcomes_.size(), spec_.extents.size());
    EXPECT_EQ(receive_pool_.in_use_bytes(), 0u);
    EXPECT_EQ(send_pool_.in_use_bytes(), 0u);
    EXPECT_EQ(counters_.open_data_ports, 0u);
  }

  // The code of its outcome, or OK.
  std::string outcome(const std::string& name) { return code_of(outcomes_.at(name)); }

  // Copied, with a receipt that speaks of what is there, and nothing of it beside.
  void expect_copied(const std::string& name) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(outcomes_.at(name)) << outcomes_.at(name).error().message;
    const Receipt& receipt = *outcomes_.at(name);
    const Sample& sample = samples_.at(name);
    EXPECT_EQ(receipt.bytes, sample.bytes.size());
    EXPECT_EQ(receipt.source_crc32, crc32(sample.bytes));
    EXPECT_EQ(receipt.target_crc32, receipt.source_crc32);
    EXPECT_EQ(receipt.header.crc32, receipt.source_crc32);
    EXPECT_EQ(receipt.header.block_count, sample.header.block_count);
    EXPECT_EQ(receipt.header.content_digest, sample.digest);
    auto info = target_.store().stat(name);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->header.content_digest, sample.digest);
    EXPECT_EQ(info->header.format_version, kSealedHeaderVersion);
    EXPECT_EQ(info->private_id, receipt.private_id);
    EXPECT_EQ(info->scratch_count, 0u);
    EXPECT_EQ(target_.stored(name), 2u + info->trash_count) << "a register, and bytes by id";
    EXPECT_TRUE(target_.read(name) == sample.bytes);
  }
  void expect_no_trace_of(const std::string& name) { EXPECT_EQ(target_.stored(name), 0u) << name; }
  void expect_journal_empty() {
    auto rows = journal_->all();
    ASSERT_TRUE(rows);
    EXPECT_EQ(rows->size(), 0u);
    EXPECT_EQ(left_behind_.size(), 0u);
  }

  // The source opens nothing before `begins` reservations were asked for at the target.
  void hold_source_until_begun(int begins) {
    target_.react = [this, begins](const MemoryOperation& op) -> Status {
      if (op.operation == "begin" && target_.count("begin") >= begins) begun_.open();
      return {};
    };
    source_.react = [this](const MemoryOperation& op) -> Status {
      if (op.operation == "open") begun_.wait();
      return {};
    };
  }

  End source_{{"from", ""}};
  End target_{{"to", "ns"}};
  Gate begun_;
  std::map<std::string, Sample> samples_;
  TransferSpec spec_;
  TransferSettings settings_;
  test::ManualClock clock_;
  ArenaMemory send_arena_ = *ArenaMemory::allocate(8 * kMiB);
  ArenaMemory receive_arena_ = *ArenaMemory::allocate(8 * kMiB);
  BufferPool send_pool_{send_arena_.span()};
  BufferPool receive_pool_{receive_arena_.span()};
  Throttle throttle_, receive_throttle_;
  DeviceCounters counters_;
  std::unique_ptr<AttemptJournal> journal_;
  SourceService service_{settings_, send_pool_, throttle_, counters_};
  DirectCaller caller_{service_, source_.store()};

  TargetTransfer* transfer_ = nullptr;  // while it runs
  std::vector<Receipt> known_;
  std::vector<Attempt> left_behind_;
  Summary summary_;
  Progress progress_;
  std::map<std::string, Result<Receipt>> outcomes_;
  std::map<std::string, std::vector<TrashEntry>> left_for_good_;
};

}  // namespace siphon::target_test
