#include "plugin/rpc/server.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <system_error>
#include <thread>
#include <type_traits>

#include "plugin/base/log.h"
#include "plugin/rpc/byte_call.h"
#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/call_watch.h"
#include "plugin/rpc/convert.h"
#include "plugin/rpc/door.h"
#include "plugin/rpc/grpc_limits.h"
#include "plugin/rpc/outermost.h"
#include "plugin/rpc/secret_file.h"
#include "plugin/rpc/share.h"
#include "plugin/rpc/tls.h"
#include "siphon/v1/siphon.grpc.pb.h"

namespace siphon::rpc {

namespace {

// 10,000 extents of the longest names are 4.2 million bytes.
constexpr int kMaxRequestBytes = 6 << 20;
constexpr char kChallenge[] = "/siphon.v1.SiphonService/Challenge";
// Calls that got no thread, of which gRPC has not let go, before further connections wait.
constexpr int kMostGoing = 512;
// So many requests are read and decoded at once: gRPC keeps all of one before we see its first
// byte, and takes its sender's word for how much that is, up to kMaxRequestBytes.
constexpr std::size_t kMostReading = 8;
// From a call's metadata until all of its request is there.
constexpr std::chrono::milliseconds kRequestPatience{30000};
// A message takes a hundred bytes of memory where it takes two on the wire.
// An extent has four fields: itself and what is in it.
constexpr std::size_t kMaxFields = 4 * kMaxExtentsPerTransfer + 64;

// gRPC's "ipv4:127.0.0.1:5012" or "ipv6:%5B::1%5D:5012".
Result<Endpoint> peer_endpoint(const std::string& peer) {
  std::string text = peer;
  for (const char* scheme : {"ipv4:", "ipv6:"}) {
    if (text.rfind(scheme, 0) == 0) text = text.substr(5);
  }
  for (auto [from, to] : {std::pair{"%5B", "["}, std::pair{"%5D", "]"}}) {
    if (auto at = text.find(from); at != std::string::npos) text.replace(at, 3, to);
  }
  return parse_endpoint(text);
}

std::uint64_t clock_ms() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

Sha256 digest_of(const grpc::ByteBuffer& buffer) {
  Sha256Stream digest;
  std::vector<grpc::Slice> slices;
  if (buffer.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices)
      digest.update(std::as_bytes(std::span(slice.begin(), slice.size())));
  }
  return digest.finish();
}

// One call, from the moment in which its caller has shown authority.
struct Caller {
  Caller(grpc::GenericCallbackServerContext& context, ByteCall& call)
      : context(context), call(call) {}

  struct Shown {
    CallProof proof;
    Secret key;
  };

  grpc::GenericCallbackServerContext& context;
  ByteCall& call;
  const Deadline came_at = std::chrono::steady_clock::now();
  std::optional<CallWatch::Call> peer;  // while a thread works for him
  Authority authority;
  Payers payers;
  std::string scope;
  std::optional<Shown> read, write, secret;

  // Every proof is over the one request.
  const CallProof* any() const {
    for (const auto* shown : {&read, &write, &secret}) {
      if (*shown) return &(*shown)->proof;
    }
    return nullptr;
  }
};

// The answers of one call.
template <typename Response>
class Answers {
 public:
  explicit Answers(Caller& caller) : caller_(caller) {}
  // False: the caller has hung up, or does not read.
  bool write(const Response& response) {
    grpc::ByteBuffer bytes;
    bool own = false;
    return grpc::SerializationTraits<Response>::Serialize(response, &bytes, &own).ok() &&
           caller_.peer->wait_for_peer([&] { return caller_.call.write(&bytes); });
  }

 private:
  Caller& caller_;
};

// Every method. The generated service would have read and decoded a request before anybody has
// looked at its caller; here each call passes `CreateReactor`, and gets a thread when its caller
// has shown authority.
class Service final : public grpc::CallbackGenericService {
 public:
  Service(Device device, Secret secret, const ServerOptions& options, Door& door)
      : device_(device),
        secret_(std::move(secret)),
        door_(door),
        endpoint_(door.endpoint().to_string()),
        about_(device.describe()),
        request_patience_(std::min(options.peer_patience, kRequestPatience)),
        watchers_(static_cast<std::size_t>(options.max_threads) / 2),
        others_(static_cast<std::size_t>(options.max_threads) / 2),
        calls_(options.peer_patience) {
    fill_random(run_id_);
    add("Transfer", &Service::transfer, watchers_);
    add("Watch", &Service::watch, watchers_);
    add("Verify", &Service::verify, watchers_);
    add("Stream", &Service::stream, others_);
    add("Cancel", &Service::cancel, others_);
    add("List", &Service::list, others_);
    add("Describe", &Service::describe, others_);
  }
  // The server has been shut down.
  ~Service() override {
    watchers_.wait_until_unused();
    others_.wait_until_unused();
  }

  // By gRPC's own threads: nothing here waits.
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    auto* call = new ByteCall;
    const grpc::Status begun = outermost([&] { return begin(*context, *call); });
    if (!begun.ok()) call->refuse(begun, going_);
    return call;
  }
  // Calls that got no thread, and of which gRPC still holds something.
  int going() const { return going_; }

 private:
  // ---- what every call passes -------------------------------------------------------------------

  template <typename Request, typename Response>
  void add(const char* name, Status (Service::*method)(Caller&, Request&, Answers<Response>&),
           Share& threads) {
    methods_[std::string("/siphon.v1.SiphonService/") + name] = {
        name, &threads, [this, method](Caller& caller) -> Status {
          Request request;
          SIPHON_TRY(read(caller, request));
          Answers<Response> answers(caller);
          return (this->*method)(caller, request, answers);
        }};
  }

  // Authority. With it: a thread, which then reads the bytes, sees whether they are what was
  // proven, and only then what they mean.
  Status begin(grpc::GenericCallbackServerContext& context, ByteCall& call) {
    const auto method = methods_.find(context.method());
    const bool is_challenge = context.method() == kChallenge;
    if (method == methods_.end() && !is_challenge) {
      return fail(Code::kUnimplemented, "no such method");
    }
    const std::string name = is_challenge ? "Challenge" : method->second.name;
    auto caller = std::make_shared<Caller>(context, call);
    Status admitted = admit(name, *caller);
    if (admitted) caller->payers = payers_of(*caller);
    if (auto whom = peer_endpoint(context.peer())) {
      // The proof of a first Challenge may be somebody else's that was overheard.
      if (!admitted) {
        door_.was_refused(*whom);
      } else if (is_challenge && caller->any() != nullptr && !check_fresh(*caller)) {
        door_.was_challenged(*whom);
      } else if (!door_.now_known(*whom, caller->payers)) {
        door_.was_refused(*whom);
        return busy("too many connections of this key");
      }
    }
    if (!admitted) {
      if (name == "Describe") describe_to_unproven(context);
      return admitted;
    }
    if (is_challenge) {
      call.answer(challenge(*caller), going_);
      return {};
    }
    auto place = method->second.threads->take(caller->payers);
    if (!place) return busy("too many calls of this key, or of all");
    try {
      std::thread([this, place = std::move(place), caller = std::move(caller),
                   &run = method->second.run, &call]() mutable {
        const grpc::Status ended = outermost([&] {
          caller->peer.emplace(calls_, caller->context);
          return run(*caller);
        });
        caller.reset();
        call.Finish(ended);
        place.reset();  // the service may be gone when this returns
      }).detach();
    } catch (const std::system_error&) {
      return busy("no more threads");
    }
    return {};
  }

  static Status busy(const std::string& why) {
    return fail_busy("this device is busy: " + why, Side::kNone, "try again in a minute");
  }

  // Who answers for what this call takes.
  Payers payers_of(const Caller& caller) const {
    Payers payers = device_.policy.payers(caller.authority);
    if (const auto peer = caller.context.auth_context(); payers.empty() && peer) {
      for (const auto& subject : peer->FindPropertyValues(GRPC_X509_SUBJECT_PROPERTY_NAME))
        payers.push_back({"certificate " + std::string(subject.data(), subject.size())});
    }
    if (payers.empty()) payers.push_back({"secret"});
    return payers;
  }

  Status admit(const std::string& name, Caller& caller) {
    if (secret_.empty() && !device_.policy.wants_grants()) return {};  // TLS has seen to it
    if (auto scope = metadata(caller, kScope)) {
      if (scope->size() > kMaxScopeBytes) return fail(Code::kPermissionDenied, "no such scope");
      caller.scope = std::string(scope->data(), scope->size());
    }
    if (!secret_.empty()) {
      caller.secret = proven(name, caller, kSecretProof, secret_.reveal());
      if (!caller.secret || caller.secret->proof.key_id != KeyId{}) {
        return fail(
            Code::kPermissionDenied,
            "the caller does not prove knowledge of the secret of the device at " + endpoint_,
            Side::kRequester,
            "name the same secret file on both sides (--secret-file, or secret_file in the "
            "configuration)");
      }
    } else {
      // A grant that he does not prove is replaced by a nonce that nobody has: the policy then
      // answers as it does for a grant it does not know.
      caller.read = proven_grant(name, caller, kReadProof, caller.authority.read_nonce);
      caller.write = proven_grant(name, caller, kWriteProof, caller.authority.write_nonce);
      if (!caller.read && !caller.write) return no_grant(name, caller.authority);
    }
    return name == "Challenge" ? Status() : check_fresh(caller);
  }

  // Whether what the caller has shown was made for this one call of this run of this process.
  Status check_fresh(const Caller& caller) {
    const CallProof* first = caller.any();
    for (const auto* shown : {&caller.read, &caller.write, &caller.secret}) {
      if (!*shown) continue;
      const CallProof& proof = (*shown)->proof;
      if (proof.request_digest != first->request_digest ||
          proof.request_bytes != first->request_bytes) {
        return fail(Code::kPermissionDenied, "the call's proofs are of different requests",
                    Side::kRequester);
      }
      if (proof.device.run_id != run_id_) {
        return fail(Code::kUnavailable, "this device has been started again since it was asked",
                    Side::kNone, "run the command again");
      }
      SIPHON_TRY(replay_.check(proof, clock_ms()));
    }
    return {};
  }

  static Status no_grant(const std::string& name, const Authority& shown) {
    const bool read = name == "Stream" || name == "Verify" ||
                      (name != "Transfer" && shown.read_nonce && !shown.write_nonce);
    Error error{Code::kPermissionDenied,
                std::string("this device holds no valid ") + (read ? "grant_read" : "grant_write") +
                    " from this requester",
                read ? Side::kSource : Side::kTarget,
                "run the command again: it looks the devices up and asks for grants afresh; are "
                "both sides of one version?"};
    if (shown.read_nonce || shown.write_nonce) error.reason = Reason::kGrantUnknown;
    return fail(std::move(error));
  }

  static std::optional<std::string_view> metadata(const Caller& caller, const char* key) {
    const auto& all = caller.context.client_metadata();
    const auto found = all.find(key);
    if (found == all.end() || all.count(key) != 1) return std::nullopt;
    return std::string_view(found->second.data(), found->second.size());
  }

  std::optional<Caller::Shown> proven(const std::string& name, const Caller& caller,
                                      const char* what, std::span<const std::byte> key) const {
    const auto shown = metadata(caller, what);
    if (!shown) return std::nullopt;
    const auto proof = CallProof::decode(*shown);
    if (!proof || !is_proof_of(key, name, endpoint_, *proof)) return std::nullopt;
    return Caller::Shown{*proof, Secret(key)};
  }

  std::optional<Caller::Shown> proven_grant(const std::string& name, const Caller& caller,
                                            const char* what, std::optional<Nonce>& nonce) {
    const auto shown = metadata(caller, what);
    if (!shown) return std::nullopt;
    std::optional<Caller::Shown> out;
    if (const auto proof = CallProof::decode(*shown)) {
      if ((nonce = device_.policy.find_nonce(proof->key_id))) {
        // A target knows no more than the key made for its transfer; nobody else may use that.
        const bool scoped = name == "Stream" || (name == "Challenge" && !caller.scope.empty());
        out = scoped ? proven(name, caller, what, source_key(*nonce, caller.scope))
                     : proven(name, caller, what, *nonce);
      }
    }
    if (!out) fill_random(nonce.emplace());
    return out;
  }

  template <typename Request>
  Status read(Caller& caller, Request& request) {
    const CallProof* proof = caller.any();
    if (proof != nullptr && proof->request_bytes > kMaxRequestBytes) {
      return fail(Code::kInvalidArgument, "the request is too large", Side::kRequester);
    }
    const Deadline until = caller.came_at + request_patience_;
    const auto place = reading_.wait(caller.payers, until, caller.peer->stop());
    if (!place) return busy("too many requests of this key at once, or of all");
    grpc::ByteBuffer raw;
    if (!caller.peer->wait_for_peer([&] { return caller.call.read(&raw); }, until)) {
      return fail(Code::kInvalidArgument, "a call without a request", Side::kRequester);
    }
    if (proof != nullptr &&
        (raw.Length() != proof->request_bytes || digest_of(raw) != proof->request_digest)) {
      return fail(Code::kPermissionDenied, "the request is not the one that was proven",
                  Side::kRequester);
    }
    grpc::ProtoBufferReader fields(&raw);
    if (!has_few_fields(fields, *Request::descriptor(), kMaxFields) ||
        !grpc::SerializationTraits<Request>::Deserialize(&raw, &request).ok()) {
      return fail(Code::kInvalidArgument,
                  "the request is malformed, or names more than " +
                      std::to_string(kMaxExtentsPerTransfer) + " extents",
                  Side::kRequester);
    }
    return {};
  }

  // ---- the methods ------------------------------------------------------------------------------

  // Takes no thread and reads nothing: whoever overheard a caller can ask this in his name.
  grpc::ByteBuffer challenge(const Caller& caller) const {
    const DeviceTime now{run_id_, clock_ms()};
    v1::ChallengeResponse response;
    response.set_run_id(now.run_id.data(), now.run_id.size());
    response.set_clock_ms(now.clock_ms);
    auto answer = [&](const std::optional<Caller::Shown>& shown, std::string* out) {
      if (!shown) return;
      const Sha256 proof = device_proof(shown->key.reveal(), endpoint_, shown->proof.nonce, now);
      out->assign(reinterpret_cast<const char*>(proof.data()), proof.size());
    };
    answer(caller.read, response.mutable_read());
    answer(caller.write, response.mutable_write());
    answer(caller.secret, response.mutable_secret());
    const std::string bytes = response.SerializeAsString();
    const grpc::Slice slice(bytes);
    return grpc::ByteBuffer(&slice, 1);
  }

  Status transfer(Caller& caller, v1::TransferRequest& request,
                  Answers<v1::TransferResponse>& answers) {
    auto spec = decode(request);
    v1::TransferRequest().Swap(&request);  // the call lasts as long as the transfer
    if (!spec) return fail(std::move(spec).error());
    spec->authority = caller.authority;
    if (const auto* with = caller.write    ? &*caller.write
                           : caller.secret ? &*caller.secret
                                           : nullptr;
        with != nullptr && spec->source_key) {
      const std::string scope = source_scope(spec->id, spec->source);
      spec->source_key->key = masked(spec->source_key->key, with->key.reveal(), kSourceKeyMask,
                                     std::as_bytes(std::span(scope)));
    }
    SIPHON_TRY(device_.policy.allow(AccessPolicy::Action::kWrite, spec->target, caller.authority));
    SIPHON_TRY(device_.check_source(*spec));
    auto store = device_.stores.open(spec->target);
    if (!store) return fail(std::move(store).error());
    auto transfer = device_.manager.submit(std::move(*spec), **store);
    if (!transfer) return fail(std::move(transfer).error());
    follow(caller.context, **transfer,
           [&](const v1::TransferResponse& r) { return answers.write(r); });
    return {};
  }

  Status watch(Caller& caller, v1::WatchRequest& request, Answers<v1::WatchResponse>& answers) {
    auto transfer = authorised_transfer(caller.authority, request.transfer_id());
    if (!transfer) return fail(std::move(transfer).error());
    follow(caller.context, **transfer, [&](const v1::TransferResponse& r) {
      v1::WatchResponse response;
      *response.mutable_update() = r;
      return answers.write(response);
    });
    return {};
  }

  Status cancel(Caller& caller, v1::CancelRequest& request, Answers<v1::CancelResponse>& answers) {
    auto transfer = authorised_transfer(caller.authority, request.transfer_id());
    if (!transfer) return fail(std::move(transfer).error());
    (*transfer)->cancel();
    // The answer is the phase once the cancel has taken effect, within reason.
    const Deadline until = deadline_in(std::chrono::seconds(30));
    std::size_t cursor = 0;
    TargetTransfer::Update update;
    do {
      update = (*transfer)->wait_update(&cursor, std::chrono::milliseconds(200));
    } while (!update.summary && !caller.context.IsCancelled() &&
             std::chrono::steady_clock::now() < until);
    v1::CancelResponse response;
    response.set_phase(static_cast<v1::TransferPhase>(update.progress.phase));
    answers.write(response);
    return {};
  }

  Status list(Caller& caller, v1::ListRequest& request, Answers<v1::ListResponse>& answers) {
    const Authority& authority = caller.authority;
    SIPHON_TRY(device_.policy.allow_any(authority));
    v1::ListResponse response;
    std::map<Location, bool> shown;  // by place: each question may ask the cluster
    for (const auto& transfer : device_.manager.all()) {
      const TransferInfo info = transfer->info();
      if (!request.finished() && is_final(info.progress.phase)) continue;
      const auto [place, is_new] = shown.try_emplace(info.target);
      if (is_new) {
        place->second = may_see(info.target, authority);
        if (!place->second && device_.policy.may_know_namespaces(info.target.pool, authority)) {
          encode(info.target, response.add_elsewhere());
        }
      }
      if (place->second) encode(info, response.add_transfers());
    }
    answers.write(response);
    return {};
  }

  // A grant shows the transfers into its own place only; for others of its pool, it takes one.
  bool may_see(const Location& place, const Authority& authority) {
    return device_.policy.allow(AccessPolicy::Action::kWrite, place, authority) ||
           device_.policy.allow(AccessPolicy::Action::kRead, place, authority);
  }

  Status stream(Caller& caller, v1::StreamRequest& request, Answers<v1::StreamResponse>& answers) {
    auto call = decode(request);
    v1::StreamRequest().Swap(&request);
    if (!call) return fail(std::move(call).error());
    // The key was made for one transfer out of one place.
    if (caller.read && caller.scope != source_scope(call->transfer_id, call->source)) {
      return fail(Code::kPermissionDenied, "this grant is for another transfer or place",
                  Side::kTarget);
    }
    SIPHON_TRY(device_.policy.allow(AccessPolicy::Action::kRead, call->source, caller.authority));
    // Bytes go to the caller's own address and nowhere else.
    const auto peer = peer_endpoint(caller.context.peer());
    if (!peer || peer->address != call->data.address) {
      return fail({Code::kPermissionDenied,
                   "asked to stream to " + call->data.to_string() + ", but the call came from " +
                       caller.context.peer() + "; refused",
                   Side::kTarget, "set data.address of the target to the address it calls from"});
    }
    if (const auto* with = caller.read     ? &*caller.read
                           : caller.secret ? &*caller.secret
                                           : nullptr) {
      call->ticket.key = Secret(
          masked(call->ticket.key.reveal(), with->key.reveal(), kTicketMask, call->ticket.id));
    }
    // The ticket is for a stream from here.
    call->source_address = endpoint_;
    call->ticket.binding = ticket_binding(*call);
    auto store = device_.stores.open(call->source);
    if (!store) return fail(std::move(store).error());
    // Nothing is written while the lanes are full: a hang-up is seen beside the work.
    auto report = [&](const SourceReport& r) {
      v1::StreamResponse response;
      encode(r, &response);
      answers.write(response);
    };
    const StreamEnd end = device_.source.stream(*call, **store, report, caller.peer->stop());
    v1::StreamResponse last;
    auto* final_status = last.mutable_final_status();
    encode(end.status, final_status->mutable_problem());
    final_status->set_fallback_parts(end.fallback_parts);
    answers.write(last);
    return {};
  }

  Status verify(Caller& caller, v1::VerifyRequest& request, Answers<v1::VerifyResponse>& answers) {
    const Location location = decode(request.place());
    SIPHON_TRY(device_.policy.allow(AccessPolicy::Action::kRead, location, caller.authority));
    if (static_cast<std::size_t>(request.extents_size()) > kMaxExtentsPerTransfer) {
      return fail(Code::kInvalidArgument, "too many extents in one call", Side::kRequester);
    }
    auto store = device_.stores.open(location);
    if (!store) return fail(std::move(store).error());
    std::uint64_t done_before = 0;
    auto last_told = std::chrono::steady_clock::now();
    for (int i = 0; i < request.extents_size(); ++i) {
      auto progress = [&](std::uint64_t done) -> Status {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_told < std::chrono::milliseconds(200)) return {};
        last_told = now;
        v1::VerifyResponse response;
        response.set_done_bytes(done_before + done);
        if (!answers.write(response) || caller.context.IsCancelled()) {
          return fail(Code::kCancelled, "the requester has hung up");
        }
        return {};
      };
      VerifyOutcome outcome =
          device_.source.verify(**store, request.extents(i), progress, caller.peer->stop());
      outcome.index = static_cast<std::uint32_t>(i);
      done_before += outcome.bytes;
      v1::VerifyResponse response;
      response.set_done_bytes(done_before);
      encode(outcome, response.mutable_result());
      if (!answers.write(response)) break;
    }
    return {};
  }

  Status describe(Caller&, v1::DescribeRequest&, Answers<v1::DescribeResponse>& answers) {
    DeviceDescription description = device_.describe();
    description.control_address = endpoint_;
    v1::DescribeResponse response;
    encode(description, &response);
    answers.write(response);
    return {};
  }

  // Enough to tell a device of another version from none. With the refusal: an answer that he does
  // not read would hold a thread.
  void describe_to_unproven(grpc::ServerContextBase& context) const {
    context.AddTrailingMetadata(kVersion, about_.version);
    context.AddTrailingMetadata(kAdapter, about_.adapter);
  }

  Result<std::shared_ptr<TargetTransfer>> authorised_transfer(const Authority& authority,
                                                              const std::string& id) {
    // Who may not even ask must not learn which ids exist.
    SIPHON_TRY(device_.policy.allow_any(authority));
    auto transfer = device_.manager.find(id);
    if (!transfer) return transfer;
    SIPHON_TRY(
        device_.policy.allow(AccessPolicy::Action::kWrite, (*transfer)->spec().target, authority));
    return transfer;
  }

  // Writes what happens until the transfer has ended or the caller has hung up.
  static void follow(grpc::ServerContextBase& context, TargetTransfer& transfer,
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
  Door& door_;
  const std::string endpoint_;
  const DeviceDescription about_;
  std::array<std::byte, 16> run_id_{};
  const std::chrono::milliseconds request_patience_;
  std::atomic<int> going_{0};
  // Threads of the calls that last as long as a transfer does, or a verify, and of all others: else
  // watchers of two devices could keep each other's sources out. And those that read a request.
  Share watchers_, others_, reading_{kMostReading};
  struct Method {
    std::string name;
    Share* threads;
    std::function<Status(Caller&)> run;
  };
  std::map<std::string, Method> methods_;  // by path
  ReplayGuard replay_;
  CallWatch calls_;
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
  ~Impl() {
    if (door_) door_->close();
    if (server_) {
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
      server_->Wait();
    }
  }

  Status start(const ServerOptions& options, Device device, Secret secret) {
    auto credentials = server_credentials(options);
    if (!credentials) return fail(std::move(credentials).error());
    auto door = Door::open(options.address, options.ports);
    if (!door) return fail(std::move(door).error());
    door_ = std::move(*door);
    service_.emplace(device, std::move(secret), options, *door_);

    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
    // What a connection may cost before its caller is known: little, and not for long. What is not
    // read yet stays within one window of 64 KiB, which never grows.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 32);
    builder.AddChannelArgument(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, 8192);
    // A few bytes would become gigabytes before anybody looks at them.
    builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 5000);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 60000);
    using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
    acceptor_ = builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD, *credentials);
    builder.RegisterCallbackGenericService(&*service_);
    server_ = builder.BuildAndStart();
    if (!server_) return fail(Code::kInternal, "the control port's server does not start");
    door_->serve(
        [this](int fd) {
          grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
          connection.fd = fd;
          acceptor_->HandleNewConnection(&connection);
        },
        [this] { return service_->going() > kMostGoing; });
    return {};
  }

  const Endpoint& endpoint() const { return door_->endpoint(); }

 private:
  std::unique_ptr<Door> door_;
  std::optional<Service> service_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
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
  prepare_grpc();
  Secret secret;
  if (!options.secret_file.empty()) {
    auto read = read_secret_file(options.secret_file);
    if (!read) return fail(std::move(read).error());
    secret = std::move(*read);
  }
  auto impl = std::make_unique<Impl>();
  SIPHON_TRY(impl->start(options, device, std::move(secret)));
  return std::unique_ptr<DeviceServer>(new DeviceServer(std::move(impl)));
}

}  // namespace siphon::rpc
