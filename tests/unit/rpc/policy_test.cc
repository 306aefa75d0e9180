// What a control port asks of those behind it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "adapters/memory/memory_store.h"
#include "plugin/rpc/server.h"

namespace siphon::rpc {
namespace {

// Shows pool "mine" to whoever has the one grant, and counts what it is asked.
class CountingPolicy final : public AccessPolicy {
 public:
  bool wants_grants() const override { return true; }
  std::optional<Nonce> find_nonce(std::span<const std::byte, 16> key_id) override {
    ++proofs;
    if (std::ranges::equal(key_id, grant_key_id(nonce))) return nonce;
    return std::nullopt;
  }
  Status allow(Action action, const Location& location, const Authority&) override {
    const std::lock_guard lock(mutex_);
    ++asked_[{action, location.to_string()}];
    if (location.pool == "mine") return {};
    return fail(Code::kPermissionDenied, "not this one");
  }
  Status allow_any(const Authority&) override { return {}; }
  bool may_know_namespaces(const std::string& pool, const Authority&) override {
    const std::lock_guard lock(mutex_);
    ++namespaces_of_[pool];
    return pool == "known";
  }

  Nonce nonce{std::byte{1}};
  std::atomic<int> proofs{0};  // that calls have shown

  std::map<std::pair<Action, std::string>, int> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  std::map<std::string, int> namespaces_of() const {
    const std::lock_guard lock(mutex_);
    return namespaces_of_;
  }

 private:
  mutable std::mutex mutex_;  // guards both: the server's threads count
  std::map<std::pair<Action, std::string>, int> asked_;
  std::map<std::string, int> namespaces_of_;
};

class NoSource final : public SourceCaller {
  StreamEnd stream(const StreamCall&, const std::function<void(const SourceReport&)>&,
                   std::stop_token) override {
    StreamEnd end;
    end.status = fail(Code::kUnavailable, "nobody is there");
    return end;
  }
};

class DevicePolicyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    stores_.set_fault_hook([](const MemoryOperation&) -> Status {
      return fail(Code::kUnavailable, "each transfer ends at once");
    });
    auto server = DeviceServer::start(
        {}, {manager_, source_, stores_, policy_, [](const TransferSpec&) -> Status { return {}; },
             [] { return DeviceDescription(); }});
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    auto client = DeviceClient::connect(server_->endpoint().to_string(), {});
    ASSERT_TRUE(client) << client.error().message;
    client_ = std::move(*client);
  }

  TransferSettings settings_;
  ArenaMemory arena_ = *ArenaMemory::allocate(8 * kMiB);
  BufferPool pool_{arena_.span()};
  std::unique_ptr<AttemptJournal> journal_ = *AttemptJournal::open(":memory:");
  NoSource caller_;
  DeviceCounters counters_;
  Throttle throttle_;
  MemoryProvider stores_{{"mine", "known", "foreign"}};
  TransferManager manager_{{settings_, pool_, *journal_, caller_, counters_, throttle_}};
  SourceService source_{settings_, pool_, throttle_, counters_};
  CountingPolicy policy_;
  std::unique_ptr<DeviceServer> server_;
  std::unique_ptr<DeviceClient> client_;
};

TEST_F(DevicePolicyTest, AListAsksThePolicyOnceForEachPlace) {
  for (const Location& place :
       {Location{"mine", ""}, {"mine", "a"}, {"known", ""}, {"known", "a"}, {"foreign", ""}}) {
    for (int i = 0; i < 5; ++i) {
      TransferSpec spec;
      spec.id = new_transfer_id();
      spec.source_address = "127.0.0.1:1";
      spec.source = {"from", ""};
      spec.target = place;
      spec.extents.push_back({"e", "e"});
      ASSERT_TRUE(manager_.submit(std::move(spec), **stores_.open(place)));
    }
  }
  const auto list = client_->list({std::nullopt, policy_.nonce}, /*finished=*/true);
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list->transfers.size(), 10u);
  EXPECT_EQ(list->elsewhere.size(), 2u);
  const auto asked = policy_.asked();
  EXPECT_EQ(asked.size(), 5u + 3u) << "to write, and where that is denied to read";
  for (const auto& [question, times] : asked) EXPECT_EQ(times, 1) << question.second;
  EXPECT_EQ(policy_.namespaces_of().at("known"), 2) << "its two places";
  EXPECT_EQ(policy_.namespaces_of().at("foreign"), 1);
}

// Else a busy device resets the connection before it looks at what was proven.
TEST_F(DevicePolicyTest, ACallerMakesHimselfKnownBeforeALargeRequest) {
  const auto proofs_for = [&](std::size_t extents) {
    policy_.proofs = 0;
    const std::vector<std::string> names(extents, std::string(100, 'e'));
    const Status verified = client_->verify({"mine", ""}, names, {policy_.nonce, std::nullopt}, {},
                                            [](const VerifyOutcome&) {});
    EXPECT_TRUE(verified) << verified.error().message;
    return policy_.proofs.load();
  };
  EXPECT_EQ(proofs_for(1), 2) << "a Challenge, the call";
  EXPECT_EQ(proofs_for(1000), 3) << "a Challenge, one that is fresh, the call";
}

}  // namespace
}  // namespace siphon::rpc
