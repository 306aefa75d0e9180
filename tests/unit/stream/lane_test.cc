// Sender, listener and receiver together over real loopback sockets, with the memory adapter.

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "adapters/memory/memory_store.h"
#include "plugin/base/crc32.h"
#include "plugin/stream/listener.h"
#include "plugin/stream/receiver.h"
#include "plugin/stream/sender.h"
#include "plugin/stream/socket_address.h"
#include "tests/contract/samples.h"
#include "tests/support/tcp_proxy.h"

namespace siphon {
namespace {

using contract::small_parts;

using std::chrono::milliseconds;
using std::chrono::seconds;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kHandshakeBytes = kHelloBytes + kProofBytes;

Bytes random_bytes(std::size_t size, std::uint32_t seed) {
  std::mt19937_64 generator(seed);
  Bytes out(size);
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = generator();
    std::memcpy(out.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return out;
}

// Keeps what it is given, by extent.
class CollectingSink : public FrameSink {
 public:
  Result<bool> admit(const FrameHeader& header) override {
    std::lock_guard lock(mutex_);
    return !refused_.contains(header.extent_index);
  }
  Status deliver(ReceivedFrame frame) override {
    if (on_deliver) SIPHON_TRY(on_deliver(frame.header));
    std::lock_guard lock(mutex_);
    Bytes& bytes = extents_[frame.header.extent_index];
    bytes.resize(frame.header.extent_bytes);
    const auto span = frame.payload.span();
    std::copy(span.begin(), span.end(),
              bytes.begin() + static_cast<std::ptrdiff_t>(frame.header.offset_bytes));
    delivered_bytes_ += span.size();
    ++delivered_frames_;
    return {};
  }
  Status bad_frame(const FrameHeader& header, std::uint32_t, std::uint32_t) override {
    std::lock_guard lock(mutex_);
    bad_.push_back(header);
    return {};
  }

  std::function<Status(const FrameHeader&)> on_deliver;
  std::mutex mutex_;
  std::map<std::uint32_t, bool> refused_;
  std::map<std::uint32_t, Bytes> extents_;
  std::vector<FrameHeader> bad_;
  std::uint64_t delivered_bytes_ = 0;
  std::uint64_t delivered_frames_ = 0;
};

// Unproven peers without a word: one connection after the other, the youngest of them held, until
// it goes or there have been very many.
class Flood {
 public:
  explicit Flood(const Endpoint& port) {
    for (int i = 0; i < 2; ++i) threads_.emplace_back([this, port] { run(port); });
    while (connections_ < 200) std::this_thread::yield();  // it is in full swing
  }
  ~Flood() {
    over_ = true;
    for (auto& thread : threads_) thread.join();
  }

 private:
  void run(const Endpoint& port) {
    const auto to = *to_socket_address(port.address, port.port);
    std::deque<Socket> held;
    const linger reset{1, 0};  // leaves nothing behind
    for (int i = 0; i < 20'000 && !over_; ++i) {
      const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      (void)::connect(fd, reinterpret_cast<const sockaddr*>(&to.storage), to.size);  // no waiting
      ++connections_;
      held.emplace_back(fd);
      if (held.size() > 200) held.pop_front();
    }
  }
  std::atomic<bool> over_{false};
  std::atomic<int> connections_{0};
  std::vector<std::thread> threads_;
};

// One transfer attempt: a store with extents, both ends, everything with deadlines.
class StreamTest : public ::testing::Test {
 protected:
  void make_store(StoreLimits limits) {
    provider_ = std::make_unique<MemoryProvider>(std::vector<std::string>{""}, limits);
    store_ = *provider_->open({});
  }

  void put(const std::string& name, const Bytes& bytes, bool lie_about_crc = false) {
    SealedHeader header;
    header.extent_bytes = bytes.size();
    header.crc32 = crc32(bytes) ^ (lie_about_crc ? 1u : 0u);
    header.part_bytes = store_->limits().part_bytes;
    const auto limits = store_->limits();
    if (bytes.size() <= limits.inline_max_bytes) {
      ASSERT_TRUE(store_->put_inline(name, new_private_id(), bytes, header));
    } else {
      BeginOptions options;
      options.extent_bytes = bytes.size();
      options.private_id = new_private_id();
      auto scratch = store_->begin(name, options);
      ASSERT_TRUE(scratch) << scratch.error().message;
      for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t size =
            std::min<std::size_t>({limits.operation_bytes,
                                   limits.part_bytes - at % limits.part_bytes, bytes.size() - at});
        ASSERT_TRUE((*scratch)->write(at, std::span(bytes).subspan(at, size)));
        at += size;
      }
      ASSERT_TRUE((*scratch)->publish(header, false, ExtentState::kSealed));
    }
    names_.push_back(name);
    contents_.push_back(bytes);
  }

  StreamRequest make_order(const Endpoint& target) {
    StreamRequest request;
    request.extents = names_;
    request.target = target;
    request.ticket = ticket_.clone();
    request.lanes = lanes_;
    request.max_frame_bytes = max_frame_bytes_;
    request.minimum_rate = minimum_rate_;
    request.deadline = deadline_in(time_);
    request.throttles = throttles_;
    return request;
  }

  // Runs the attempt; afterwards the members below say how it went.
  void run(test::Damage damage = {}) {
    auto listener = Listener::open("127.0.0.1", {});
    ASSERT_TRUE(listener);
    test::TcpProxy proxy(listener->endpoint(), damage);
    const bool through_proxy = damage.flip_at_byte != test::Damage::kNever ||
                               damage.cut_at_byte != test::Damage::kNever ||
                               damage.reset_connections > 0;
    StreamSender sender(*store_, send_pool_,
                        make_order(through_proxy ? proxy.endpoint() : listener->endpoint()),
                        [this](ExtentResult result) {
                          EXPECT_EQ(calls_at_once_.fetch_add(1), 0);
                          EXPECT_TRUE(results_.emplace(result.extent_index, result).second);
                          if (on_result_) on_result_(result);
                          calls_at_once_.fetch_sub(1);
                        });
    sender_ = &sender;
    std::optional<Flood> flood;
    if (flooded_) flood.emplace(listener->endpoint());
    auto source = std::async(std::launch::async, [&] { return sender.run(); });
    auto sockets = listener->accept_lanes(ticket_, lanes_, deadline_in(seconds(10)));
    flood.reset();
    rejected_connections_ = listener->rejected_connections();
    if (sockets) {
      ReceiveOptions options;
      options.limits = {static_cast<std::uint32_t>(names_.size()), max_frame_bytes_, 1ull << 32};
      options.minimum_rate = minimum_rate_;
      options.deadline = deadline_in(seconds(20));
      LastData last_data;
      options.last_data = &last_data;
      std::vector<std::future<Status>> lanes;
      for (auto& socket : *sockets) {
        lanes.push_back(std::async(std::launch::async, [&] {
          return receive_lane(socket, receive_pool_, options, sink_, times_);
        }));
      }
      for (auto& lane : lanes) lane_status_.push_back(lane.get());
      lanes_ended_ = true;
    }
    source_status_ = source.get();
    counters_ = sender.counters();
    sender_ = nullptr;
    EXPECT_EQ(send_pool_.in_use_bytes(), 0u);
    EXPECT_EQ(receive_pool_.in_use_bytes(), 0u);
    EXPECT_EQ(results_.size(), names_.size());
  }

  void expect_all_arrived() {
    EXPECT_TRUE(source_status_) << source_status_.error().message;
    for (auto& status : lane_status_) EXPECT_TRUE(status) << status.error().message;
    for (std::uint32_t i = 0; i < contents_.size(); ++i) {
      ASSERT_TRUE(results_[i].status) << results_[i].status.error().message;
      EXPECT_EQ(results_[i].bytes, contents_[i].size());
      EXPECT_EQ(results_[i].crc32, crc32(contents_[i]));
      ASSERT_TRUE(sink_.extents_[i] == contents_[i]) << names_[i];
    }
  }

  Ticket ticket_ = Ticket::make({});
  std::uint16_t lanes_ = 1;
  std::uint32_t max_frame_bytes_ = 1u << 20;
  MinimumRate minimum_rate_;
  milliseconds time_ = seconds(20);
  bool flooded_ = false;
  std::uint64_t rejected_connections_ = 0;
  std::atomic<bool> lanes_ended_{false};
  std::vector<Throttle*> throttles_;
  ArenaMemory send_arena_ = *ArenaMemory::allocate(8 * kMiB);
  ArenaMemory receive_arena_ = *ArenaMemory::allocate(8 * kMiB);
  BufferPool send_pool_{send_arena_.span()};
  BufferPool receive_pool_{receive_arena_.span()};
  std::unique_ptr<MemoryProvider> provider_;
  ExtentStore* store_ = nullptr;
  std::vector<std::string> names_;
  std::vector<Bytes> contents_;

  CollectingSink sink_;
  LaneTimes times_;
  std::atomic<StreamSender*> sender_{nullptr};
  std::function<void(const ExtentResult&)> on_result_;
  std::atomic<int> calls_at_once_{0};
  std::map<std::uint32_t, ExtentResult> results_;
  std::vector<Status> lane_status_;
  Status source_status_;
  SenderCounters counters_;
};

TEST_F(StreamTest, OneExtentOfManyPartsArrives) {
  make_store(small_parts());
  put("e", random_bytes(3 * kMiB + 12345, 1));
  run();
  expect_all_arrived();
  EXPECT_EQ(counters_.bytes_sent, contents_[0].size());
  EXPECT_EQ(counters_.bytes_read, contents_[0].size());
  // 256 KiB parts by operations of 100 KiB: three frames a part, none across a boundary.
  EXPECT_EQ(sink_.delivered_frames_, 3u * 12 + 1);
}

TEST_F(StreamTest, FourLanesShareTheFramesOfManyExtents) {
  make_store(small_parts());
  lanes_ = 4;
  for (std::uint32_t i = 0; i < 12; ++i) {
    put("e" + std::to_string(i), random_bytes(kMiB + i * 1000 + 1, i));
  }
  run();
  expect_all_arrived();
}

TEST_F(StreamTest, ManySmallExtentsOfManySizes) {
  make_store(small_parts());
  for (std::uint32_t i = 0; i < 500; ++i) {
    put("e" + std::to_string(i), random_bytes(1 + (i * 797) % (48 * kKiB), i));
  }
  lanes_ = 2;
  run();
  expect_all_arrived();
}

TEST_F(StreamTest, InlineExtentsLargerThanTheFirstGuess) {
  StoreLimits limits;
  limits.inline_max_bytes = 1u << 20;
  make_store(limits);
  for (std::uint32_t i = 0; i < 40; ++i) {
    put("e" + std::to_string(i), random_bytes(i % 2 ? 900 * kKiB : 1, i));
  }
  run();
  expect_all_arrived();
}

TEST_F(StreamTest, AFrameLimitBelowTheOperationSizeIsKept) {
  make_store(small_parts());
  max_frame_bytes_ = 8192;
  put("e", random_bytes(300 * kKiB, 9));
  run();
  expect_all_arrived();
}

TEST_F(StreamTest, AFailingExtentDoesNotStopTheOthers) {
  make_store(small_parts());
  put("good1", random_bytes(kMiB, 1));
  put("broken", random_bytes(kMiB, 2));
  put("good2", random_bytes(10, 3));
  names_.push_back("missing");
  put("good3", random_bytes(kMiB, 4));
  contents_.insert(contents_.begin() + 3, Bytes());
  provider_->set_fault_hook([](const MemoryOperation& op) -> Status {
    if (op.operation == "read" && op.name == "broken" && op.offset_bytes > 0) {
      return fail(Code::kDataLoss, "EIO");
    }
    return {};
  });
  run();
  EXPECT_TRUE(source_status_);
  EXPECT_EQ(results_[1].status.error().code, Code::kDataLoss);
  EXPECT_EQ(results_[1].status.error().suspect, Side::kSource);
  EXPECT_EQ(results_[3].status.error().code, Code::kNotFound);
  for (std::uint32_t i : {0u, 2u, 4u}) {
    EXPECT_TRUE(results_[i].status);
    EXPECT_TRUE(sink_.extents_[i] == contents_[i]);
  }
}

TEST_F(StreamTest, RotAtTheSourceIsNamed) {
  make_store(small_parts());
  put("rotten", random_bytes(kMiB, 1), true);
  put("good", random_bytes(kMiB, 2));
  run();
  ASSERT_FALSE(results_[0].status);
  EXPECT_EQ(results_[0].status.error().code, Code::kDataLoss);
  EXPECT_EQ(results_[0].status.error().suspect, Side::kSource);
  EXPECT_NE(results_[0].status.error().message.find("rot at the source"), std::string::npos);
  EXPECT_TRUE(results_[1].status);
}

TEST_F(StreamTest, OneBitFlippedOnTheWireSpoilsOneFrameOnly) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  run({.flip_at_byte = kHandshakeBytes + kFrameHeaderBytes + 150 * kKiB});
  EXPECT_TRUE(source_status_) << source_status_.error().message;
  ASSERT_EQ(lane_status_.size(), 1u);
  EXPECT_TRUE(lane_status_[0]) << lane_status_[0].error().message;
  ASSERT_EQ(sink_.bad_.size(), 1u);
  EXPECT_EQ(sink_.delivered_bytes_ + sink_.bad_[0].length_bytes, kMiB);
  EXPECT_TRUE(results_[0].status);  // the source read and sent the right bytes
}

TEST_F(StreamTest, OneBitFlippedInAHeaderDropsTheLane) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  run({.flip_at_byte = kHandshakeBytes + 20});
  ASSERT_EQ(lane_status_.size(), 1u);
  ASSERT_FALSE(lane_status_[0]);
  EXPECT_EQ(lane_status_[0].error().code, Code::kDataLoss);
  EXPECT_EQ(lane_status_[0].error().suspect, Side::kWire);
  EXPECT_EQ(sink_.delivered_frames_, 0u);
}

TEST_F(StreamTest, ACutConnectionEndsTheAttemptOnBothEnds) {
  make_store(small_parts());
  put("e", random_bytes(16 * kMiB, 1));
  run({.cut_at_byte = 2 * kMiB});
  ASSERT_EQ(lane_status_.size(), 1u);
  ASSERT_FALSE(lane_status_[0]);
  EXPECT_EQ(lane_status_[0].error().code, Code::kUnavailable);
  ASSERT_FALSE(source_status_);
  EXPECT_EQ(source_status_.error().code, Code::kUnavailable);
  EXPECT_EQ(source_status_.error().suspect, Side::kTarget);
  EXPECT_EQ(results_[0].status.error().code, Code::kUnavailable);
}

TEST_F(StreamTest, CancelInTheMidst) {
  make_store(small_parts());
  put("e", random_bytes(16 * kMiB, 1));
  sink_.on_deliver = [&](const FrameHeader& header) -> Status {
    if (header.sequence == 5) sender_.load()->cancel();
    return {};
  };
  run();
  ASSERT_FALSE(source_status_);
  EXPECT_EQ(source_status_.error().code, Code::kCancelled);
  EXPECT_EQ(results_[0].status.error().code, Code::kCancelled);
  ASSERT_EQ(lane_status_.size(), 1u);
  EXPECT_EQ(lane_status_[0].error().code, Code::kUnavailable);
}

TEST_F(StreamTest, CancelWakesASenderThatWaitsForTheTarget) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  auto listener = Listener::open("127.0.0.1", {});  // nobody answers the handshake
  ASSERT_TRUE(listener);
  StreamSender sender(*store_, send_pool_, make_order(listener->endpoint()),
                      [this](ExtentResult result) { results_[result.extent_index] = result; });
  auto run = std::async(std::launch::async, [&] { return sender.run(); });
  EXPECT_EQ(run.wait_for(milliseconds(50)), std::future_status::timeout);
  sender.cancel();
  ASSERT_EQ(run.wait_for(seconds(2)), std::future_status::ready);
  EXPECT_EQ(run.get().error().code, Code::kCancelled);
  EXPECT_EQ(results_[0].status.error().code, Code::kCancelled);
}

TEST_F(StreamTest, ARefusedExtentIsThrownAwayAndTheLaneGoesOn) {
  make_store(small_parts());
  put("unwanted", random_bytes(kMiB, 1));
  put("wanted", random_bytes(kMiB, 2));
  sink_.refused_[0] = true;
  run();
  EXPECT_TRUE(lane_status_.at(0));
  EXPECT_FALSE(sink_.extents_.contains(0));
  EXPECT_TRUE(sink_.extents_[1] == contents_[1]);
}

TEST_F(StreamTest, AnErrorOfTheSinkDropsTheLaneAndTheSourceNotices) {
  make_store(small_parts());
  put("e", random_bytes(16 * kMiB, 1));
  sink_.on_deliver = [](const FrameHeader&) -> Status {
    return fail(Code::kResourceExhausted, "full");
  };
  run();
  EXPECT_EQ(lane_status_.at(0).error().code, Code::kResourceExhausted);
  ASSERT_FALSE(source_status_);
  EXPECT_EQ(source_status_.error().code, Code::kUnavailable);
}

TEST_F(StreamTest, ASlowStoreKeepsTheLaneAlive) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  minimum_rate_.idle_timeout = milliseconds(200);
  // The first read takes twice as long as a lane may be silent.
  std::promise<void> never;
  auto wait = never.get_future().share();
  provider_->set_fault_hook([wait](const MemoryOperation& op) -> Status {
    if (op.operation == "read" && op.offset_bytes == 0) wait.wait_for(milliseconds(400));
    return {};
  });
  run();
  expect_all_arrived();
}

TEST_F(StreamTest, WhileTheLaneWaitsForTheStoreMoreIsReadAtOnce) {
  make_store(small_parts());
  for (std::uint32_t i = 0; i < 200; ++i) put("e" + std::to_string(i), random_bytes(1000, i));
  std::mutex mutex;
  std::condition_variable changed;
  int now = 0, most = 0;
  provider_->set_fault_hook([&](const MemoryOperation& op) -> Status {
    if (op.operation != "open") return {};
    std::unique_lock lock(mutex);
    most = std::max(most, ++now);
    changed.notify_all();
    // A store that takes its time, until more of it is asked at once than the first readers do.
    changed.wait_for(lock, milliseconds(20), [&] { return most > 8; });
    --now;
    return {};
  });
  run();
  expect_all_arrived();
  EXPECT_GT(most, 8);
}

TEST_F(StreamTest, AThrottleBelowTheLowestPaceKeepsTheLaneAlive) {
  make_store(small_parts());
  put("e", random_bytes(100 * kKiB, 1));
  Throttle throttle(100 * kKiB);
  throttles_ = {&throttle};
  max_frame_bytes_ = 40 * kKiB;  // longer than the silence that is allowed
  minimum_rate_.idle_timeout = milliseconds(200);
  run();
  expect_all_arrived();
}

TEST_F(StreamTest, ATargetThatIsNotThereIsUnavailable) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  Endpoint gone;
  {
    auto listener = Listener::open("127.0.0.1", {});
    ASSERT_TRUE(listener);
    gone = listener->endpoint();
  }
  StreamSender sender(*store_, send_pool_, make_order(gone),
                      [this](ExtentResult result) { results_[result.extent_index] = result; });
  Status status = sender.run();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kUnavailable);
  EXPECT_EQ(results_.size(), 1u);
}

TEST_F(StreamTest, AWrongTicketIsUnauthenticated) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  auto listener = Listener::open("127.0.0.1", {});
  ASSERT_TRUE(listener);
  const Ticket other = Ticket::make({});
  StreamSender sender(*store_, send_pool_, make_order(listener->endpoint()), [](ExtentResult) {});
  auto run = std::async(std::launch::async, [&] {
    Status status = sender.run();
    listener->cancel();
    return status;
  });
  auto lanes = listener->accept_lanes(other, 1, deadline_in(seconds(10)));
  EXPECT_EQ(lanes.error().code, Code::kCancelled);
  EXPECT_GE(listener->rejected_connections(), 1u);
  EXPECT_EQ(run.get().error().code, Code::kUnauthenticated);
}

TEST_F(StreamTest, AFloodOfConnectionsDoesNotKeepTheLanesOut) {
  make_store(small_parts());
  lanes_ = 8;
  for (std::uint32_t i = 0; i < 8; ++i) put("e" + std::to_string(i), random_bytes(kMiB, i));
  flooded_ = true;
  run();
  EXPECT_EQ(lane_status_.size(), 8u);
  EXPECT_GT(rejected_connections_, 0u);
  expect_all_arrived();
}

// As at a target that has no room for so many at once, and then has.
TEST_F(StreamTest, ALaneThatIsCutOffBeforeItsTicketIsProvenComesAgain) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  test::Damage damage;
  damage.reset_connections = 6;
  run(damage);
  EXPECT_EQ(lane_status_.size(), 1u);
  expect_all_arrived();
}

// The device's own limit and the caller's: neither replaces the other.
TEST_F(StreamTest, EachOfTwoThrottlesHolds) {
  make_store(small_parts());
  put("e", random_bytes(100 * kKiB, 1));
  time_ = milliseconds(300);
  Throttle wide(1 << 30), narrow(1);
  for (const auto& throttles : {std::vector{&wide, &narrow}, std::vector{&narrow, &wide}}) {
    throttles_ = throttles;
    results_.clear();
    run();
    ASSERT_FALSE(source_status_);
    EXPECT_EQ(source_status_.error().code, Code::kDeadlineExceeded);
    EXPECT_EQ(counters_.bytes_sent, 0u);
  }
}

TEST_F(StreamTest, ACancelEndsTheWaitForALimitAtOnce) {
  make_store(small_parts());
  put("e", random_bytes(100 * kKiB, 1));
  Throttle narrow(1);
  throttles_ = {&narrow};
  auto attempt = std::async(std::launch::async, [&] { run(); });
  StreamSender* sender = nullptr;
  while ((sender = sender_) == nullptr) std::this_thread::yield();
  sender->cancel();
  attempt.get();
  ASSERT_FALSE(source_status_);
  EXPECT_EQ(source_status_.error().code, Code::kCancelled);
}

// Signs of life are no progress: a source whose disk hangs does not hold the target for long.
TEST_F(StreamTest, KeepAlivesAloneEndTheAttempt) {
  make_store(small_parts());
  put("e", random_bytes(kMiB, 1));
  minimum_rate_.idle_timeout = milliseconds(200);
  std::promise<void> hang;
  auto hung = hang.get_future().share();
  provider_->set_fault_hook([&](const MemoryOperation& op) -> Status {
    if (op.operation == "read") hung.wait();
    return {};
  });
  auto attempt = std::async(std::launch::async, [&] { run(); });
  // The lanes end while the disk still hangs; only the readers have to wait for it.
  while (!lanes_ended_) std::this_thread::yield();
  hang.set_value();
  attempt.get();
  ASSERT_FALSE(source_status_);
  EXPECT_EQ(source_status_.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(source_status_.error().suspect, Side::kSource);
  ASSERT_FALSE(lane_status_.front());
}

}  // namespace
}  // namespace siphon
