// The decisions of a transfer, without a network: every phase with every event, every way an
// extent's evidence can fall short.
#include "plugin/transfer/machine.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "plugin/format/extent_format.h"

namespace siphon {
namespace {

const std::vector<Phase> kPhases = {Phase::kQueued,    Phase::kReserve, Phase::kListen,
                                    Phase::kStream,    Phase::kCompare, Phase::kPublish,
                                    Phase::kSucceeded, Phase::kFailed,  Phase::kCancelled};
const std::vector<Event> kEvents = {Event::kStarted,     Event::kReserved,    Event::kLanesProven,
                                    Event::kAllReceived, Event::kAllCompared, Event::kAllPublished,
                                    Event::kError,       Event::kPeerLost,    Event::kTimeout,
                                    Event::kCancel};

TEST(NextPhase, TheGoodWayVisitsEveryPhaseInOrder) {
  Phase phase = Phase::kQueued;
  std::vector<Phase> seen{phase};
  for (Event e : {Event::kStarted, Event::kReserved, Event::kLanesProven, Event::kAllReceived,
                  Event::kAllCompared, Event::kAllPublished}) {
    phase = next_phase(phase, e, false);
    seen.push_back(phase);
  }
  EXPECT_EQ(seen,
            (std::vector<Phase>{Phase::kQueued, Phase::kReserve, Phase::kListen, Phase::kStream,
                                Phase::kCompare, Phase::kPublish, Phase::kSucceeded}));
}

TEST(NextPhase, EveryPhaseWithEveryEvent) {
  for (Phase from : kPhases) {
    for (Event event : kEvents) {
      for (bool failed : {false, true}) {
        const Phase to = next_phase(from, event, failed);
        SCOPED_TRACE(std::string(to_string(from)) + " event " +
                     std::to_string(static_cast<int>(event)));
        if (is_final(from)) {
          EXPECT_EQ(to, from) << "a final phase never changes";
          continue;
        }
        switch (event) {
          case Event::kCancel:
            EXPECT_EQ(to, Phase::kCancelled);
            break;
          case Event::kError:
          case Event::kPeerLost:
          case Event::kTimeout:
            EXPECT_EQ(to, Phase::kFailed);
            break;
          default:
            // Forward by one step or not at all; success only from publish, without a failure.
            if (to == Phase::kSucceeded) {
              EXPECT_EQ(from, Phase::kPublish);
              EXPECT_FALSE(failed);
            } else if (to == Phase::kFailed) {
              EXPECT_EQ(from, Phase::kPublish);
              EXPECT_TRUE(failed);
            } else {
              const int step = static_cast<int>(to) - static_cast<int>(from);
              EXPECT_TRUE(step == 0 || step == 1);
            }
        }
      }
    }
  }
}

TEST(NextPhase, LateEventsDoNotMoveBackwards) {
  EXPECT_EQ(next_phase(Phase::kStream, Event::kStarted, false), Phase::kStream);
  EXPECT_EQ(next_phase(Phase::kStream, Event::kReserved, false), Phase::kStream);
  EXPECT_EQ(next_phase(Phase::kReserve, Event::kAllPublished, false), Phase::kReserve);
}

constexpr std::uint64_t kBytes = 1000;
constexpr std::uint32_t kCrc = 0x12345678;

SourceClaim good_claim() {
  SourceClaim claim;
  claim.bytes = kBytes;
  claim.crc32 = kCrc;
  claim.header.extent_bytes = kBytes;
  claim.header.crc32 = kCrc;
  claim.header.block_count = 1;
  claim.header.content_bytes = kBytes - sealed_extent_bytes(0, 1);
  claim.header.format_version = kSealedHeaderVersion;
  claim.header.content_digest[0] = std::byte{1};
  return claim;
}

TEST(Compare, AllThreeChecksumsAndLengthsAgree) {
  EXPECT_TRUE(compare({"e", kBytes, kCrc, good_claim()}));
}

TEST(Compare, RotAtTheSourceIsNamedAsSuch) {
  SourceClaim claim = good_claim();
  claim.crc32 = kCrc + 1;  // as read now; the target received the same rotten bytes
  Status s = compare({"e7", kBytes, kCrc + 1, claim});
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Code::kDataLoss);
  EXPECT_EQ(s.error().suspect, Side::kSource);
  EXPECT_NE(s.error().message.find("e7"), std::string::npos);
  EXPECT_NE(s.error().message.find("rot at the source"), std::string::npos);
}

TEST(Compare, ShortSourceReadIsTheSourcesFault) {
  SourceClaim claim = good_claim();
  claim.bytes = kBytes - 1;
  Status s = compare({"e", kBytes - 1, kCrc, claim});
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().suspect, Side::kSource);
}

TEST(Compare, AHeaderThatCannotBeIsTheSourcesFaultAndNotPublished) {
  const auto refused = [](auto change) {
    SourceClaim claim = good_claim();
    change(claim.header);
    Status s = compare({"e9", kBytes, kCrc, claim});
    EXPECT_FALSE(s);
    if (s) return;
    EXPECT_EQ(s.error().suspect, Side::kSource);
    EXPECT_NE(s.error().message.find("e9"), std::string::npos);
    EXPECT_NE(s.error().message.find("nothing was published"), std::string::npos);
  };
  refused([](SealedHeader& h) { ++h.content_bytes; });
  refused([](SealedHeader& h) { ++h.block_count; });
  refused([](SealedHeader& h) { h.block_count = kMaxBlockCount + 1; });
  refused([](SealedHeader& h) { h.format_version = 3; });
  refused([](SealedHeader& h) { h.content_digest = {}; });
  refused([](SealedHeader& h) {  // sound in itself, but nothing could be decided by it later
    h.content_digest = {};
    h.format_version = 1;
  });
}

TEST(Compare, MissingBytesAndOtherChecksumsPointAtTheWire) {
  for (const Evidence& e : {Evidence{"e", kBytes - 1, std::nullopt, good_claim()},
                            Evidence{"e", kBytes, std::nullopt, good_claim()},
                            Evidence{"e", kBytes, kCrc ^ 1, good_claim()}}) {
    Status s = compare(e);
    ASSERT_FALSE(s);
    EXPECT_EQ(s.error().code, Code::kDataLoss);
    EXPECT_EQ(s.error().suspect, Side::kWire);
    EXPECT_NE(s.error().message.find("source is untouched"), std::string::npos);
  }
}

// An extent that has been brought to a state.
class ExtentMachineTest : public ::testing::Test {
 protected:
  using State = ExtentMachine::State;

  void receive_all() {
    ASSERT_TRUE(machine_.on_frame(kBytes, 0, kBytes, kCrc));
    machine_.on_durable(kBytes);
  }

  ExtentMachine machine_{"e1"};
};

TEST_F(ExtentMachineTest, NeedsTheBytesTheirDurabilityAndTheClaimInAnyOrder) {
  machine_.on_claim(good_claim());
  EXPECT_FALSE(machine_.start_publishing(true));
  ASSERT_TRUE(machine_.on_frame(kBytes, 0, kBytes, kCrc));
  EXPECT_TRUE(machine_.complete());
  EXPECT_FALSE(machine_.start_publishing(true)) << "not durable yet";
  machine_.on_durable(kBytes);
  EXPECT_TRUE(machine_.start_publishing(true));
  EXPECT_FALSE(machine_.start_publishing(true)) << "exactly once";
  machine_.on_published();
  EXPECT_EQ(machine_.state(), State::kPublished);
  EXPECT_EQ(machine_.target_crc32(), kCrc);
}

TEST_F(ExtentMachineTest, AnInlineExtentIsPublishedByItsWrite) {
  ASSERT_TRUE(machine_.on_frame(kBytes, 0, kBytes, kCrc));
  EXPECT_FALSE(machine_.start_publishing(false)) << "the source has not spoken";
  machine_.on_claim(good_claim());
  EXPECT_TRUE(machine_.start_publishing(false));
}

TEST_F(ExtentMachineTest, UnequalChecksumsFailAndNeverPublish) {
  SourceClaim claim = good_claim();
  claim.crc32 = claim.header.crc32 = kCrc ^ 0x80;
  receive_all();
  machine_.on_claim(claim);
  EXPECT_FALSE(machine_.start_publishing(true));
  EXPECT_EQ(machine_.state(), State::kFailed);
  EXPECT_EQ(machine_.error()->code, Code::kDataLoss);
  machine_.on_published();
  EXPECT_EQ(machine_.state(), State::kFailed);
}

TEST_F(ExtentMachineTest, OverlapAndContradictorySizesFailTheExtent) {
  ASSERT_TRUE(machine_.on_frame(kBytes, 0, 600, 1));
  EXPECT_FALSE(machine_.on_frame(kBytes, 500, 500, 2));
  EXPECT_EQ(machine_.state(), State::kFailed);
  ExtentMachine other("e2");
  ASSERT_TRUE(other.on_frame(kBytes, 0, 600, 1));
  EXPECT_FALSE(other.on_frame(kBytes + 1, 600, 400, 2));
  EXPECT_EQ(other.state(), State::kFailed);
}

TEST_F(ExtentMachineTest, OneByteFramesFailTheExtent) {
  constexpr std::uint64_t kLarge = 1 << 20;
  std::uint64_t taken = 0;
  while (taken < kLarge && machine_.on_frame(kLarge, taken, 1, 0)) ++taken;
  EXPECT_LE(taken, 2 * ExtentMachine::kFreeFrames);
  EXPECT_EQ(machine_.state(), State::kFailed);
  EXPECT_EQ(machine_.error()->suspect, Side::kSource);
  // A store of the smallest operations is far from that.
  ExtentMachine other("e2");
  for (std::uint64_t at = 0; at < kLarge << 4; at += 4096) {
    ASSERT_TRUE(other.on_frame(kLarge << 4, at, 4096, 0));
  }
}

TEST_F(ExtentMachineTest, EveryStateMeetsAnError) {
  const Error lost{Code::kUnavailable, "peer lost", Side::kSource, {}};
  {
    ExtentMachine waiting("w");
    waiting.on_error(lost);
    EXPECT_EQ(waiting.state(), State::kFailed);
    EXPECT_FALSE(waiting.on_frame(kBytes, 0, kBytes, kCrc)) << "nothing after the end";
    waiting.on_claim(good_claim());
    EXPECT_FALSE(waiting.start_publishing(false));
  }
  {
    ExtentMachine receiving("r");
    ASSERT_TRUE(receiving.on_frame(kBytes, 0, 10, 1));
    receiving.on_error(lost);
    EXPECT_EQ(receiving.state(), State::kFailed);
    receiving.on_error({Code::kDeadlineExceeded, "later", Side::kNone, {}});
    EXPECT_EQ(receiving.error()->message, "peer lost") << "the first error stays";
  }
  receive_all();
  machine_.on_claim(good_claim());
  ASSERT_TRUE(machine_.start_publishing(true));
  machine_.on_error(lost);
  EXPECT_EQ(machine_.state(), State::kPublishing) << "the publish decides, not the peer";
  machine_.on_published();
  machine_.on_error(lost);
  EXPECT_EQ(machine_.state(), State::kPublished) << "a final state never changes";
}

TEST_F(ExtentMachineTest, AFailedPublishIsAFailedExtent) {
  receive_all();
  machine_.on_claim(good_claim());
  ASSERT_TRUE(machine_.start_publishing(true));
  machine_.on_publish_failed({Code::kAborted, "the name changed meanwhile", Side::kTarget, {}});
  EXPECT_EQ(machine_.state(), State::kFailed);
  machine_.on_published();
  EXPECT_EQ(machine_.state(), State::kFailed);
}

TEST_F(ExtentMachineTest, TheFirstClaimStays) {
  receive_all();
  machine_.on_claim(good_claim());
  SourceClaim other = good_claim();
  other.crc32 = 1;
  machine_.on_claim(other);
  EXPECT_TRUE(machine_.start_publishing(true));
}

TEST(CheckSpec, NamesWhatIsWrong) {
  TransferSpec spec;
  spec.id = new_transfer_id();
  spec.source_address = "127.0.0.1:7400";
  spec.extents = {{"a", "a"}, {"b", "b"}};
  EXPECT_TRUE(check_spec(spec));
  auto broken = [&](auto change, const char* word) {
    TransferSpec copy = spec;
    change(copy);
    Status s = check_spec(copy);
    ASSERT_FALSE(s) << word;
    EXPECT_EQ(s.error().code, Code::kInvalidArgument);
    EXPECT_NE(s.error().message.find(word), std::string::npos) << s.error().message;
  };
  broken([](TransferSpec& s) { s.id = "x"; }, "32 hex digits");
  broken([](TransferSpec& s) { s.extents.clear(); }, "no extent");
  broken([](TransferSpec& s) { s.extents[1].target = "a"; }, "named twice");
  broken([](TransferSpec& s) { s.lanes = 17; }, "lanes");
  broken([](TransferSpec& s) { s.source_address.clear(); }, "address");
  broken([](TransferSpec& s) { s.extents[0].source = "../x"; }, "x");
}

}  // namespace
}  // namespace siphon
