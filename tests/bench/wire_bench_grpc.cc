// bench_wire_grpc: the same bytes by gRPC server streaming, with the same crc32 at both ends.
//
//   grpc          the bytes lie in memory and are put into one message object, used again and
//                 again: what a server over a store does
//   grpc_premade  the messages exist beforehand, so that not even that copy is made: a ceiling that
//                 no real server reaches, for comparison
//
// --lanes: channels, each with a connection of its own; --message: bytes a message. Tuned as its
// users would: synchronous calls, a thread each, no size limit, large HTTP/2 frames, no
// compression.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "bulk.grpc.pb.h"
#include "plugin/base/crc32.h"
#include "tests/bench/two_processes.h"

namespace siphon::bench {
namespace {

std::uint32_t crc_of(const std::string& data) { return crc32(std::as_bytes(std::span(data))); }

class BulkService final : public Bulk::Service {
 public:
  BulkService(std::span<const std::byte> pattern, std::size_t message_bytes, bool premade)
      : pattern_(pattern), message_bytes_(message_bytes) {
    for (std::size_t at = 0; premade && at < pattern.size(); at += message_bytes) {
      fill(premade_.emplace_back(), at);
    }
  }
  grpc::Status Get(grpc::ServerContext*, const GetRequest* request,
                   grpc::ServerWriter<GetResponse>* writer) override {
    GetResponse own;
    std::uint64_t sent = 0;
    while (sent < request->bytes()) {
      const std::size_t at = sent % pattern_.size();
      if (premade_.empty()) fill(own, at);
      const GetResponse& response = premade_.empty() ? own : premade_[at / message_bytes_];
      if (!premade_.empty() && crc_of(response.data()) != response.crc32()) {
        return {grpc::StatusCode::DATA_LOSS, "not what was stored"};
      }
      if (!writer->Write(response)) return {grpc::StatusCode::ABORTED, "the reader went away"};
      sent += response.data().size();
    }
    return grpc::Status::OK;
  }

 private:
  void fill(GetResponse& response, std::size_t at) const {
    const auto piece = pattern_.subspan(at, std::min(message_bytes_, pattern_.size() - at));
    response.set_data(piece.data(), piece.size());
    response.set_crc32(crc_of(response.data()));
  }

  const std::span<const std::byte> pattern_;
  const std::size_t message_bytes_;
  std::vector<GetResponse> premade_;
};

void source(const Options& options, std::span<const std::byte> pattern, const OtherEnd& target) {
  BulkService service(pattern, options.message_bytes, options.mode == "grpc_premade");
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  if (!server) die("grpc: no server");
  Introduction introduction;
  introduction.port = static_cast<std::uint16_t>(port);
  target.ready(introduction);
  target.wait();
}

std::uint64_t target_lane(std::uint16_t port, std::uint64_t bytes, std::size_t message_bytes) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  auto channel = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                           grpc::InsecureChannelCredentials(), arguments);
  auto stub = Bulk::NewStub(channel);
  grpc::ClientContext context;
  GetRequest request;
  request.set_bytes(bytes);
  request.set_message_bytes(static_cast<std::uint32_t>(message_bytes));
  auto reader = stub->Get(&context, request);
  GetResponse response;
  std::uint64_t got = 0;
  while (reader->Read(&response)) {
    if (crc_of(response.data()) != response.crc32()) die("grpc: a message arrived damaged");
    got += response.data().size();
  }
  if (auto status = reader->Finish(); !status.ok()) die("grpc: " + status.error_message());
  return got;
}

void target(const Options& options, const Introduction& introduction) {
  std::atomic<std::uint64_t> total{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < options.lanes; ++i) {
    threads.emplace_back([&] {
      total += target_lane(introduction.port, options.bytes / static_cast<unsigned>(options.lanes),
                           options.message_bytes);
    });
  }
  for (auto& thread : threads) thread.join();
  if (total < options.bytes) die("grpc: bytes are missing");
}

}  // namespace
}  // namespace siphon::bench

int main(int argc, char** argv) {
  using namespace siphon::bench;
  const Options options = parse_options(argc, argv, "grpc, grpc_premade");
  if (options.mode != "grpc" && options.mode != "grpc_premade")
    die("no mode '" + options.mode + "'");
  const auto pattern = make_pattern();
  // The server sends, so the source is the end that listens. gRPC is first touched after the fork.
  run_two_processes(
      options, false, [&](const OtherEnd& other) { source(options, pattern, other); },
      [&](const Introduction& introduction) { target(options, introduction); });
  return 0;
}
