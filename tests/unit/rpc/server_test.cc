// What one key's calls leave to the others, at a real control port over memory stores.
#include "plugin/rpc/server.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>

#include "adapters/memory/memory_store.h"
#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/convert.h"
#include "siphon/v1/siphon.grpc.pb.h"
#include "tests/contract/samples.h"

namespace siphon::rpc {
namespace {

// Every key that it was given may do everything, and pays for itself.
class Keys final : public AccessPolicy {
 public:
  Nonce add(const std::string& payer) {
    Nonce nonce;
    fill_random(nonce);
    by_id_[grant_key_id(nonce)] = nonce;
    payers_[nonce] = payer;
    return nonce;
  }
  bool wants_grants() const override { return true; }
  std::optional<Nonce> find_nonce(std::span<const std::byte, 16> key_id) override {
    KeyId id;
    std::ranges::copy(key_id, id.begin());
    const auto it = by_id_.find(id);
    return it == by_id_.end() ? std::nullopt : std::optional(it->second);
  }
  Status allow(Action, const Location&, const Authority&) override { return {}; }
  Status allow_any(const Authority&) override { return {}; }
  Payers payers(const Authority& authority) override {
    return {{payers_.at(authority.read_nonce.value())}};
  }
  bool may_know_namespaces(const std::string&, const Authority&) override { return true; }

 private:
  std::map<KeyId, Nonce> by_id_;
  std::map<Nonce, std::string> payers_;
};

class NoCaller final : public SourceCaller {
 public:
  StreamEnd stream(const StreamCall&, const std::function<void(const SourceReport&)>&,
                   std::stop_token) override {
    return {};
  }
};

// Calls that are entitled to what they ask, and never send their request.
class SlowCalls {
 public:
  SlowCalls(const std::string& address, const Nonce& nonce) : address_(address), nonce_(nonce) {}
  ~SlowCalls() {
    for (Call& call : calls_) call.context.TryCancel();
    wait_for_ends(calls_.size());
    queue_.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) {
    }
  }
  // Over a connection of their own.
  void start(const std::string& method, int count) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
    const DeviceTime device = ask(channel);
    grpc::GenericStub stub(channel);
    for (int i = 0; i < count; ++i) {
      Call& call = calls_.emplace_back();
      prove(call.context, method, device);
      call.stream = stub.PrepareCall(&call.context, "/siphon.v1.SiphonService/" + method, &queue_);
      call.stream->StartCall(nullptr);
      call.stream->Finish(&call.status, &call);
    }
  }
  // How many of all have ended, once `count` have; fewer if that takes 30 s.
  std::size_t wait_for_ends(std::size_t count) {
    const auto until = std::chrono::system_clock::now() + std::chrono::seconds(30);
    void* tag = nullptr;
    bool ok = false;
    while (ended_ < count &&
           queue_.AsyncNext(&tag, &ok, until) == grpc::CompletionQueue::GOT_EVENT) {
      ended_ += tag != nullptr;
    }
    return ended_;
  }
  std::map<grpc::StatusCode, int> codes() const {
    std::map<grpc::StatusCode, int> codes;
    for (const Call& call : calls_) ++codes[call.status.error_code()];
    return codes;
  }

 private:
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
    grpc::Status status;
  };

  DeviceTime ask(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    prove(context, "Challenge", {});
    v1::ChallengeResponse response;
    const auto stub = v1::SiphonService::NewStub(channel);
    EXPECT_TRUE(stub->Challenge(&context, {}, &response).ok());
    DeviceTime device;
    EXPECT_EQ(response.run_id().size(), device.run_id.size());
    std::memcpy(device.run_id.data(), response.run_id().data(), response.run_id().size());
    device.clock_ms = response.clock_ms();
    return device;
  }
  void prove(grpc::ClientContext& context, const std::string& method, const DeviceTime& device) {
    context.AddMetadata(
        kReadProof,
        make_call_proof(nonce_, grant_key_id(nonce_), method, address_, device, {}).encode());
  }

  const std::string address_;
  const Nonce nonce_;
  grpc::CompletionQueue queue_;
  std::list<Call> calls_;
  std::size_t ended_ = 0;
};

class DeviceServerTest : public ::testing::Test {
 protected:
  void start(std::chrono::milliseconds patience) {
    ServerOptions options;
    options.peer_patience = patience;
    Device device{manager_,
                  source_,
                  provider_,
                  keys_,
                  [](const TransferSpec&) { return Status(); },
                  [] { return DeviceDescription(); }};
    auto server = DeviceServer::start(options, device);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
  }
  std::string address() const { return server_->endpoint().to_string(); }
  // One call of each kind.
  Status list(const Nonce& nonce) {
    auto client = DeviceClient::connect(address(), {});
    if (!client) return fail(client.error());
    auto listed = (*client)->list({nonce, std::nullopt}, true);
    if (!listed) return fail(listed.error());
    return {};
  }
  Status verify(const Nonce& nonce) {
    auto client = DeviceClient::connect(address(), {});
    if (!client) return fail(client.error());
    return (*client)->verify(
        {"p", ""}, {"none"}, {nonce, std::nullopt}, [](std::uint64_t) {},
        [](const VerifyOutcome&) {});
  }

  TransferSettings settings_;
  ArenaMemory arena_ = *ArenaMemory::allocate(8 * kMiB);
  BufferPool pool_{arena_.span()};
  Throttle throttle_, receive_throttle_;
  DeviceCounters counters_;
  std::unique_ptr<AttemptJournal> journal_ = *AttemptJournal::open(":memory:");
  NoCaller caller_;
  MemoryProvider provider_{{"p"}, contract::small_parts()};
  SourceService source_{settings_, pool_, throttle_, counters_};
  TransferManager manager_{{settings_, pool_, *journal_, caller_, counters_, receive_throttle_}};
  Keys keys_;
  std::unique_ptr<DeviceServer> server_;
};

TEST_F(DeviceServerTest, SlowCallsOfOneKeyLeaveThreadsToTheOthersOfEachKind) {
  start(std::chrono::seconds(60));
  const Nonce greedy = keys_.add("greedy"), other = keys_.add("other");
  SlowCalls calls(address(), greedy);
  for (const char* method : {"List", "Verify"}) {
    for (int connection = 0; connection < 2; ++connection) calls.start(method, 20);
  }
  // Of each kind he has half of 32 threads.
  EXPECT_EQ(calls.wait_for_ends(48), 48u);
  const Status listed = list(greedy);
  ASSERT_FALSE(listed);
  EXPECT_EQ(listed.error().reason, Reason::kBusy) << listed.error().message;
  for (const Status& status : {list(other), verify(other)})
    EXPECT_TRUE(status) << status.error().message;
}

TEST_F(DeviceServerTest, ARequestThatDoesNotComeEndsItsCallAndGivesAllBack) {
  start(std::chrono::milliseconds(500));
  const Nonce key = keys_.add("key");
  SlowCalls calls(address(), key);
  calls.start("List", 12);
  EXPECT_EQ(calls.wait_for_ends(12), 12u);
  for (const auto& [code, count] : calls.codes()) {
    // Cancelled where it was read, busy where it waited for its turn.
    EXPECT_TRUE(code == grpc::StatusCode::CANCELLED || code == grpc::StatusCode::UNAVAILABLE)
        << code << " " << count;
  }
  const Status listed = list(key);
  EXPECT_TRUE(listed) << listed.error().message;
}

}  // namespace
}  // namespace siphon::rpc
