// What a caller may ask of a source: its own settings are the bounds, and calls take turns.
#include "plugin/transfer/source.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "adapters/memory/memory_store.h"
#include "plugin/stream/listener.h"
#include "tests/contract/samples.h"

namespace siphon {
namespace {

using contract::make_sample;
using contract::Sample;
using contract::small_parts;
using std::chrono::milliseconds;
using std::chrono::seconds;

class SourceServiceTest : public testing::Test {
 protected:
  // Before the service is made: it has one place for streams.
  static TransferSettings small_settings() {
    TransferSettings settings;
    settings.device = "osd.1";
    settings.max_transfers = 1;
    settings.max_frame_bytes = 128 * kKiB;
    settings.minimum_rate.idle_timeout = milliseconds(400);
    settings.queue_timeout = milliseconds(50);
    return settings;
  }
  SourceServiceTest() {
    // More than the kernel's buffers hold, so that a target that does not read is noticed.
    sample_ = make_sample(16 * kMiB, 7);
    BeginOptions options{sample_.bytes.size(), new_private_id(), now_unix_ms() + 1'000'000};
    auto scratch = store().begin("e", options);
    EXPECT_TRUE(scratch);
    for (std::size_t at = 0; at < sample_.bytes.size();) {
      const std::size_t length = std::min<std::size_t>(
          {64 * kKiB, sample_.bytes.size() - at, 256 * kKiB - at % (256 * kKiB)});
      EXPECT_TRUE((*scratch)->write(at, std::span(sample_.bytes).subspan(at, length)));
      at += length;
    }
    EXPECT_TRUE((*scratch)->publish(sample_.header, false, ExtentState::kSealed));
    auto listener = Listener::open("127.0.0.1", {});
    EXPECT_TRUE(listener);
    listener_ = std::make_unique<Listener>(std::move(*listener));
  }
  ExtentStore& store() { return **provider_.open({}); }

  StreamCall call() {
    StreamCall call;
    call.transfer_id = new_transfer_id();
    call.extents = {"e"};
    call.data = listener_->endpoint();
    call.ticket = ticket_.clone();
    call.target_device = "osd.2";
    call.lanes = 1;
    call.max_frame_bytes = 64u << 20;
    call.minimum_rate = {std::chrono::hours(24), 0};
    call.deadline = std::chrono::hours(7 * 24);
    return call;
  }
  // A target that proves the ticket and then does as it likes.
  std::future<StreamEnd> start(StreamCall call, std::stop_token stop = {}) {
    return std::async(std::launch::async, [this, call = std::move(call), stop] {
      return service_.stream(
          call, store(), [](const SourceReport&) {}, stop);
    });
  }
  // What it says that it waits for, the first time that it says anything.
  Bottleneck bottleneck_told(const StreamCall& call) {
    std::atomic<Bottleneck> told = Bottleneck::kNone;
    std::stop_source stop;
    auto streaming = std::async(std::launch::async, [&] {
      const auto listen = [&](const SourceReport& report) {
        if (report.bottleneck == Bottleneck::kNone) return;
        told = report.bottleneck;
        stop.request_stop();
      };
      return service_.stream(call, store(), listen, stop.get_token());
    });
    Socket socket = lane();
    EXPECT_FALSE(streaming.get().status);
    return told;
  }
  Socket lane() {
    auto lanes = listener_->accept_lanes(ticket_, 1, deadline_in(seconds(20)));
    EXPECT_TRUE(lanes);
    return lanes ? std::move(lanes->front()) : Socket();
  }

  MemoryProvider provider_{{""}, small_parts()};
  Sample sample_;
  TransferSettings settings_ = small_settings();
  ArenaMemory arena_ = *ArenaMemory::allocate(kMiB);
  BufferPool pool_{arena_.span()};
  Throttle throttle_;
  DeviceCounters counters_;
  std::unique_ptr<Listener> listener_;
  Ticket ticket_ = Ticket::make({});
  SourceService service_{settings_, pool_, throttle_, counters_};
};

// A day of silence, no least rate, frames of 64 MiB: the source's own settings hold.
TEST_F(SourceServiceTest, ACallerCannotAskForMoreThanTheDevicesOwnLimits) {
  auto streaming = start(call());
  Socket socket = lane();
  std::array<std::byte, kFrameHeaderBytes> raw;
  ASSERT_TRUE(socket.recv_all({raw}, deadline_in(seconds(20))));
  auto header = decode_frame_header(raw);
  ASSERT_TRUE(header);
  EXPECT_LE(header->length_bytes, settings_.max_frame_bytes);
  EXPECT_LE(pool_.in_use_bytes(), 4 * settings_.max_frame_bytes)
      << "a lease of two frames, borrowed";
  // Nobody reads: it does not wait for a day.
  const StreamEnd end = streaming.get();
  ASSERT_FALSE(end.status);
  EXPECT_EQ(end.status.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(pool_.in_use_bytes(), 0u);
}

TEST_F(SourceServiceTest, ItSaysThatTheRequestsLimitHoldsItBack) {
  throttle_.set_rate(kGiB);
  StreamCall limited = call();
  limited.bytes_per_second = kLeastBytesPerSecond;
  EXPECT_EQ(bottleneck_told(limited), Bottleneck::kSetting);
}

TEST_F(SourceServiceTest, ItSaysThatItsOwnLimitHoldsItBack) {
  throttle_.set_rate(kLeastBytesPerSecond);
  StreamCall limited = call();
  limited.bytes_per_second = kGiB;
  EXPECT_EQ(bottleneck_told(limited), Bottleneck::kSourceSetting);
}

TEST_F(SourceServiceTest, CallsWaitForTheirTurnAndAreToldWhenItIsTooLong) {
  throttle_.set_rate(kLeastBytesPerSecond);  // the first takes an hour
  std::stop_source stop;
  auto first = start(call(), stop.get_token());
  Socket socket = lane();
  int reports = 0;
  const StreamEnd second =
      service_.stream(call(), store(), [&](const SourceReport&) { ++reports; }, {});
  ASSERT_FALSE(second.status);
  EXPECT_EQ(second.status.error().reason, Reason::kBusy);
  EXPECT_NE(second.status.error().next_step.find("try again in"), std::string::npos);
  EXPECT_EQ(reports, 0) << "the target hears nothing before its turn";
  stop.request_stop();
  EXPECT_FALSE(first.get().status);
}

TEST_F(SourceServiceTest, ACancelledCallLeavesTheLineAtOnce) {
  settings_.queue_timeout = std::chrono::hours(1);
  throttle_.set_rate(kLeastBytesPerSecond);
  std::stop_source stop, stop_first;
  auto first = start(call(), stop_first.get_token());
  Socket socket = lane();
  auto second = start(call(), stop.get_token());
  stop.request_stop();
  const StreamEnd end = second.get();
  ASSERT_FALSE(end.status);
  EXPECT_EQ(end.status.error().code, Code::kCancelled);
  stop_first.request_stop();
  EXPECT_FALSE(first.get().status);
}

TEST_F(SourceServiceTest, VerifyDoesNotStarveWhereStreamsHaveAllOfTheMemory) {
  auto all = pool_.acquire(pool_.arena_bytes(), deadline_in(seconds(1)));
  ASSERT_TRUE(all);
  const VerifyOutcome outcome = service_.verify(store(), "e", {}, {});
  EXPECT_TRUE(outcome.status) << outcome.status.error().message;
  EXPECT_EQ(outcome.crc32, sample_.header.crc32);
}

TEST_F(SourceServiceTest, VerifyUnderALimitTakesItsTimeAndStops) {
  throttle_.set_rate(kLeastBytesPerSecond);
  std::stop_source stop;
  auto verifying = std::async(std::launch::async,
                              [&] { return service_.verify(store(), "e", {}, stop.get_token()); });
  stop.request_stop();
  EXPECT_EQ(verifying.get().status.error().code, Code::kCancelled);
}

TEST(FrameBytesFor, ASecondsWorthWithinBounds) {
  TransferSettings settings;
  EXPECT_EQ(frame_bytes_for(settings, 0), settings.max_frame_bytes);
  EXPECT_EQ(frame_bytes_for(settings, kLeastBytesPerSecond), 4096u);
  EXPECT_EQ(frame_bytes_for(settings, 100'000), 24u * 4096);
  EXPECT_EQ(frame_bytes_for(settings, 1ull << 40), settings.paced_frame_bytes);
}

TEST(LowerRate, ZeroIsNone) {
  EXPECT_EQ(lower_rate(0, 0), 0u);
  EXPECT_EQ(lower_rate(0, 5), 5u);
  EXPECT_EQ(lower_rate(5, 0), 5u);
  EXPECT_EQ(lower_rate(7, 5), 5u);
}

}  // namespace
}  // namespace siphon
