// A whole transfer in one process: TargetTransfer and SourceService over memory stores, with real
// lanes on loopback. Only the second call is short: it calls the source directly.
//
// Most cases are about the scratch that is made early from the requester's hint (planned_bytes):
// whatever the hint says and however the transfer ends, a published extent has exactly one private
// id, an unpublished one none, and the journal is empty.
#include <gtest/gtest.h>

#include <atomic>
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

namespace siphon {
namespace {

using contract::Bytes;
using contract::code_of;
using contract::make_sample;
using contract::Sample;
using contract::small_parts;

constexpr std::size_t kEarly = 4;  // as target.cc has it

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
  void wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [this] { return open_; }));
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
    return {c.transfer_id, c.attempt,        c.source_address,   c.source,     c.extents,
            c.data,        c.ticket.clone(), c.target_device,    c.lanes,      c.max_frame_bytes,
            c.pace,        c.deadline,       c.bytes_per_second, c.source_key, c.target_store};
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
    settings_.settle_timeout = std::chrono::milliseconds(300);
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
         [this](Attempt a) { left_behind_.push_back(std::move(a)); }},
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

// ---- with the blocks checked -----------------------------------------------------------------

// A byte of its second block's content is another, and its header's crc32 was made to fit.
Sample rotten_with_a_fitting_header(std::size_t bytes, std::uint64_t seed) {
  Sample sample = make_sample(bytes, seed);
  const std::size_t first_block = sample.bytes.size() > 40'000 ? 20'000 : bytes / 2 + 1;
  sample.bytes.at(first_block + 2 * kBlockHeaderBytes + 7) ^= std::byte{0x10};
  sample.header.crc32 = crc32(sample.bytes);
  return sample;
}

TEST_F(TargetTransferTest, BlocksThatAreCheckedAreSaidToBe) {
  for (const auto& [name, bytes] : {std::pair("large", 3 * kMiB), std::pair("small", 20'000ul)}) {
    offer(name, bytes);
    order(name);
  }
  spec_.check_blocks = true;
  run();
  for (const char* name : {"large", "small"}) {
    expect_copied(name);
    EXPECT_TRUE(outcomes_.at(name)->blocks_checked);
  }
  EXPECT_GT(target_.count("read scratch", "large"), 30) << "all of it was read back";
}

TEST_F(TargetTransferTest, RotUnderAFittingHeaderIsTheSourcesAndIsNotPublished) {
  for (const auto& [name, bytes] : {std::pair("large", 3 * kMiB), std::pair("small", 20'000ul)}) {
    samples_[name] = source_.put(name, rotten_with_a_fitting_header(bytes, 1));
    order(name);
  }
  offer("sound", 300'000);
  order("sound");
  spec_.check_blocks = true;
  run();
  for (const char* name : {"large", "small"}) {
    ASSERT_EQ(outcome(name), "DATA_LOSS");
    const Error& error = outcomes_.at(name).error();
    EXPECT_EQ(error.suspect, Side::kSource);
    EXPECT_NE(error.message.find("block 1"), std::string::npos) << error.message;
    EXPECT_NE(error.message.find("SHA-256"), std::string::npos) << error.message;
    expect_no_trace_of(name);
  }
  expect_copied("sound");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, WhatTheTargetStoredWronglyIsTheTargets) {
  offer("e", 3 * kMiB);
  order("e");
  spec_.check_blocks = true;
  std::atomic<bool> flipped{false};
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read scratch" || flipped.exchange(true)) return {};
    const auto reg = target_.store().inspect("e");
    EXPECT_TRUE(reg);
    return target_.provider.flip_byte(target_.location, "e", 2 * kMiB, reg->reservations.at(0).id);
  };
  run();
  ASSERT_EQ(outcome("e"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kTarget);
  expect_no_trace_of("e");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, WhoCannotReadBackWhatIsWrongBlamesNobody) {
  samples_["e"] = source_.put("e", rotten_with_a_fitting_header(3 * kMiB, 1));
  order("e");
  spec_.check_blocks = true;
  std::atomic<int> from_the_start{0};  // once for the blocks, and once more for the crc32
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read scratch" || op.offset_bytes != 0) return {};
    return ++from_the_start == 2 ? fail(Code::kUnavailable, "no answer") : Status{};
  };
  run();
  ASSERT_EQ(outcome("e"), "UNAVAILABLE");
  EXPECT_EQ(outcomes_.at("e").error().message.find("damaged"), std::string::npos);
  expect_no_trace_of("e");
}

// Two check their blocks at a time (kBlockChecksAtOnce), the others wait for a place.
TEST_F(TargetTransferTest, ACancelEndsTheWaitForAPlaceToCheckBlocks) {
  for (const char* name : {"e1", "e2", "e3", "e4"}) {
    offer(name, kMiB);
    order(name);
  }
  spec_.check_blocks = true;
  std::mutex mutex;
  std::map<std::string, int> reads;
  Gate cancelled;
  std::jthread canceller;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read scratch") return {};
    bool first = false;
    {
      std::lock_guard lock(mutex);
      first = ++reads[std::string(op.name)] == 1;
      if (first && reads.size() == 2) {
        canceller = std::jthread([&] {
          transfer_->cancel();
          cancelled.open();
        });
      }
    }
    if (first) cancelled.wait();
    return {};
  };
  run();
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_EQ(reads.size(), 2u) << "who waited has read nothing";
  for (const auto& [name, count] : reads) EXPECT_EQ(count, 1) << name;
  for (const auto& [name, sample] : samples_) {
    EXPECT_EQ(outcome(name), "CANCELLED") << name;
    expect_no_trace_of(name);
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ACancelEndsTheQuestionForTheSourcesHeaders) {
  offer("e", kMiB);
  order("e");
  target_.put("e", kMiB);
  bool stopped = false;
  caller_.hang_at_headers = [&](const std::stop_token& stop) {
    Gate hung_up;
    std::stop_callback wake(stop, [&] { hung_up.open(); });
    transfer_->cancel();
    hung_up.wait();
    stopped = stop.stop_requested();
  };
  run();
  EXPECT_TRUE(stopped);
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_EQ(source_.count("open"), 0);
}

TEST_F(TargetTransferTest, AnEarlierReceiptWithoutACheckOfBlocksIsNoReceiptForOne) {
  offer("e", 300'000);
  order("e");
  run();
  known_ = {*outcomes_.at("e")};
  ASSERT_FALSE(known_[0].blocks_checked);
  outcomes_.clear();
  spec_.check_blocks = true;
  run();
  ASSERT_TRUE(outcomes_.at("e"));
  EXPECT_TRUE(outcomes_.at("e")->already_there) << "and so is said to have been read by nobody";
  EXPECT_FALSE(outcomes_.at("e")->blocks_checked);
}

// ---- what is copied --------------------------------------------------------------------------

TEST_F(TargetTransferTest, VersionOneIsCopiedWithTheDigestThatTheSourceFoundInItsIndex) {
  offer_version_1("small", 20'000);
  offer_version_1("large", 1'500'000);
  order("small");
  order("large");
  run();
  expect_copied("small");
  expect_copied("large");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, AHeaderThatCannotBeIsNotPublished) {
  Sample sample = make_sample(20'000, 1);
  ++sample.header.content_bytes;
  samples_["e"] = source_.put("e", std::move(sample));
  order("e");
  run();
  EXPECT_EQ(outcome("e"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kSource);
  expect_no_trace_of("e");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ALargeExtentOfManyFramesGetsItsReceipt) {
  offer("e", 3 * kMiB);
  order("e");
  run();
  expect_copied("e");
  expect_journal_empty();
  EXPECT_EQ(summary_.phase, Phase::kSucceeded);
  EXPECT_TRUE(summary_.status);
  EXPECT_EQ(summary_.bytes, samples_.at("e").bytes.size());
  EXPECT_EQ(counters_.bytes_received, samples_.at("e").bytes.size());
  EXPECT_EQ(outcomes_.at("e")->source_device, "osd.2");
  EXPECT_GE(target_.count("write"), 36) << "frames of at most 100 KiB";
  EXPECT_EQ(target_.count("begin"), 1) << "made once, early or late";
}

TEST_F(TargetTransferTest, WithoutAHintTheFirstFrameBegins) {
  offer("e", kMiB);
  order("e", 0);
  run();
  expect_copied("e");
  expect_journal_empty();
  EXPECT_EQ(target_.count("begin"), 1);
}

TEST_F(TargetTransferTest, ABatchOfSmallExtentsNeedsNeitherScratchNorJournal) {
  for (int i = 0; i < 300; ++i) {
    offer("e" + std::to_string(i), 1 + (i * 97) % 20'000);
    order("e" + std::to_string(i));
  }
  run();
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
  EXPECT_EQ(summary_.extents_done, 300u);
  EXPECT_EQ(target_.count("begin"), 0);
  EXPECT_EQ(target_.count("put_inline"), 300);
}

TEST_F(TargetTransferTest, LargeAndSmallExtentsTogether) {
  for (int i = 0; i < 30; ++i) {
    offer("e" + std::to_string(i), i % 3 == 0 ? 300 * kKiB + i : 1000 + i);
    order("e" + std::to_string(i));
  }
  run();
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
}

// ---- scratch made early ----------------------------------------------------------------------

TEST_F(TargetTransferTest, TheFirstExtentsScratchIsThereBeforeTheSourceReads) {
  for (int i = 0; i < 7; ++i) {
    offer("e" + std::to_string(i), 200 * kKiB);
    order("e" + std::to_string(i));
  }
  hold_source_until_begun(kEarly);
  run();
  for (const auto& [name, sample] : samples_) {
    expect_copied(name);
    EXPECT_EQ(target_.count("begin", name), 1) << name;
  }
  expect_journal_empty();
}

struct WrongHint {
  const char* what;
  std::size_t bytes;
  std::uint64_t planned_bytes;
  bool is_early;  // something is made of it before the source has spoken
};
class TargetTransferWrongHint : public TargetTransferTest,
                                public ::testing::WithParamInterface<std::tuple<WrongHint, bool>> {
};

TEST_P(TargetTransferWrongHint, TheCopySucceedsAndNothingIsLeft) {
  const auto& [hint, replace] = GetParam();
  spec_.replace = replace;
  offer("e", hint.bytes);
  order("e", hint.planned_bytes);
  if (replace) target_.put("e", 123'456);
  const int before = target_.count("begin");
  if (hint.is_early) hold_source_until_begun(before + 1);
  run();
  expect_copied("e");
  expect_journal_empty();
  EXPECT_EQ(target_.store().stat("e")->trash_count, replace ? 1u : 0u);
  if (hint.is_early) {
    EXPECT_EQ(target_.count("begin") - before, 2) << "early, then anew";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Hints, TargetTransferWrongHint,
    ::testing::Combine(::testing::Values(WrongHint{"TooLarge", kMiB, 5 * kMiB, true},
                                         WrongHint{"TooSmall", kMiB, 40 * kKiB, true},
                                         WrongHint{"OneByteOff", kMiB, kMiB - 1, true},
                                         WrongHint{"LargeButItIsInline", 5000, kMiB, true},
                                         WrongHint{"InlineButItIsLarge", kMiB, 5000, false},
                                         WrongHint{"BeyondAllLimits", kMiB, ~0ull, false}),
                       ::testing::Bool()),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).what) +
             (std::get<1>(test.param) ? "Replacing" : "");
    });

// The thread that begins early may be late: a writer has begun by the true size, and is writing,
// when the wrong plan comes along. The gates force that order; only the early thread can begin
// "last", because the source does not open it before.
TEST_F(TargetTransferTest, APlanThatComesAfterTheFirstFrameChangesNothing) {
  offer("first", 40'000);  // one frame: occupies one writer
  offer("raced", 250 * kKiB);
  offer("last", 40'000);
  order("first");
  order("raced", 2 * samples_.at("raced").bytes.size());
  order("last");
  Gate raced_is_written, last_is_begun;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "begin" && op.name == "first") raced_is_written.wait();
    if (op.operation == "begin" && op.name == "last") last_is_begun.open();
    if (op.operation == "write" && op.name == "raced") {
      raced_is_written.open();
      last_is_begun.wait();
    }
    return {};
  };
  source_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "open" && op.name == "last") last_is_begun.wait();
    return {};
  };
  run();
  EXPECT_EQ(target_.count("begin", "raced"), 1);
  EXPECT_EQ(target_.count("abort", "raced"), 0) << "scratch was dropped under its writers";
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
}

// Later still: the extent is public, and --replace would let a second reservation through.
TEST_F(TargetTransferTest, APlanThatComesAfterThePublishLeavesNoScratch) {
  spec_.replace = true;
  offer("first", 40'000);
  offer("raced", 250 * kKiB);
  order("first");
  order("raced", 2 * samples_.at("raced").bytes.size());
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "begin" || op.name != "first") return {};
    const Deadline patience = deadline_in(std::chrono::seconds(20));
    while (transfer_->info().progress.extents_done == 0 && Deadline::clock::now() < patience) {
      std::this_thread::yield();
    }
    return {};
  };
  run();
  EXPECT_EQ(target_.count("begin", "raced"), 1);
  for (const auto& [name, sample] : samples_) expect_copied(name);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, EarlyScratchThatCannotBeDroppedIsLeftToTheCollector) {
  offer("e", kMiB);
  order("e", 5 * kMiB);
  hold_source_until_begun(1);
  auto watch_begins = target_.react;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "abort") return fail(Code::kUnavailable, "the store does not answer");
    return watch_begins(op);
  };
  run();
  EXPECT_EQ(outcome("e"), "OK");
  ASSERT_EQ(left_behind_.size(), 1u);
  auto rows = journal_->all();
  ASSERT_EQ(rows->size(), 1u) << "the published id's row is gone, the other's is not";
  EXPECT_EQ((*rows)[0].private_id, left_behind_[0].private_id);
  EXPECT_NE((*rows)[0].private_id, outcomes_.at("e")->private_id);
  EXPECT_TRUE(target_.read("e") == samples_.at("e").bytes);
  EXPECT_TRUE(target_.store().collect("e", (*rows)[0].private_id));
  expect_copied("e");
}

TEST_F(TargetTransferTest, WhenBeginningEarlyFailsTheExtentHearsOfIt) {
  offer("e", kMiB);
  order("e");
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "begin") return {};
    return fail(Code::kResourceExhausted, "the pool is full");
  };
  run();
  EXPECT_EQ(outcome("e"), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kTarget);
  expect_no_trace_of("e");
  expect_journal_empty();
}

// ---- what is not copied ----------------------------------------------------------------------

TEST_F(TargetTransferTest, ANameThatIsTakenOpensNoPortAndMakesNoScratch) {
  offer("e", kMiB);
  order("e");
  const Sample old = target_.put("e", 100 * kKiB);
  const int begins = target_.count("begin");
  run();
  EXPECT_EQ(outcome("e"), "ALREADY_EXISTS");
  EXPECT_EQ(summary_.data_endpoint, "");
  EXPECT_EQ(target_.count("begin"), begins);
  EXPECT_TRUE(target_.read("e") == old.bytes);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ANameThatIsTakenIsLeftAloneBesideOneThatIsFree) {
  offer("taken", kMiB);
  offer("free", kMiB);
  order("taken");
  order("free");
  const Sample old = target_.put("taken", 100 * kKiB);
  const int begins = target_.count("begin", "taken");
  run();
  EXPECT_EQ(outcome("taken"), "ALREADY_EXISTS");
  EXPECT_EQ(target_.count("begin", "taken"), begins);
  EXPECT_TRUE(target_.read("taken") == old.bytes);
  expect_copied("free");
  expect_journal_empty();
}

// Whoever was told that the name is taken would look there, or remove what is the last copy.
TEST_F(TargetTransferTest, ANameThatIsTakenDoesNotHideWhatTheSourceSays) {
  target_.put("gone", kMiB);
  order("gone", kMiB);
  offer("damaged", kMiB);
  target_.put("damaged", 100 * kKiB);
  order("damaged");
  offer("sound", kMiB);
  target_.put("sound", kMiB);
  order("sound");
  source_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "stat" || op.name != "damaged") return {};
    return fail(Code::kDataLoss, "its head register does not decode");
  };
  run();
  EXPECT_EQ(outcome("gone"), "NOT_FOUND");
  EXPECT_EQ(outcome("damaged"), "DATA_LOSS");
  for (const char* name : {"gone", "damaged"}) {
    const Error& error = outcomes_.at(name).error();
    EXPECT_EQ(error.suspect, Side::kSource);
    EXPECT_EQ(error.message.find("extent " + std::string(name) + " is already in to/ns"), 0u)
        << error.message;
  }
  ASSERT_TRUE(outcomes_.at("sound"));
  EXPECT_TRUE(outcomes_.at("sound")->already_there);
}

TEST_F(TargetTransferTest, ANameThatIsTakenDoesNotHideASourceThatDoesNotAnswer) {
  offer("e", kMiB);
  order("e");
  target_.put("e", kMiB);
  caller_.hang_at_headers = [](const std::stop_token&) {};
  caller_.header_end = fail(Code::kUnavailable, "the device does not answer");
  run();
  EXPECT_EQ(outcome("e"), "UNAVAILABLE");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kSource);
  EXPECT_EQ(target_.count("begin"), 1) << "when it was put there";
}

// A large batch is not looked through first: beginning and publishing find out.
TEST_F(TargetTransferTest, NamesThatAreTakenInALargeBatchLeaveNothing) {
  const Sample old_large = target_.put("large", 100 * kKiB);
  const Sample old_small = target_.put("small", 100);
  offer("large", kMiB);
  offer("small", 1000);
  order("large");
  order("small");
  for (int i = 0; i < 70; ++i) {
    offer("e" + std::to_string(i), 1000);
    order("e" + std::to_string(i));
  }
  run();
  EXPECT_EQ(outcome("large"), "ALREADY_EXISTS");
  EXPECT_EQ(outcome("small"), "ALREADY_EXISTS");
  EXPECT_TRUE(target_.read("large") == old_large.bytes);
  EXPECT_TRUE(target_.read("small") == old_small.bytes);
  EXPECT_EQ(target_.stored("large"), 2u);
  EXPECT_EQ(target_.stored("small"), 2u);
  for (int i = 0; i < 70; ++i) expect_copied("e" + std::to_string(i));
  expect_journal_empty();
}

TEST_F(TargetTransferTest, EarlyScratchIsDroppedWhenTheSourceLacksTheExtent) {
  order("missing", kMiB);
  hold_source_until_begun(1);
  run();
  EXPECT_EQ(outcome("missing"), "NOT_FOUND");
  EXPECT_EQ(outcomes_.at("missing").error().suspect, Side::kSource);
  EXPECT_EQ(summary_.phase, Phase::kFailed);
  EXPECT_EQ(target_.count("begin", "missing"), 1);
  expect_no_trace_of("missing");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, AMissingExtentDoesNotHoldTheOthersBack) {
  offer("there", kMiB);
  order("missing", kMiB);
  order("there");
  hold_source_until_begun(2);
  run();
  EXPECT_EQ(outcome("missing"), "NOT_FOUND");
  expect_no_trace_of("missing");
  expect_copied("there");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, AFailedWriteDropsTheScratch) {
  offer("bad", kMiB);
  offer("good", kMiB);
  order("bad");
  order("good");
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "write" || op.name != "bad" || op.offset_bytes == 0) return {};
    return fail(Code::kDataLoss, "EIO");
  };
  run();
  EXPECT_EQ(outcome("bad"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("bad").error().suspect, Side::kTarget);
  expect_no_trace_of("bad");
  expect_copied("good");
  expect_journal_empty();
}

// ---- cancel ----------------------------------------------------------------------------------

// They are more than the lease holds, and those behind them need its memory.
TEST_F(TargetTransferTest, ExtentsThatFailLetGoOfTheirMemory) {
  for (int i = 0; i < 100; ++i) {
    offer("e" + std::to_string(i), 20'000);
    order("e" + std::to_string(i));
  }
  caller_.fails = [](std::uint32_t index) { return index < 60; };
  settings_.transfer_timeout = std::chrono::seconds(20);
  run();
  EXPECT_EQ(summary_.extents_done, 40u);
  for (int i = 0; i < 100; ++i) {
    const std::string name = "e" + std::to_string(i);
    if (i >= 60) {
      expect_copied(name);
    } else {
      EXPECT_EQ(outcome(name), "DATA_LOSS");
      expect_no_trace_of(name);
    }
  }
  expect_journal_empty();
}

// More than the lease holds waits for claims that cannot come any more.
TEST_F(TargetTransferTest, ALostSecondCallEndsATransferWhoseLanesWaitForMemory) {
  for (int i = 0; i < 300; ++i) {
    offer("e" + std::to_string(i), 20'000);
    order("e" + std::to_string(i));
  }
  Gate under_way;
  source_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation == "open" && source_.count("open") > 20) under_way.open();
    return {};
  };
  caller_.lose_connection_when = &under_way;
  run(/*source_ends_too=*/true);
  EXPECT_EQ(summary_.phase, Phase::kFailed);
  EXPECT_EQ(summary_.extents_done, 0u);
  for (const auto& [name, sample] : samples_) {
    EXPECT_EQ(outcome(name), "UNAVAILABLE") << name;
    expect_no_trace_of(name);
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, WhatASourceSendsIsCountedWhileItSends) {
  offer("e", 32 * kMiB);  // more than there is room for on the way: it cannot be over at once
  order("e");
  bool counted_before_the_end = false;
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "write" || counted_before_the_end) return {};
    const Deadline until = deadline_in(std::chrono::seconds(20));
    while (counters_.bytes_sent == 0 && Deadline::clock::now() < until) std::this_thread::yield();
    counted_before_the_end = counters_.bytes_sent > 0 && counters_.transfers_out == 1;
    return {};
  };
  settings_.writers = 1;
  run();
  EXPECT_TRUE(counted_before_the_end);
  EXPECT_EQ(counters_.bytes_sent, samples_.at("e").bytes.size());
  EXPECT_EQ(counters_.transfers_out, 0u);
}

// What the store has done another way for others, at the same time, is theirs.
TEST_F(TargetTransferTest, ASourceCountsOnlyTheFallbacksOfItsOwnTransfer) {
  offer("e", 2 * kMiB);
  order("e");
  std::atomic<std::uint64_t> own{0};
  source_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != "read") return {};
    ++fallback_parts_of_this_thread();
    ++own;
    std::thread([] { fallback_parts_of_this_thread() += 100; }).join();
    return {};
  };
  run();
  expect_copied("e");
  EXPECT_GT(own, 1u);
  EXPECT_EQ(summary_.fallback_parts, own);
  EXPECT_EQ(counters_.fallback_parts, own);
}

TEST_F(TargetTransferTest, CancelInTheMiddleDropsTheScratch) {
  offer("e", 4 * kMiB);
  order("e");
  target_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation == "write" && target_.count("write") == 5) transfer_->cancel();
    return {};
  };
  run();
  EXPECT_EQ(outcome("e"), "CANCELLED");
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_GT(progress_.received_bytes, 0u);
  EXPECT_EQ(progress_.durable_bytes, 0u) << "the scratch is gone";
  expect_no_trace_of("e");
  expect_journal_empty();
}

TEST_F(TargetTransferTest, CancelWhileTheEarlyScratchIsMadeDropsIt) {
  order("e", kMiB);  // the source is never asked for it
  order("f", kMiB);
  target_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation != "begin") return {};
    transfer_->cancel();
    begun_.open();
    return {};
  };
  source_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation == "check_ready") begun_.wait();
    return {};
  };
  run();
  EXPECT_EQ(outcome("e"), "CANCELLED");
  EXPECT_EQ(outcome("f"), "CANCELLED");
  EXPECT_EQ(summary_.phase, Phase::kCancelled);
  EXPECT_EQ(target_.count("begin", "e"), 1);
  EXPECT_EQ(target_.count("begin", "f"), 0) << "nothing more is begun once cancelled";
  expect_no_trace_of("e");
  expect_journal_empty();
}

// ---- lost answers ----------------------------------------------------------------------------

class TargetTransferLostAnswer : public TargetTransferTest,
                                 public ::testing::WithParamInterface<bool> {
 protected:
  // Large or small: a publish of scratch, or a put of everything at once.
  std::string done() const { return GetParam() ? "publish done" : "put_inline done"; }
  std::string asked() const { return GetParam() ? "publish" : "put_inline"; }
  void offer_two() {
    for (const char* name : {"lost", "other"}) {
      offer(name, GetParam() ? kMiB : 1000);
      order(name);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Sizes, TargetTransferLostAnswer, ::testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "Large" : "Small");
});

TEST_P(TargetTransferLostAnswer, APublishThatTookEffectHasItsReceipt) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != done() || op.name != "lost" || target_.count(done(), "lost") > 1) return {};
    return fail(Code::kDeadlineExceeded, "no answer");
  };
  run();
  expect_copied("lost");
  expect_copied("other");
  expect_journal_empty();
  EXPECT_EQ(target_.count(asked(), "lost"), 2) << "asked again, published once";
}

TEST_P(TargetTransferLostAnswer, AnErrorAfterThePublishIsNoFailure) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != done() || op.name != "lost" || target_.count(done(), "lost") > 1) return {};
    return fail(Code::kDataLoss, "sync the folder: EIO");
  };
  run();
  expect_copied("lost");
  expect_copied("other");
  expect_journal_empty();
}

TEST_P(TargetTransferLostAnswer, OneThatNeverTookEffectIsWithdrawn) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    if (op.operation != asked() || op.name != "lost") return {};
    return fail(Code::kDeadlineExceeded, "no answer");
  };
  run();
  EXPECT_EQ(outcome("lost"), "DEADLINE_EXCEEDED");
  EXPECT_EQ(outcomes_.at("lost").error().reason, Reason::kNone);
  expect_no_trace_of("lost");
  expect_copied("other");
}

TEST_P(TargetTransferLostAnswer, AnAnswerThatNeverComesIsUnknownAndLeftToTheCollector) {
  offer_two();
  target_.react = [&](const MemoryOperation& op) -> Status {
    const bool silent = op.operation == asked() || op.operation == done() ||
                        op.operation == "collect" || op.operation == "abort";
    if (!silent || op.name != "lost" ||
        (op.operation == asked() && target_.count(asked(), "lost") == 1))
      return {};
    return fail(Code::kDeadlineExceeded, "no answer");
  };
  run();
  ASSERT_EQ(outcome("lost"), "UNAVAILABLE");
  EXPECT_EQ(outcomes_.at("lost").error().reason, Reason::kOutcomeUnknown);
  expect_copied("other");
  ASSERT_EQ(left_behind_.size(), 1u);
  EXPECT_EQ(left_behind_[0].extent, "lost");
  EXPECT_EQ(journal_->all()->size(), 1u);
  // It had been published. The next try of the same command finds that out.
  target_.react = {};
  outcomes_.clear();
  run();
  ASSERT_TRUE(outcomes_.at("lost")) << outcomes_.at("lost").error().message;
  EXPECT_TRUE(outcomes_.at("lost")->already_there);
  EXPECT_EQ(outcomes_.at("lost")->private_id, target_.store().stat("lost")->private_id);
  EXPECT_TRUE(target_.read("lost") == samples_.at("lost").bytes);
}

// ---- names that are taken, and tries after the first -------------------------------------------

TEST_F(TargetTransferTest, TheSameContentWithAPartMissingIsNotThere) {
  offer("e", 300'000);
  order("e");
  run();
  expect_copied("e");
  outcomes_.clear();
  spec_.id.clear();
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "check_parts") return {};
    return fail(parts_missing("extent e", 1, 2));
  };
  run();
  ASSERT_EQ(outcome("e"), "DATA_LOSS");
  EXPECT_EQ(outcomes_.at("e").error().suspect, Side::kTarget);
  EXPECT_NE(outcomes_.at("e").error().message.find("damaged there"), std::string::npos);
  target_.react = {};
  EXPECT_TRUE(target_.read("e") == samples_.at("e").bytes) << "left alone";
}

TEST_F(TargetTransferTest, TheSameContentUnderTheNameIsSuccessAndNothingMoves) {
  const Sample& sample = offer("e", kMiB);
  order("e");
  offer("small", 1000);
  order("small");
  target_.put("e", kMiB);
  target_.put("small", 1000);
  const PrivateId before = target_.store().stat("e")->private_id;
  run();
  for (const char* name : {"e", "small"}) {
    ASSERT_TRUE(outcomes_.at(name)) << outcomes_.at(name).error().message;
    EXPECT_TRUE(outcomes_.at(name)->already_there);
  }
  EXPECT_EQ(outcomes_.at("e")->private_id, before);
  EXPECT_EQ(outcomes_.at("e")->bytes, sample.bytes.size());
  EXPECT_EQ(target_.store().stat("e")->private_id, before);
  EXPECT_EQ(source_.count("open"), 0) << "no byte was read";
  EXPECT_EQ(counters_.bytes_received, 0u);
  EXPECT_EQ(summary_.phase, Phase::kSucceeded);
  EXPECT_EQ(summary_.bytes, 0u) << "nothing was published";
  EXPECT_EQ(summary_.extents_already_there, 2u);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, TheTotalIsThatOfWhatIsToArrive) {
  for (const char* name : {"there", "new"}) {
    offer(name, kMiB);
    order(name);
  }
  target_.put("there", kMiB);
  run();
  EXPECT_TRUE(outcomes_.at("there")->already_there);
  EXPECT_EQ(progress_.total_bytes, samples_.at("new").bytes.size());
  EXPECT_EQ(progress_.durable_bytes, progress_.total_bytes);
  EXPECT_EQ(progress_.extents_done, 2u);
  EXPECT_EQ(progress_.extents_already_there, 1u);
  EXPECT_EQ(summary_.extents_done, 2u);
  EXPECT_EQ(summary_.extents_already_there, 1u);
}

TEST_F(TargetTransferTest, TheGenerationThatLeavesTheTrashIsToldAndACopyThatFailsCostsNone) {
  for (const char* name : {"copied", "broken"}) {
    offer(name, kMiB);
    order(name);
    const std::uint32_t keep = target_.store().limits().kept_generations;
    for (std::uint32_t i = 0; i <= keep; ++i) {
      target_.put(name, 200 * kKiB + i);
      if (i == keep) break;
      ASSERT_TRUE(target_.store().trash(name, *target_.store().stat(name)));
    }
  }
  const auto oldest = [&](const char* name) { return target_.store().inspect(name)->trash.at(0); };
  const TrashEntry of_copied = oldest("copied"), of_broken = oldest("broken");
  spec_.replace = true;
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "publish" || op.name != "broken") return {};
    return fail(Code::kResourceExhausted, "full");
  };
  run();
  expect_copied("copied");
  ASSERT_EQ(outcome("broken"), "RESOURCE_EXHAUSTED");
  const std::vector<TrashEntry>& told = left_for_good_.at("copied");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].id, of_copied.id);
  EXPECT_EQ(told[0].header.extent_bytes, of_copied.header.extent_bytes);
  EXPECT_TRUE(left_for_good_.at("broken").empty());
  EXPECT_EQ(oldest("broken").id, of_broken.id);
  // The receipt says the same as often as it is asked for.
  const auto kept = journal_->receipts_of(spec_.id);
  ASSERT_TRUE(kept);
  ASSERT_EQ(kept->size(), 1u);
  ASSERT_EQ(kept->at(0).left_for_good.size(), 1u);
  EXPECT_EQ(kept->at(0).left_for_good[0].id, of_copied.id);
}

TEST_F(TargetTransferTest, OtherContentUnderTheNameDiffersBeforeTheFirstByte) {
  offer("e", kMiB);
  order("e");
  target_.put("e", 100 * kKiB);
  run();
  EXPECT_EQ(outcome("e"), "ALREADY_EXISTS");
  EXPECT_EQ(outcomes_.at("e").error().reason, Reason::kDiffers);
  EXPECT_EQ(source_.count("open"), 0) << "no byte was read";
}

TEST_F(TargetTransferTest, TheSameContentFoundAtThePublishIsSuccess) {
  for (int i = 0; i < 70; ++i) {  // too many to be looked at first
    offer("e" + std::to_string(i), 1000);
    order("e" + std::to_string(i), 0);
  }
  target_.put("e3", 1000);
  run();
  for (const auto& [name, sample] : samples_) {
    ASSERT_TRUE(outcomes_.at(name)) << outcomes_.at(name).error().message;
    EXPECT_EQ(outcomes_.at(name)->already_there, name == "e3");
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, ANextTryTellsTheSameReceiptsAndCopiesTheRest) {
  for (int i = 0; i < 10; ++i) {
    offer("e" + std::to_string(i), i % 2 == 0 ? 1000 : 200 * kKiB);
    order("e" + std::to_string(i));
  }
  caller_.fails = [](std::uint32_t index) { return index >= 6; };
  run();
  EXPECT_EQ(summary_.extents_done, 6u);
  const auto first = std::exchange(outcomes_, {});
  known_ = *journal_->receipts_of(spec_.id);  // as after a restart
  EXPECT_EQ(known_.size(), 6u);
  spec_.attempt = 2;
  caller_.fails = {};
  std::map<std::string, int> opened;
  for (const auto& [name, sample] : samples_) opened[name] = source_.count("open", name);
  run();
  EXPECT_EQ(summary_.phase, Phase::kSucceeded);
  for (const auto& [name, sample] : samples_) {
    expect_copied(name);
    EXPECT_EQ(outcomes_.at(name)->attempts, first.at(name) ? 1u : 2u) << name;
    if (!first.at(name)) continue;
    EXPECT_EQ(source_.count("open", name), opened.at(name)) << name << " was read again";
    EXPECT_EQ(outcomes_.at(name)->private_id, first.at(name)->private_id);
    EXPECT_EQ(outcomes_.at(name)->finished_unix_ms, first.at(name)->finished_unix_ms);
    EXPECT_EQ(target_.count("begin", name), name[1] % 2 == 0 ? 0 : 1) << name;
  }
  expect_journal_empty();
}

TEST_F(TargetTransferTest, OneTooLargeAndOneDamagedHeadAreTheirOwnErrors) {
  settings_.max_extent_bytes = 2 * kMiB;
  offer("large", 3 * kMiB);
  offer("unplanned", 3 * kMiB);
  offer("bad", 1000);
  offer("good", kMiB);
  order("large");
  order("unplanned", 0);
  order("bad");
  order("good");
  target_.react = [](const MemoryOperation& op) -> Status {
    if (op.operation != "stat" || op.name != "bad") return {};
    return fail(Code::kDataLoss, "its head does not decode");
  };
  run();
  EXPECT_EQ(outcome("large"), "INVALID_ARGUMENT");
  EXPECT_NE(outcomes_.at("large").error().next_step.find("transfer.max_extent_bytes"),
            std::string::npos);
  EXPECT_EQ(outcome("unplanned"), "INVALID_ARGUMENT");
  EXPECT_EQ(outcome("bad"), "DATA_LOSS");
  expect_copied("good");
  EXPECT_EQ(source_.count("open", "large"), 0) << "known before the first byte";
  for (const char* name : {"large", "unplanned", "bad"}) expect_no_trace_of(name);
  expect_journal_empty();
}

TEST_F(TargetTransferTest, OneThatIsCancelledInLineHasEndedAtOnce) {
  order("e", kMiB);
  spec_.id = new_transfer_id();
  spec_.source = source_.location;
  spec_.target = target_.location;
  TargetTransfer transfer(
      spec_, target_.store(),
      {settings_, receive_pool_, *journal_, caller_, counters_, receive_throttle_});
  transfer.cancel();
  EXPECT_EQ(transfer.info().progress.phase, Phase::kCancelled);
  transfer.run();  // whoever had it in line comes along later
  std::size_t cursor = 0;
  const auto update = transfer.wait_update(&cursor, std::chrono::milliseconds(0));
  ASSERT_TRUE(update.summary);
  EXPECT_EQ(update.outcomes.size(), 1u);
  EXPECT_EQ(target_.count("check_ready"), 0);
}

TEST(ReachedSetting, TheLowerOfTheTwoIsNamed) {
  constexpr double kNear = 19e6, kFar = 10e6;
  constexpr std::uint64_t kLow = 20'000'000, kHigh = 100'000'000;
  EXPECT_EQ(reached_setting(kNear, kLow, 0), Limit::kSetting);
  EXPECT_EQ(reached_setting(kNear, kLow, kHigh), Limit::kSetting);
  EXPECT_EQ(reached_setting(kNear, 0, kLow), Limit::kDeviceSetting);
  EXPECT_EQ(reached_setting(kNear, kHigh, kLow), Limit::kDeviceSetting);
  EXPECT_EQ(reached_setting(kFar, kHigh, kLow), Limit::kNone) << "something else holds it back";
  EXPECT_EQ(reached_setting(kNear, 0, 0), Limit::kNone);
}

TEST_F(TargetTransferTest, TheLineIsBoundedByItsExtents) {
  settings_.max_transfers = 1;
  target_.react = [this](const MemoryOperation& op) -> Status {
    if (op.operation == "check_ready") begun_.wait();
    return {};
  };
  TransferManager manager(
      {settings_, receive_pool_, *journal_, caller_, counters_, receive_throttle_});
  auto submit = [&](std::size_t extents) {
    TransferSpec spec;
    spec.id = new_transfer_id();
    spec.source_address = "127.0.0.1:1";
    spec.source = source_.location;
    spec.target = target_.location;
    for (std::size_t i = 0; i < extents; ++i) {
      const std::string name = "e" + std::to_string(i);
      spec.extents.push_back({name, name});
    }
    return manager.submit(std::move(spec), target_.store());
  };
  ASSERT_TRUE(submit(1));
  while (target_.count("check_ready") == 0) std::this_thread::yield();  // it runs: none waits
  for (std::size_t waiting = 0; waiting < TransferManager::kMaxWaitingExtents;
       waiting += kMaxExtentsPerTransfer) {
    ASSERT_TRUE(submit(kMaxExtentsPerTransfer)) << waiting;
  }
  const auto refused = submit(1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, Reason::kBusy);
  for (const auto& transfer : manager.all()) transfer->cancel();
  EXPECT_TRUE(submit(1)) << "those that were cancelled in line have left it";
  begun_.open();
}

}  // namespace
}  // namespace siphon
