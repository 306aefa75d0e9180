// What a control port asks of those behind it.
#include <gtest/gtest.h>

#include <algorithm>
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
    if (std::ranges::equal(key_id, grant_key_id(nonce))) return nonce;
    return std::nullopt;
  }
  Status allow(Action action, const Location& location, const Authority&) override {
    const std::lock_guard lock(mutex_);
    ++asked[{action, location.to_string()}];
    if (location.pool == "mine") return {};
    return fail(Code::kPermissionDenied, "not this one");
  }
  Status allow_any(const Authority&) override { return {}; }
  bool may_know_namespaces(const std::string& pool, const Authority&) override {
    const std::lock_guard lock(mutex_);
    ++namespaces_of[pool];
    return pool == "known";
  }

  Nonce nonce{std::byte{1}};
  std::map<std::pair<Action, std::string>, int> asked;
  std::map<std::string, int> namespaces_of;

 private:
  std::mutex mutex_;
};

class NoSource final : public SourceCaller {
  StreamEnd stream(const StreamCall&, const std::function<void(const SourceReport&)>&,
                   std::stop_token) override {
    StreamEnd end;
    end.status = fail(Code::kUnavailable, "nobody is there");
    return end;
  }
};

TEST(DeviceServerTest, AListAsksThePolicyOnceForEachPlace) {
  TransferSettings settings;
  ArenaMemory arena = *ArenaMemory::allocate(8 * kMiB);
  BufferPool pool(arena.span());
  auto journal = *AttemptJournal::open(":memory:");
  NoSource caller;
  DeviceCounters counters;
  Throttle throttle;
  MemoryProvider stores({"mine", "known", "foreign"});
  stores.set_fault_hook([](const MemoryOperation&) -> Status {
    return fail(Code::kUnavailable, "each transfer ends at once");
  });
  TransferManager manager({settings, pool, *journal, caller, counters, throttle});
  for (const Location& place :
       {Location{"mine", ""}, {"mine", "a"}, {"known", ""}, {"known", "a"}, {"foreign", ""}}) {
    for (int i = 0; i < 5; ++i) {
      TransferSpec spec;
      spec.id = new_transfer_id();
      spec.source_address = "127.0.0.1:1";
      spec.source = {"from", ""};
      spec.target = place;
      spec.extents.push_back({"e", "e"});
      ASSERT_TRUE(manager.submit(std::move(spec), **stores.open(place)));
    }
  }
  SourceService source(settings, pool, throttle, counters);
  CountingPolicy policy;
  auto server =
      DeviceServer::start({}, {manager, source, stores, policy,
                               [](const TransferSpec&) -> Status { return {}; },
                               [] { return DeviceDescription(); }});
  ASSERT_TRUE(server) << server.error().message;
  auto client = DeviceClient::connect((*server)->endpoint().to_string(), {});
  ASSERT_TRUE(client) << client.error().message;
  const auto list = (*client)->list({std::nullopt, policy.nonce}, /*finished=*/true);
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list->transfers.size(), 10u);
  EXPECT_EQ(list->elsewhere.size(), 2u);
  EXPECT_EQ(policy.asked.size(), 5u + 3u) << "to write, and where that is denied to read";
  for (const auto& [question, times] : policy.asked) EXPECT_EQ(times, 1) << question.second;
  EXPECT_EQ(policy.namespaces_of.at("known"), 2) << "its two places";
  EXPECT_EQ(policy.namespaces_of.at("foreign"), 1);
}

}  // namespace
}  // namespace siphon::rpc
