#include "plugin/rpc/client.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "plugin/rpc/convert.h"
#include "plugin/rpc/grant_proof.h"
#include "plugin/rpc/secret_proof.h"
#include "plugin/rpc/server.h"
#include "plugin/rpc/tls.h"
#include "plugin/stream/socket.h"
#include "siphon/v1/siphon.grpc.pb.h"

namespace siphon::rpc {

namespace {

using Stub = v1::SiphonService::Stub;

Result<std::shared_ptr<grpc::ChannelCredentials>> channel_credentials(
    const Endpoint& endpoint, const ClientOptions& options) {
  const TlsFiles files{options.tls_ca_file, options.tls_cert_file, options.tls_key_file};
  if (!files.any()) {
    if (!is_loopback(endpoint.address)) {
      return fail(
          Code::kFailedPrecondition,
          "device at " + endpoint.to_string() +
              " is not on loopback and no TLS files are configured: plain-text gRPC is "
              "refused",
          Side::kRequester,
          "name the files: siphon --tls-ca, --tls-cert, --tls-key; siphond tls.ca, tls.cert, "
          "tls.key");
    }
    return grpc::InsecureChannelCredentials();
  }
  auto tls = read_tls(files);
  if (!tls) return fail(std::move(tls).error());
  return grpc::SslCredentials({tls->ca, tls->key, tls->cert});
}

// One device: its channel, and how we prove ourselves to it.
struct Connection {
  std::string address;
  std::unique_ptr<Stub> stub;
  Secret secret;

  // Adds the proof of the secret, if there is one.
  template <typename Request>
  void sign(const std::string& method, Request* request) const {
    if (secret.empty()) return;
    const v1::Authority kept = request->authority();
    request->clear_authority();
    std::array<std::byte, 16> nonce{};
    fill_random(nonce);
    const auto issued = static_cast<std::int64_t>(now_unix_ms());
    const Sha256 hmac = secret_proof(secret, method, nonce, issued, request->SerializeAsString());
    *request->mutable_authority() = kept;
    auto* proof = request->mutable_authority()->mutable_proof();
    proof->set_nonce(nonce.data(), nonce.size());
    proof->set_issued_unix_ms(issued);
    proof->set_hmac_sha256(hmac.data(), hmac.size());
  }
  // The device is told the grant's name and a fresh nonce, and nothing else, until it has shown
  // that it knows the grant: whoever took the port of a dead device learns nothing.
  Status check_device(v1::ChallengeRequest request, std::span<const std::byte> key,
                      const char* right) const {
    std::array<std::byte, 16> nonce{};
    fill_random(nonce);
    request.set_nonce(nonce.data(), nonce.size());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::ChallengeResponse response;
    const grpc::Status status = stub->Challenge(&context, request, &response);
    if (!status.ok()) return fail(error(status));
    if (equal_constant_time(device_proof(key, address, nonce),
                            std::as_bytes(std::span(response.hmac_sha256())))) {
      return {};
    }
    return fail({Code::kPermissionDenied,
                 "device at " + address + " holds no valid " + right + " from this requester",
                 Side::kNone,
                 "run the command again: it looks the devices up and asks for grants afresh",
                 Reason::kGrantUnknown});
  }
  template <typename Request>
  v1::GrantProof grant_proof(const std::string& method, const Request& request,
                             std::span<const std::byte> key_id,
                             std::span<const std::byte> key) const {
    std::array<std::byte, 16> nonce{};
    fill_random(nonce);
    Request bare = request;
    bare.clear_authority();
    const Sha256 hmac = call_proof(key, method, address, nonce, bare.SerializeAsString());
    v1::GrantProof proof;
    proof.set_key_id(key_id.data(), key_id.size());
    proof.set_call_nonce(nonce.data(), nonce.size());
    proof.set_hmac_sha256(hmac.data(), hmac.size());
    return proof;
  }
  // Adds what proves `authority`, after the device has proved that it knows it, too. One of the two
  // grants may be at another device: only when this one knows neither is that an error.
  template <typename Request>
  Status prove(const std::string& method, const Authority& authority, Request* request) const {
    bool known = false;
    Status unknown;
    auto add = [&](const std::optional<Nonce>& nonce, const char* right,
                   auto mutable_proof) -> Status {
      if (!nonce) return {};
      const auto key_id = grant_key_id(*nonce);
      v1::ChallengeRequest challenge;
      challenge.set_key_id(key_id.data(), key_id.size());
      if (Status s = check_device(std::move(challenge), *nonce, right); !s) {
        if (s.error().reason != Reason::kGrantUnknown) return s;
        if (unknown) unknown = std::move(s);
        return {};
      }
      known = true;
      *mutable_proof(request->mutable_authority()) = grant_proof(method, *request, key_id, *nonce);
      return {};
    };
    SIPHON_TRY(add(authority.write_nonce, "grant_write",
                   [](v1::Authority* a) { return a->mutable_write(); }));
    SIPHON_TRY(add(authority.read_nonce, "grant_read",
                   [](v1::Authority* a) { return a->mutable_read(); }));
    if (!known && !unknown) return unknown;
    sign(method, request);
    return {};
  }
  Error error(const grpc::Status& status) const { return from_grpc(status, address); }
};

Result<Connection> connect_to(const std::string& address, const ClientOptions& options) {
  auto endpoint = parse_endpoint(address);
  if (!endpoint) return fail(std::move(endpoint).error());
  auto credentials = channel_credentials(*endpoint, options);
  if (!credentials) return fail(std::move(credentials).error());
  Connection connection;
  if (!options.secret_file.empty()) {
    auto secret = read_secret_file(options.secret_file);
    if (!secret) return fail(std::move(secret).error());
    connection.secret = std::move(*secret);
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(endpoint->to_string(), *credentials, arguments);
  connection.address = endpoint->to_string();
  connection.stub = v1::SiphonService::NewStub(channel);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + options.connect_timeout)) {
    return fail(
        Code::kUnavailable, "device at " + connection.address + " does not answer", Side::kNone,
        "is siphond running there (siphon daemons shows)? do both sides use TLS, or neither?");
  }
  return connection;
}

// Cancels a call when `should_stop` says so; looks ten times a second.
class Hangup {
 public:
  Hangup(grpc::ClientContext& context, std::function<bool()> should_stop)
      : thread_([&context, should_stop = std::move(should_stop)](std::stop_token done) {
          std::mutex mutex;
          std::condition_variable_any tick;
          std::unique_lock lock(mutex);
          while (!done.stop_requested()) {
            if (should_stop()) {
              context.TryCancel();
              return;
            }
            tick.wait_for(lock, done, std::chrono::milliseconds(100), [] { return false; });
          }
        }) {}

 private:
  std::jthread thread_;
};

std::function<bool()> stop_when(const std::atomic<bool>* stop) {
  return [stop] { return stop != nullptr && stop->load(); };
}

constexpr auto kUnaryTimeout = std::chrono::seconds(60);
constexpr auto kDeadlineSlack = std::chrono::seconds(30);

}  // namespace

class DeviceClient::Impl {
 public:
  explicit Impl(Connection connection) : connection_(std::move(connection)) {}

  // Hands on what one response brings; true when it was the last.
  static bool take(const v1::TransferResponse& response,
                   const std::function<void(const TransferEvent&)>& on_event,
                   std::optional<Summary>* summary) {
    on_event(decode(response.progress()));
    for (const auto& outcome : response.outcomes()) on_event(decode(outcome));
    if (!response.has_summary()) return false;
    *summary = decode(response.summary());
    on_event(**summary);
    return true;
  }

  template <typename Reader, typename Response, typename Get>
  Result<Summary> follow(Reader& reader, Response& response, Get get,
                         const std::function<void(const TransferEvent&)>& on_event,
                         const std::atomic<bool>* stop) {
    std::optional<Summary> summary;
    while (reader.Read(&response)) take(get(response), on_event, &summary);
    const grpc::Status status = reader.Finish();
    if (summary) return std::move(*summary);
    if (stop != nullptr && stop->load()) {
      return fail(Code::kCancelled, "stopped watching; the transfer goes on");
    }
    if (status.ok()) return fail(Code::kUnavailable, "the device ended the call without a summary");
    Error error = connection_.error(status);
    // Not by us: the device hangs up on who does not read (a requester that was stopped for long).
    if (status.error_code() == grpc::StatusCode::CANCELLED) error.code = Code::kUnavailable;
    return fail(std::move(error));
  }

  Connection connection_;
};

DeviceClient::DeviceClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceClient::~DeviceClient() = default;

Result<std::unique_ptr<DeviceClient>> DeviceClient::connect(const std::string& address,
                                                            const ClientOptions& options) {
  auto connection = connect_to(address, options);
  if (!connection) return fail(std::move(connection).error());
  return std::unique_ptr<DeviceClient>(
      new DeviceClient(std::make_unique<Impl>(std::move(*connection))));
}

Result<Summary> DeviceClient::transfer(const TransferSpec& spec,
                                       const std::function<void(const TransferEvent&)>& on_event,
                                       const std::atomic<bool>* stop) {
  v1::TransferRequest request;
  encode(spec, &request);
  // The read grant is at the source: the target gets a key for this transfer alone.
  SIPHON_TRY(
      impl_->connection_.prove("Transfer", {std::nullopt, spec.authority.write_nonce}, &request));
  if (const auto& nonce = spec.authority.read_nonce) {
    const auto key_id = grant_key_id(*nonce);
    const Sha256 key = source_key(*nonce, spec.id, spec.source);
    auto* source = request.mutable_authority()->mutable_source();
    source->set_key_id(key_id.data(), key_id.size());
    source->set_key(key.data(), key.size());
  }
  grpc::ClientContext context;
  Hangup hangup(context, stop_when(stop));
  auto reader = impl_->connection_.stub->Transfer(&context, request);
  v1::TransferResponse response;
  return impl_->follow(
      *reader, response, [](const auto& r) { return r; }, on_event, stop);
}

Result<Summary> DeviceClient::watch(const std::string& transfer_id, const Authority& authority,
                                    const std::function<void(const TransferEvent&)>& on_event,
                                    const std::atomic<bool>* stop) {
  v1::WatchRequest request;
  request.set_transfer_id(transfer_id);
  SIPHON_TRY(impl_->connection_.prove("Watch", authority, &request));
  grpc::ClientContext context;
  Hangup hangup(context, stop_when(stop));
  auto reader = impl_->connection_.stub->Watch(&context, request);
  v1::WatchResponse response;
  return impl_->follow(
      *reader, response, [](const auto& r) { return r.update(); }, on_event, stop);
}

Result<Phase> DeviceClient::cancel(const std::string& transfer_id, const Authority& authority) {
  v1::CancelRequest request;
  request.set_transfer_id(transfer_id);
  SIPHON_TRY(impl_->connection_.prove("Cancel", authority, &request));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kUnaryTimeout);
  v1::CancelResponse response;
  const grpc::Status status = impl_->connection_.stub->Cancel(&context, request, &response);
  if (!status.ok()) return fail(impl_->connection_.error(status));
  return static_cast<Phase>(response.phase());
}

Result<DeviceClient::TransferList> DeviceClient::list(const Authority& authority, bool finished) {
  v1::ListRequest request;
  request.set_finished(finished);
  SIPHON_TRY(impl_->connection_.prove("List", authority, &request));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kUnaryTimeout);
  v1::ListResponse response;
  const grpc::Status status = impl_->connection_.stub->List(&context, request, &response);
  if (!status.ok()) return fail(impl_->connection_.error(status));
  TransferList list;
  for (const auto& info : response.transfers()) list.transfers.push_back(decode(info));
  for (const auto& place : response.elsewhere()) list.elsewhere.push_back(decode(place));
  return list;
}

Status DeviceClient::verify(const Location& location, const std::vector<std::string>& extents,
                            const Authority& authority,
                            const std::function<void(std::uint64_t done_bytes)>& on_progress,
                            const std::function<void(const VerifyOutcome&)>& on_outcome,
                            const std::atomic<bool>* stop) {
  v1::VerifyRequest request;
  encode(location, request.mutable_place());
  for (const std::string& e : extents) request.add_extents(e);
  SIPHON_TRY(impl_->connection_.prove("Verify", authority, &request));
  grpc::ClientContext context;
  Hangup hangup(context, stop_when(stop));
  auto reader = impl_->connection_.stub->Verify(&context, request);
  v1::VerifyResponse response;
  std::size_t outcomes = 0;
  while (reader->Read(&response)) {
    if (on_progress) on_progress(response.done_bytes());
    if (!response.has_result()) continue;
    ++outcomes;
    on_outcome(decode(response.result()));
  }
  const grpc::Status status = reader->Finish();
  if (stop != nullptr && stop->load()) return fail(Code::kCancelled, "verify was stopped");
  if (!status.ok()) return fail(impl_->connection_.error(status));
  if (outcomes != extents.size()) {
    return fail(Code::kUnavailable, "the device answered for " + std::to_string(outcomes) + " of " +
                                        std::to_string(extents.size()) + " extents");
  }
  return {};
}

Result<DeviceDescription> DeviceClient::describe() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kUnaryTimeout);
  v1::DescribeResponse response;
  const grpc::Status status = impl_->connection_.stub->Describe(&context, {}, &response);
  if (!status.ok()) return fail(impl_->connection_.error(status));
  return decode(response);
}

// ---- the second call
// -------------------------------------------------------------------------------

namespace {

class GrpcSourceCaller final : public SourceCaller {
 public:
  explicit GrpcSourceCaller(ClientOptions options) : options_(std::move(options)) {}

  StreamEnd stream(const StreamCall& call,
                   const std::function<void(const SourceReport&)>& on_report,
                   std::stop_token stop) override {
    StreamEnd end;
    auto connection = connect_to(call.source_address, options_);
    if (!connection) {
      end.status = fail(std::move(connection).error().with_suspect(Side::kSource));
      return end;
    }
    v1::StreamRequest request;
    encode(call, &request);
    if (Status proven = prove(*connection, call, &request); !proven) {
      end.status = fail(std::move(proven).error().with_suspect(Side::kSource));
      return end;
    }
    end.rpc_bytes += request.ByteSizeLong();
    grpc::ClientContext context;
    // The source keeps to the deadline that it is told; this ends the call of one that does not.
    context.set_deadline(std::chrono::system_clock::now() + call.deadline + kDeadlineSlack);
    std::stop_callback hangup(stop, [&context] { context.TryCancel(); });
    auto reader = connection->stub->Stream(&context, request);
    v1::StreamResponse response;
    bool ended = false;
    while (reader->Read(&response)) {
      end.rpc_bytes += response.ByteSizeLong();
      if (response.has_final_status()) {
        ended = true;
        end.status = decode(response.final_status().problem());
        end.fallback_parts = response.final_status().fallback_parts();
      } else {
        on_report(decode(response));
      }
    }
    const grpc::Status status = reader->Finish();
    if (!ended && stop.stop_requested()) {
      end.status = fail(Code::kCancelled, "the second call was cancelled");
    } else if (!status.ok()) {
      end.status = fail(connection->error(status).with_suspect(Side::kSource));
    } else if (!ended) {
      end.status = fail(Code::kUnavailable, "the source ended the second call without a status",
                        Side::kSource);
    }
    return end;
  }

 private:
  // The source, too, shows that it knows the grant before it gets the ticket.
  static Status prove(const Connection& connection, const StreamCall& call,
                      v1::StreamRequest* request) {
    if (call.source_key) {
      const SourceKey& source = *call.source_key;
      v1::ChallengeRequest challenge;
      challenge.set_key_id(source.key_id.data(), source.key_id.size());
      challenge.set_transfer_id(call.transfer_id);
      encode(call.source, challenge.mutable_source());
      SIPHON_TRY(connection.check_device(std::move(challenge), source.key, "grant_read"));
      *request->mutable_authority()->mutable_read() =
          connection.grant_proof("Stream", *request, source.key_id, source.key);
    }
    connection.sign("Stream", request);
    return {};
  }

  const ClientOptions options_;
};

}  // namespace

std::unique_ptr<SourceCaller> make_source_caller(ClientOptions options) {
  return std::make_unique<GrpcSourceCaller>(std::move(options));
}

}  // namespace siphon::rpc
