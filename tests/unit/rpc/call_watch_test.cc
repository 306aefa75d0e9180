// A call whose peer does not read ends, and its thread with it.
#include "plugin/rpc/call_watch.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <string>

#include "siphon/v1/siphon.grpc.pb.h"

namespace siphon::rpc {
namespace {

// Tells more than any connection holds.
class Talker final : public v1::SiphonService::Service {
 public:
  explicit Talker(std::chrono::milliseconds patience) : calls_(patience) {}

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest*,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    CallWatch::Call peer(calls_, *context);
    v1::WatchResponse response;
    response.mutable_update()->set_transfer_id(std::string(1 << 20, 'x'));
    while (peer.wait_for_peer([&] { return writer->Write(response); })) ++written_;
    stopped_.set_value(peer.stop().stop_requested());
    return grpc::Status::OK;
  }

  std::future<bool> stopped() { return stopped_.get_future(); }
  int written() const { return written_; }

 private:
  CallWatch calls_;
  std::promise<bool> stopped_;
  std::atomic<int> written_{0};
};

TEST(CallWatch, ACallerThatDoesNotReadIsHungUp) {
  Talker talker{std::chrono::milliseconds(200)};
  std::future<bool> stopped = talker.stopped();
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&talker);
  const auto server = builder.BuildAndStart();
  ASSERT_TRUE(server);

  const auto channel =
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  const auto stub = v1::SiphonService::NewStub(channel);
  grpc::ClientContext context;
  const auto reader = stub->Watch(&context, v1::WatchRequest());
  ASSERT_EQ(stopped.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_TRUE(stopped.get());
  v1::WatchResponse response;
  int read = 0;
  while (reader->Read(&response)) ++read;
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_LE(read, talker.written() + 1);
  server->Shutdown();
}

}  // namespace
}  // namespace siphon::rpc
