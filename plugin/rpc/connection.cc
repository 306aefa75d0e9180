#include "plugin/rpc/connection.h"

#include <cstring>
#include <thread>

#include "plugin/rpc/grpc_limits.h"
#include "plugin/rpc/tls.h"
#include "plugin/stream/socket.h"

namespace siphon::rpc {

namespace {

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

}  // namespace

Result<v1::ChallengeResponse> Connection::challenge(const std::vector<Key>& keys,
                                                    const std::string& scope,
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

Result<Connection::Known> Connection::known_by_device(const std::vector<Key>& keys,
                                                      const std::string& scope) const {
  std::vector<CallProof> shown;
  auto answered = challenge(keys, scope, {}, &shown);
  if (!answered) {
    Error refused = std::move(answered).error();
    return fail(refused.reason == Reason::kGrantUnknown ? unknown(keys) : std::move(refused));
  }
  const v1::ChallengeResponse& response = *answered;
  Known known;
  if (response.run_id().size() == known.device.run_id.size()) {
    std::memcpy(known.device.run_id.data(), response.run_id().data(), response.run_id().size());
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

Error Connection::unknown(const std::vector<Key>& keys) const {
  if (keys.front().entry == kSecretProof) {
    return {Code::kPermissionDenied,
            "device at " + address + " does not prove that it knows the secret", Side::kNone,
            "who listens there? name the secret file of that daemon (--secret-file)"};
  }
  return {Code::kPermissionDenied,
          "device at " + address + " holds no valid " + keys.front().right + " from this requester",
          Side::kNone,
          "run the command again: it looks the devices up and asks for grants afresh; are both "
          "sides of one version?",
          Reason::kGrantUnknown};
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

}  // namespace siphon::rpc
