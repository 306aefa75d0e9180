#include "plugin/rpc/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "plugin/base/thread.h"
#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/convert.h"
#include "plugin/rpc/grpc_limits.h"
#include "plugin/rpc/secret_file.h"
#include "plugin/rpc/server.h"
#include "plugin/rpc/tls.h"
#include "plugin/stream/socket.h"
#include "siphon/v1/siphon.grpc.pb.h"

namespace siphon::rpc {

namespace {

using Stub = v1::SiphonService::Stub;

constexpr std::size_t kMaxWordsBytes = 64;  // of a version, of a home

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

// Something that entitles: what it is called in the metadata, and for people. `bytes` is the
// caller's.
struct Key {
  const char* entry;
  const char* right;
  KeyId id;
  std::span<const std::byte> bytes;
};

// Whether whoever waits for a device should give up; empty: never.
using ShouldStop = std::function<bool()>;
constexpr std::chrono::milliseconds kLook{100};  // how often it is asked

// Cancels a call when `should_stop` says so. Where there is no thread for that, the call ends by
// itself or by its deadline.
class Hangup {
 public:
  Hangup(grpc::ClientContext& context, const ShouldStop& should_stop) {
    if (!should_stop) return;
    auto thread =
        start_thread(Side::kRequester, [&context, &should_stop](const std::stop_token& done) {
          std::mutex mutex;
          std::condition_variable_any tick;
          std::unique_lock lock(mutex);
          while (!done.stop_requested()) {
            if (should_stop()) {
              context.TryCancel();
              return;
            }
            tick.wait_for(lock, done, kLook, [] { return false; });
          }
        });
    if (thread) thread_ = std::move(*thread);
  }

 private:
  std::jthread thread_;
};

// One device: its channel, and how we prove ourselves to it.
struct Connection {
  std::string address;
  std::unique_ptr<Stub> stub;
  Secret secret;
  bool has_tls = false;
  ShouldStop should_stop;  // ends whatever waits for the device

  bool stopped() const { return should_stop && should_stop(); }
  // Nothing was asked of the device but who it is.
  Error not_asked() const {
    return {Code::kCancelled, "interrupted before the device at " + address + " was asked",
            Side::kRequester, "", Reason::kNotAsked};
  }

  // Adds to `context` what proves that this call with `request` is entitled by `keys` and by the
  // secret, if there is one. Before, the device is told their names and nothing else, and shows
  // that it knows them: whoever took the port of a dead device learns nothing. One of two grants
  // may be at another device: only when this one knows none is that an error. With nothing to show,
  // the call goes as it is.
  template <typename Request>
  Status prove(grpc::ClientContext& context, const std::string& method, std::vector<Key> keys,
               const Request& request, const std::string& scope = {}) const {
    if (!secret.empty()) keys.push_back({kSecretProof, "secret", {}, secret.reveal()});
    if (keys.empty()) {
      // A certificate is all: the device gets to know us before we send it anything large.
      if (has_tls) (void)challenge({}, {}, {}, nullptr);
      if (stopped()) return fail(not_asked());
      return {};
    }
    auto known = known_by_device(keys, scope);
    if (stopped()) return fail(not_asked());
    if (!known) return fail(std::move(known).error());
    const std::string bytes = request.SerializeAsString();
    if (bytes.size() > kMostWhileUnknown) {
      auto heard = challenge(known->keys, scope, known->device, nullptr);
      if (stopped()) return fail(not_asked());
      if (!heard) return fail(std::move(heard).error());
    }
    for (const Key& key : known->keys) {
      context.AddMetadata(
          key.entry,
          make_call_proof(key.bytes, key.id, method, address, known->device, bytes).encode());
    }
    if (!scope.empty()) context.AddMetadata(kScope, scope);
    return {};
  }
  Error error(const grpc::Status& status) const { return from_grpc(status, address); }
  // What hides a key within a call: the first that proves it. With none TLS does, or nobody is
  // asked for any.
  template <typename Key>
  std::optional<std::span<const std::byte>> mask_key(const std::optional<Key>& proves) const {
    if (proves) return std::span<const std::byte>(*proves);
    if (!secret.empty()) return secret.reveal();
    return std::nullopt;
  }

 private:
  struct Known {
    std::vector<Key> keys;
    DeviceTime device;
  };

  // Of a request by a caller whom the device does not know yet: it resets a connection that says
  // more (Door) before the call's authority is looked at, which a busy device does late.
  static constexpr std::size_t kMostWhileUnknown = 4096;

  // With a `device` that has answered before, the proofs are fresh, and it knows us from then on.
  // Without effects, so it is asked again when a flooded device has turned us away.
  // Blocks for 20 s at most.
  Result<v1::ChallengeResponse> challenge(const std::vector<Key>& keys, const std::string& scope,
                                          const DeviceTime& device,
                                          std::vector<CallProof>* shown) const {
    constexpr int kTries = 3;
    for (int attempt = 1;; ++attempt) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
      if (shown != nullptr) shown->clear();
      for (const Key& key : keys) {
        const auto proof = make_call_proof(key.bytes, key.id, "Challenge", address, device, {});
        context.AddMetadata(key.entry, proof.encode());
        if (shown != nullptr) shown->push_back(proof);
      }
      if (!scope.empty()) context.AddMetadata(kScope, scope);
      const Hangup hangup(context, should_stop);
      v1::ChallengeResponse response;
      const grpc::Status status = stub->Challenge(&context, {}, &response);
      if (status.ok()) return response;
      const bool turned_away = status.error_code() == grpc::StatusCode::UNAVAILABLE &&
                               status.error_details().empty() && attempt < kTries;
      if (!turned_away) return fail(error(status));
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }

  Result<Known> known_by_device(const std::vector<Key>& keys, const std::string& scope) const {
    std::vector<CallProof> shown;
    auto answered = challenge(keys, scope, {}, &shown);
    if (!answered) {
      Error refused = std::move(answered).error();
      return fail(refused.reason == Reason::kGrantUnknown ? unknown(keys) : std::move(refused));
    }
    const v1::ChallengeResponse& response = *answered;
    Known known;
    if (response.life().size() == known.device.life.size()) {
      std::memcpy(known.device.life.data(), response.life().data(), response.life().size());
    }
    known.device.clock_ms = response.clock_ms();
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::string& answer = keys[i].entry == kReadProof    ? response.read()
                                  : keys[i].entry == kWriteProof ? response.write()
                                                                 : response.secret();
      if (equal_constant_time(device_proof(keys[i].bytes, address, shown[i].nonce, known.device),
                              std::as_bytes(std::span(answer)))) {
        known.keys.push_back(keys[i]);
      }
    }
    if (known.keys.empty()) return fail(unknown(keys));
    return known;
  }

  Error unknown(const std::vector<Key>& keys) const {
    if (keys.front().entry == kSecretProof) {
      return {Code::kPermissionDenied,
              "device at " + address + " does not prove that it knows the secret", Side::kNone,
              "who listens there? name the secret file of that daemon (--secret-file)"};
    }
    return {
        Code::kPermissionDenied,
        "device at " + address + " holds no valid " + keys.front().right + " from this requester",
        Side::kNone,
        "run the command again: it looks the devices up and asks for grants afresh; are both "
        "sides of one version?",
        Reason::kGrantUnknown};
  }
};

std::string words(grpc::string_ref text) {
  return {text.data(), std::min(text.size(), kMaxWordsBytes)};
}

std::vector<Key> keys_of(const Authority& authority) {
  std::vector<Key> keys;
  if (const auto& nonce = authority.write_nonce) {
    keys.push_back({kWriteProof, "grant_write", grant_key_id(*nonce), *nonce});
  }
  if (const auto& nonce = authority.read_nonce) {
    keys.push_back({kReadProof, "grant_read", grant_key_id(*nonce), *nonce});
  }
  return keys;
}

// gRPC's wait has an end and no cancel, and goes on where the last one ended: so it is a short one
// each time. A channel that is let go gives up its connecting by itself.
bool wait_connected(grpc::Channel& channel, std::chrono::milliseconds timeout,
                    const ShouldStop& should_stop) {
  const auto until = std::chrono::system_clock::now() + timeout;
  for (auto now = until - timeout; now < until; now = std::chrono::system_clock::now()) {
    if (should_stop && should_stop()) return false;
    if (channel.WaitForConnected(std::min(until, now + kLook))) return true;
  }
  return false;
}

Result<Connection> connect_to(const std::string& address, const ClientOptions& options,
                              ShouldStop should_stop) {
  prepare_grpc();
  auto endpoint = parse_endpoint(address);
  if (!endpoint) return fail(std::move(endpoint).error());
  auto credentials = channel_credentials(*endpoint, options);
  if (!credentials) return fail(std::move(credentials).error());
  Connection connection;
  connection.has_tls = !options.tls_cert_file.empty();
  if (!options.secret_file.empty()) {
    auto secret = read_secret_file(options.secret_file);
    if (!secret) return fail(std::move(secret).error());
    connection.secret = std::move(*secret);
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  // A device that is flooded turns a few away.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(endpoint->to_string(), *credentials, arguments);
  connection.address = endpoint->to_string();
  connection.stub = v1::SiphonService::NewStub(channel);
  connection.should_stop = std::move(should_stop);
  if (!wait_connected(*channel, options.connect_timeout, connection.should_stop)) {
    if (connection.stopped()) return fail(connection.not_asked());
    return fail(Code::kUnavailable, "device at " + connection.address + " does not answer",
                Side::kNone,
                "is siphond running there (siphon daemons " + connection.address +
                    "/ shows)? do both sides use TLS, or neither?");
  }
  return connection;
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
                         const std::function<void(const TransferEvent&)>& on_event) {
    std::optional<Summary> summary;
    while (reader.Read(&response)) take(get(response), on_event, &summary);
    const grpc::Status status = reader.Finish();
    if (summary) return std::move(*summary);
    // By us, then; else the call broke by itself, and the device may be gone.
    if (connection_.stopped() && status.error_code() == grpc::StatusCode::CANCELLED) {
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
                                                            const ClientOptions& options,
                                                            const std::atomic<bool>* stop) {
  ShouldStop should_stop;
  if (stop != nullptr) should_stop = [stop] { return stop->load(); };
  auto connection = connect_to(address, options, std::move(should_stop));
  if (!connection) return fail(std::move(connection).error());
  return std::unique_ptr<DeviceClient>(
      new DeviceClient(std::make_unique<Impl>(std::move(*connection))));
}

Result<Summary> DeviceClient::transfer(const TransferSpec& spec,
                                       const std::function<void(const TransferEvent&)>& on_event) {
  v1::TransferRequest request;
  encode(spec, &request);
  // The read grant is at the source: the target gets a key for this transfer alone.
  if (const auto& nonce = spec.authority.read_nonce) {
    const auto key_id = grant_key_id(*nonce);
    const std::string scope = source_scope(spec.id, spec.source);
    Sha256 key = source_key(*nonce, scope);
    if (const auto with = impl_->connection_.mask_key(spec.authority.write_nonce)) {
      key = masked(key, *with, kSourceKeyMask, std::as_bytes(std::span(scope)));
    }
    request.mutable_source_key()->set_key_id(key_id.data(), key_id.size());
    request.mutable_source_key()->set_key(key.data(), key.size());
  }
  grpc::ClientContext context;
  const Authority here{std::nullopt, spec.authority.write_nonce};
  SIPHON_TRY(impl_->connection_.prove(context, "Transfer", keys_of(here), request));
  const Hangup hangup(context, impl_->connection_.should_stop);
  auto reader = impl_->connection_.stub->Transfer(&context, request);
  v1::TransferResponse response;
  return impl_->follow(
      *reader, response, [](const auto& r) { return r; }, on_event);
}

Result<Summary> DeviceClient::watch(const std::string& transfer_id, const Authority& authority,
                                    const std::function<void(const TransferEvent&)>& on_event) {
  v1::WatchRequest request;
  request.set_transfer_id(transfer_id);
  grpc::ClientContext context;
  SIPHON_TRY(impl_->connection_.prove(context, "Watch", keys_of(authority), request));
  const Hangup hangup(context, impl_->connection_.should_stop);
  auto reader = impl_->connection_.stub->Watch(&context, request);
  v1::WatchResponse response;
  return impl_->follow(
      *reader, response, [](const auto& r) { return r.update(); }, on_event);
}

Result<Phase> DeviceClient::cancel(const std::string& transfer_id, const Authority& authority) {
  v1::CancelRequest request;
  request.set_transfer_id(transfer_id);
  grpc::ClientContext context;
  SIPHON_TRY(impl_->connection_.prove(context, "Cancel", keys_of(authority), request));
  context.set_deadline(std::chrono::system_clock::now() + kUnaryTimeout);
  const Hangup hangup(context, impl_->connection_.should_stop);
  v1::CancelResponse response;
  const grpc::Status status = impl_->connection_.stub->Cancel(&context, request, &response);
  if (!status.ok() && impl_->connection_.stopped()) {
    return fail(Code::kCancelled,
                "interrupted: whether transfer " + transfer_id + " was cancelled is not known");
  }
  if (!status.ok()) return fail(impl_->connection_.error(status));
  return static_cast<Phase>(response.phase());
}

Result<DeviceClient::TransferList> DeviceClient::list(const Authority& authority, bool finished) {
  v1::ListRequest request;
  request.set_finished(finished);
  grpc::ClientContext context;
  SIPHON_TRY(impl_->connection_.prove(context, "List", keys_of(authority), request));
  context.set_deadline(std::chrono::system_clock::now() + kUnaryTimeout);
  const Hangup hangup(context, impl_->connection_.should_stop);
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
                            const std::function<void(const VerifyOutcome&)>& on_outcome) {
  v1::VerifyRequest request;
  encode(location, request.mutable_place());
  for (const std::string& e : extents) request.add_extents(e);
  grpc::ClientContext context;
  SIPHON_TRY(impl_->connection_.prove(context, "Verify", keys_of(authority), request));
  const Hangup hangup(context, impl_->connection_.should_stop);
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
  if (impl_->connection_.stopped()) return fail(Code::kCancelled, "verify was stopped");
  if (!status.ok()) return fail(impl_->connection_.error(status));
  if (outcomes != extents.size()) {
    return fail(Code::kUnavailable, "the device answered for " + std::to_string(outcomes) + " of " +
                                        std::to_string(extents.size()) + " extents");
  }
  return {};
}

Result<DeviceDescription> DeviceClient::describe(const Authority& authority) {
  const v1::DescribeRequest request;
  grpc::ClientContext context;
  SIPHON_TRY(impl_->connection_.prove(context, "Describe", keys_of(authority), request));
  context.set_deadline(std::chrono::system_clock::now() + kUnaryTimeout);
  const Hangup hangup(context, impl_->connection_.should_stop);
  v1::DescribeResponse response;
  const grpc::Status status = impl_->connection_.stub->Describe(&context, request, &response);
  if (status.ok()) return decode(response);
  const auto& told = context.GetServerTrailingMetadata();
  const auto version = told.find(kVersion), home = told.find(kHome);
  if (version == told.end() || home == told.end()) return fail(impl_->connection_.error(status));
  DeviceDescription to_a_stranger;
  to_a_stranger.version = words(version->second);
  to_a_stranger.home = words(home->second);
  return to_a_stranger;
}

// ---- the second call --------------------------------------------------------------------------

namespace {

class GrpcSourceCaller final : public SourceCaller {
 public:
  explicit GrpcSourceCaller(ClientOptions options) : options_(std::move(options)) {}

  StreamEnd stream(const StreamCall& call,
                   const std::function<void(const SourceReport&)>& on_report,
                   std::stop_token stop) override {
    StreamEnd end;
    auto connection =
        connect_to(call.source_address, options_, [&stop] { return stop.stop_requested(); });
    const auto failed = [&](Error why) -> Status {
      if (stop.stop_requested()) return fail(Code::kCancelled, "the second call was cancelled");
      return fail(std::move(why).with_suspect(Side::kSource));
    };
    if (!connection) {
      end.status = failed(std::move(connection).error());
      return end;
    }
    v1::StreamRequest request;
    encode(call, &request);
    std::optional<Sha256> source_key;
    if (call.source_key) source_key = call.source_key->key;
    if (const auto with = connection->mask_key(source_key)) {
      const Sha256 key = masked(call.ticket.key.reveal(), *with, kTicketMask, call.ticket.id);
      request.set_ticket_key(key.data(), key.size());
    }
    grpc::ClientContext context;
    if (Status proven = prove(*connection, context, call, request); !proven) {
      end.status = failed(std::move(proven).error());
      return end;
    }
    end.rpc_bytes += request.ByteSizeLong();
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
  static Status prove(const Connection& connection, grpc::ClientContext& context,
                      const StreamCall& call, const v1::StreamRequest& request) {
    if (!call.source_key) return connection.prove(context, "Stream", {}, request);
    const SourceKey& source = *call.source_key;
    return connection.prove(context, "Stream",
                            {{kReadProof, "grant_read", source.key_id, source.key}}, request,
                            source_scope(call.transfer_id, call.source));
  }

  const ClientOptions options_;
};

}  // namespace

std::unique_ptr<SourceCaller> make_source_caller(ClientOptions options) {
  return std::make_unique<GrpcSourceCaller>(std::move(options));
}

}  // namespace siphon::rpc
