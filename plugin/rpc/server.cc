#include "plugin/rpc/server.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include <atomic>
#include <mutex>
#include <set>

#include "plugin/base/log.h"
#include "plugin/rpc/call_watch.h"
#include "plugin/rpc/convert.h"
#include "plugin/rpc/grant_proof.h"
#include "plugin/rpc/secret_proof.h"
#include "plugin/rpc/tls.h"
#include "siphon/v1/siphon.grpc.pb.h"

namespace siphon::rpc {

namespace {

constexpr int kMaxRequestBytes = 8 << 20;  // 10,000 extents of the longest names, twice
constexpr std::size_t kQuotaBytes = 128u << 20;

// The numeric address in gRPC's "ipv4:127.0.0.1:5012" or "ipv6:%5B::1%5D:5012".
std::string peer_address(const std::string& peer) {
  std::string text = peer;
  for (const char* scheme : {"ipv4:", "ipv6:"}) {
    if (text.rfind(scheme, 0) == 0) text = text.substr(5);
  }
  for (auto [from, to] : {std::pair{"%5B", "["}, std::pair{"%5D", "]"}}) {
    if (auto at = text.find(from); at != std::string::npos) text.replace(at, 3, to);
  }
  auto endpoint = parse_endpoint(text);
  return endpoint ? endpoint->address : std::string();
}

// A place among the calls that last as long as a transfer does. Half of the threads stay free for
// Stream and the short calls: else watchers of two devices could keep each other's sources out.
class WatcherPlace {
 public:
  WatcherPlace(std::atomic<int>& taken, int most) : taken_(taken), got_(++taken <= most) {}
  ~WatcherPlace() { --taken_; }
  WatcherPlace(const WatcherPlace&) = delete;
  WatcherPlace& operator=(const WatcherPlace&) = delete;
  bool got() const { return got_; }
  static grpc::Status busy() {
    return to_grpc(
        fail_busy("this device has too many watchers: busy", Side::kTarget, "try again in a minute")
            .value());
  }

 private:
  std::atomic<int>& taken_;
  const bool got_;
};

class Service final : public v1::SiphonService::Service {
 public:
  Service(Device device, Secret secret, const ServerOptions& options)
      : device_(device),
        secret_(std::move(secret)),
        max_watchers_(options.max_threads / 2),
        calls_(options.peer_patience) {}

  grpc::Status Transfer(grpc::ServerContext* context, const v1::TransferRequest* request,
                        grpc::ServerWriter<v1::TransferResponse>* writer) override {
    auto spec = decode(*request);
    if (!spec) return to_grpc(spec.error());
    spec->authority = proven("Transfer", *request);
    if (auto s = allow("Transfer", *request, AccessPolicy::Action::kWrite, spec->target,
                       spec->authority);
        !s) {
      return to_grpc(s.error());
    }
    if (Status s = device_.check_source(*spec); !s) return to_grpc(s.error());
    auto store = device_.stores.open(spec->target);
    if (!store) return to_grpc(store.error());
    WatcherPlace place(watchers_, max_watchers_);
    if (!place.got()) return WatcherPlace::busy();
    auto transfer = device_.manager.submit(std::move(*spec), **store);
    if (!transfer) return to_grpc(transfer.error());
    CallWatch::Call peer(calls_, *context);
    follow(*context, **transfer, [&](const v1::TransferResponse& r) {
      return peer.write([&] { return writer->Write(r); });
    });
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    auto transfer = authorised_transfer("Watch", *request, request->transfer_id());
    if (!transfer) return to_grpc(transfer.error());
    WatcherPlace place(watchers_, max_watchers_);
    if (!place.got()) return WatcherPlace::busy();
    CallWatch::Call peer(calls_, *context);
    follow(*context, **transfer, [&](const v1::TransferResponse& r) {
      v1::WatchResponse response;
      *response.mutable_update() = r;
      return peer.write([&] { return writer->Write(response); });
    });
    return grpc::Status::OK;
  }

  grpc::Status Cancel(grpc::ServerContext*, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override {
    auto transfer = authorised_transfer("Cancel", *request, request->transfer_id());
    if (!transfer) return to_grpc(transfer.error());
    (*transfer)->cancel();
    // The answer is the phase once the cancel has taken effect, within reason.
    const Deadline until = deadline_in(std::chrono::seconds(30));
    std::size_t cursor = 0;
    TargetTransfer::Update update;
    do {
      update = (*transfer)->wait_update(&cursor, std::chrono::milliseconds(200));
    } while (!update.summary && std::chrono::steady_clock::now() < until);
    response->set_phase(static_cast<v1::TransferPhase>(update.progress.phase));
    return grpc::Status::OK;
  }

  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    const Authority authority = proven("List", *request);
    if (Status s =
            secret_.empty() ? device_.policy.allow_any(authority) : check_proof("List", *request);
        !s) {
      return to_grpc(s.error());
    }
    std::set<Location> elsewhere;
    for (const auto& transfer : device_.manager.all()) {
      const TransferInfo info = transfer->info();
      if (!request->finished() && is_final(info.progress.phase)) continue;
      // A grant shows the transfers into its own place only; for others of its pool, it takes one.
      if (secret_.empty() &&
          !device_.policy.allow(AccessPolicy::Action::kWrite, info.target, authority) &&
          !device_.policy.allow(AccessPolicy::Action::kRead, info.target, authority)) {
        if (device_.policy.may_know_namespaces(info.target.pool, authority))
          elsewhere.insert(info.target);
        continue;
      }
      encode(info, response->add_transfers());
    }
    for (const Location& place : elsewhere) encode(place, response->add_elsewhere());
    return grpc::Status::OK;
  }

  grpc::Status Stream(grpc::ServerContext* context, const v1::StreamRequest* request,
                      grpc::ServerWriter<v1::StreamResponse>* writer) override {
    auto call = decode(*request);
    if (!call) return to_grpc(call.error());
    if (auto s = allow("Stream", *request, AccessPolicy::Action::kRead, call->source,
                       proven_source(*request, *call));
        !s) {
      return to_grpc(s.error());
    }
    // Bytes go to the caller's own address and nowhere else.
    if (peer_address(context->peer()) != call->data.address) {
      return to_grpc({Code::kPermissionDenied,
                      "asked to stream to " + call->data.to_string() + ", but the call came from " +
                          context->peer() + "; refused",
                      Side::kTarget,
                      "set data.address of the target to the address it calls from"});
    }
    auto store = device_.stores.open(call->source);
    if (!store) return to_grpc(store.error());
    // Nothing is written while the lanes are full: a hang-up is seen beside the work.
    CallWatch::Call peer(calls_, *context);
    auto report = [&](const SourceReport& r) {
      v1::StreamResponse response;
      encode(r, &response);
      peer.write([&] { return writer->Write(response); });
    };
    const StreamEnd end = device_.source.stream(*call, **store, report, peer.stop());
    v1::StreamResponse last;
    auto* final_status = last.mutable_final_status();
    encode(end.status, final_status->mutable_problem());
    final_status->set_fallback_parts(end.fallback_parts);
    peer.write([&] { return writer->Write(last); });
    return grpc::Status::OK;
  }

  grpc::Status Verify(grpc::ServerContext* context, const v1::VerifyRequest* request,
                      grpc::ServerWriter<v1::VerifyResponse>* writer) override {
    const Authority authority = proven("Verify", *request);
    const Location location = decode(request->place());
    if (auto s = allow("Verify", *request, AccessPolicy::Action::kRead, location, authority); !s) {
      return to_grpc(s.error());
    }
    if (static_cast<std::size_t>(request->extents_size()) > kMaxExtentsPerTransfer) {
      return to_grpc(
          {Code::kInvalidArgument, "too many extents in one call", Side::kRequester, {}});
    }
    auto store = device_.stores.open(location);
    if (!store) return to_grpc(store.error());
    CallWatch::Call peer(calls_, *context);
    std::uint64_t done_before = 0;
    auto last_told = std::chrono::steady_clock::now();
    for (int i = 0; i < request->extents_size(); ++i) {
      auto progress = [&](std::uint64_t done) -> Status {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_told < std::chrono::milliseconds(200)) return {};
        last_told = now;
        v1::VerifyResponse response;
        response.set_done_bytes(done_before + done);
        if (!peer.write([&] { return writer->Write(response); }) || context->IsCancelled()) {
          return fail(Code::kCancelled, "the requester has hung up");
        }
        return {};
      };
      VerifyOutcome outcome =
          device_.source.verify(**store, request->extents(i), progress, peer.stop());
      outcome.index = static_cast<std::uint32_t>(i);
      done_before += outcome.bytes;
      v1::VerifyResponse response;
      response.set_done_bytes(done_before);
      encode(outcome, response.mutable_result());
      if (!peer.write([&] { return writer->Write(response); })) break;
    }
    return grpc::Status::OK;
  }

  grpc::Status Challenge(grpc::ServerContext*, const v1::ChallengeRequest* request,
                         v1::ChallengeResponse* response) override {
    const auto nonce = std::as_bytes(std::span(request->nonce()));
    const auto grant = find(request->key_id());
    if (!grant || nonce.size() != 16) return grpc::Status::OK;
    const Sha256 key = source_key(*grant, request->transfer_id(), decode(request->source()));
    const Sha256 proof = request->transfer_id().empty() ? device_proof(*grant, endpoint(), nonce)
                                                        : device_proof(key, endpoint(), nonce);
    response->set_hmac_sha256(proof.data(), proof.size());
    return grpc::Status::OK;
  }

  void set_endpoint(std::string endpoint) {
    const std::lock_guard lock(endpoint_mutex_);
    endpoint_ = std::move(endpoint);
  }

  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest*,
                        v1::DescribeResponse* response) override {
    encode(device_.describe(), response);
    return grpc::Status::OK;
  }

 private:
  template <typename Request>
  Status check_proof(const std::string& method, const Request& request) {
    const v1::SecretProof& proof = request.authority().proof();
    const auto nonce = std::as_bytes(std::span(proof.nonce()));
    Request bare = request;
    bare.clear_authority();
    const Sha256 expected =
        secret_proof(secret_, method, nonce, proof.issued_unix_ms(), bare.SerializeAsString());
    if (nonce.size() != 16 ||
        !equal_constant_time(expected, std::as_bytes(std::span(proof.hmac_sha256())))) {
      return fail(Code::kPermissionDenied,
                  "the caller does not prove knowledge of this device's secret", Side::kRequester,
                  "name the same secret file on both sides (--secret-file, or secret_file in the "
                  "configuration)");
    }
    return replay_.check(nonce, proof.issued_unix_ms());
  }

  std::string endpoint() const {
    const std::lock_guard lock(endpoint_mutex_);
    return endpoint_;
  }

  std::optional<Nonce> find(const std::string& key_id) {
    if (key_id.size() != 16 || !secret_.empty()) return std::nullopt;
    return device_.policy.find_nonce(std::as_bytes(std::span(key_id)).first<16>());
  }

  template <typename Request>
  bool is_proof(const v1::GrantProof& proof, std::span<const std::byte> key,
                const std::string& method, const Request& request) {
    const auto nonce = std::as_bytes(std::span(proof.call_nonce()));
    Request bare = request;
    bare.clear_authority();
    return nonce.size() == 16 &&
           equal_constant_time(call_proof(key, method, endpoint(), nonce, bare.SerializeAsString()),
                               std::as_bytes(std::span(proof.hmac_sha256()))) &&
           replay_.check(nonce, static_cast<std::int64_t>(now_unix_ms()));
  }

  // The grants whose knowledge the caller proves. One that he does not is replaced by a nonce that
  // nobody has: the policy then gives the answer it gives for a grant it does not know.
  template <typename Request>
  Authority proven(const std::string& method, const Request& request) {
    Authority out;
    auto take = [&](bool shown, const v1::GrantProof& proof, std::optional<Nonce>& nonce) {
      if (!shown) return;
      nonce = find(proof.key_id());
      if (!nonce || !is_proof(proof, *nonce, method, request)) fill_random(nonce.emplace());
    };
    const v1::Authority& authority = request.authority();
    take(authority.has_read(), authority.read(), out.read_nonce);
    take(authority.has_write(), authority.write(), out.write_nonce);
    return out;
  }

  // The same for a target, which knows no more than the key made for its transfer.
  Authority proven_source(const v1::StreamRequest& request, const StreamCall& call) {
    Authority out;
    if (!request.authority().has_read()) return out;
    const v1::GrantProof& proof = request.authority().read();
    out.read_nonce = find(proof.key_id());
    if (!out.read_nonce ||
        !is_proof(proof, source_key(*out.read_nonce, call.transfer_id, call.source), "Stream",
                  request)) {
      fill_random(out.read_nonce.emplace());
    }
    return out;
  }

  template <typename Request>
  Status allow(const std::string& method, const Request& request, AccessPolicy::Action action,
               const Location& location, const Authority& authority) {
    return secret_.empty() ? device_.policy.allow(action, location, authority)
                           : check_proof(method, request);
  }

  template <typename Request>
  Result<std::shared_ptr<TargetTransfer>> authorised_transfer(const std::string& method,
                                                              const Request& request,
                                                              const std::string& id) {
    const Authority authority = proven(method, request);
    // Who may not even ask must not learn which ids exist.
    SIPHON_TRY(secret_.empty() ? device_.policy.allow_any(authority)
                               : check_proof(method, request));
    auto transfer = device_.manager.find(id);
    if (!transfer) return transfer;
    if (secret_.empty()) {
      SIPHON_TRY(device_.policy.allow(AccessPolicy::Action::kWrite, (*transfer)->spec().target,
                                      authority));
    }
    return transfer;
  }

  // Writes what happens until the transfer has ended or the caller has hung up.
  static void follow(grpc::ServerContext& context, TargetTransfer& transfer,
                     const std::function<bool(const v1::TransferResponse&)>& write) {
    std::size_t cursor = 0;
    for (;;) {
      auto update = transfer.wait_update(&cursor, std::chrono::milliseconds(250));
      v1::TransferResponse response;
      response.set_transfer_id(transfer.spec().id);
      encode(update.progress, response.mutable_progress());
      for (const ExtentOutcome& o : update.outcomes) encode(o, response.add_outcomes());
      if (update.summary) encode(*update.summary, response.mutable_summary());
      if (!write(response) || update.summary || context.IsCancelled()) return;
    }
  }

  const Device device_;
  const Secret secret_;
  const int max_watchers_;
  std::atomic<int> watchers_{0};
  ReplayGuard replay_;
  CallWatch calls_;
  mutable std::mutex endpoint_mutex_;
  std::string endpoint_;  // guarded by endpoint_mutex_
};

Result<std::shared_ptr<grpc::ServerCredentials>> server_credentials(const ServerOptions& options) {
  const TlsFiles files{options.tls_ca_file, options.tls_cert_file, options.tls_key_file};
  if (!files.any()) {
    if (!is_loopback(options.address)) {
      return fail(
          Code::kFailedPrecondition,
          "control address " + options.address +
              " is not loopback and no TLS files are configured: plain-text gRPC is refused",
          Side::kNone, "set tls.ca, tls.cert and tls.key, or listen on 127.0.0.1");
    }
    return grpc::InsecureServerCredentials();
  }
  auto tls = read_tls(files);
  if (!tls) return fail(std::move(tls).error());
  grpc::SslServerCredentialsOptions ssl(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ssl.pem_root_certs = tls->ca;
  ssl.pem_key_cert_pairs.push_back({tls->key, tls->cert});
  return grpc::SslServerCredentials(ssl);
}

}  // namespace

class DeviceServer::Impl {
 public:
  Impl(Device device, Secret secret, const ServerOptions& options)
      : service_(device, std::move(secret), options) {}
  ~Impl() {
    if (server_) {
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
      server_->Wait();
    }
  }

  Status start(const ServerOptions& options) {
    auto credentials = server_credentials(options);
    if (!credentials) return fail(std::move(credentials).error());
    grpc::EnableDefaultHealthCheckService(true);
    std::uint32_t port = options.ports.first;
    do {
      grpc::ServerBuilder builder;
      grpc::ResourceQuota quota("siphon");
      quota.Resize(kQuotaBytes).SetMaxThreads(options.max_threads);
      builder.SetResourceQuota(quota);
      builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
      builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
      builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
      builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
      builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
      // What a connection may cost before its caller is known: little, and not for long.
      builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 32);
      builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8192);
      builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 5000);
      builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 60000);
      int bound = 0;
      const Endpoint wanted{options.address, static_cast<std::uint16_t>(port)};
      builder.AddListeningPort(wanted.to_string(), *credentials, &bound);
      builder.RegisterService(&service_);
      server_ = builder.BuildAndStart();
      if (server_ && bound != 0) {
        endpoint_ = {options.address, static_cast<std::uint16_t>(bound)};
        service_.set_endpoint(endpoint_.to_string());
        return {};
      }
      server_.reset();
    } while (++port <= options.ports.last);
    return fail(Code::kResourceExhausted,
                "no free control port on " + options.address + " in " +
                    std::to_string(options.ports.first) + "-" + std::to_string(options.ports.last),
                Side::kNone, "widen control.listen, or see with ss -ltnp who holds them");
  }

  const Endpoint& endpoint() const { return endpoint_; }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  Endpoint endpoint_;
};

DeviceServer::DeviceServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceServer::~DeviceServer() = default;
const Endpoint& DeviceServer::endpoint() const { return impl_->endpoint(); }

Status check_server_options(const ServerOptions& options) {
  if (auto c = server_credentials(options); !c) return fail(std::move(c).error());
  if (!options.secret_file.empty()) {
    if (auto secret = read_secret_file(options.secret_file); !secret) {
      return fail(std::move(secret).error());
    }
  }
  return {};
}

Result<std::unique_ptr<DeviceServer>> DeviceServer::start(const ServerOptions& options,
                                                          Device device) {
  Secret secret;
  if (!options.secret_file.empty()) {
    auto read = read_secret_file(options.secret_file);
    if (!read) return fail(std::move(read).error());
    secret = std::move(*read);
  }
  auto impl = std::make_unique<Impl>(device, std::move(secret), options);
  SIPHON_TRY(impl->start(options));
  return std::unique_ptr<DeviceServer>(new DeviceServer(std::move(impl)));
}

}  // namespace siphon::rpc
