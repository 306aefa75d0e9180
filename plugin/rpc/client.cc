#include "plugin/rpc/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/connection.h"
#include "plugin/rpc/convert.h"

namespace siphon::rpc {

namespace {

constexpr std::size_t kMaxWordsBytes = 64;  // of a version, of a adapter

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

constexpr auto kUnaryTimeout = std::chrono::seconds(60);

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
  const auto version = told.find(kVersion), adapter = told.find(kAdapter);
  if (version == told.end() || adapter == told.end()) return fail(impl_->connection_.error(status));
  DeviceDescription in_public;
  in_public.version = words(version->second);
  in_public.adapter = words(adapter->second);
  return in_public;
}

}  // namespace siphon::rpc
