// Every message that a peer sends: parsed, then turned into the values that Siphon works with. The
// first byte chooses the message, the rest is the message as it is on the wire.
//
// Properties: what is refused says why; what is accepted is the same again after a round trip; no
// request is accepted with more than its bounds allow.
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <array>
#include <type_traits>

#include "plugin/format/extent_format.h"
#include "plugin/rpc/call_proof.h"
#include "plugin/rpc/convert.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::rpc {
namespace {

using fuzz::check_error;

template <typename T>
struct IsResult : std::false_type {};
template <typename T>
struct IsResult<Result<T>> : std::true_type {};

void check_accepted(const TransferSpec& spec, const v1::TransferRequest& sent) {
  HOLDS(check_spec(spec));
  HOLDS(spec.extents.size() == static_cast<std::size_t>(sent.extents_size()));
  HOLDS(spec.lanes == sent.lanes());
}
void check_accepted(const StreamCall& call, const v1::StreamRequest& sent) {
  HOLDS(!call.extents.empty() && call.extents.size() <= kMaxExtentsPerTransfer);
  for (const std::string& name : call.extents) HOLDS(check_extent_name(name));
  HOLDS(call.lanes >= 1 && call.lanes <= kMaxLanes);
  HOLDS(call.max_frame_bytes >= 4096 && call.max_frame_bytes <= (64u << 20));
  HOLDS(call.data.port == sent.data_port());
  HOLDS(call.ticket.key.reveal().size() == 32);
  HOLDS(call.minimum_rate.idle_timeout.count() >= 100);
  HOLDS(call.deadline.count() >= 0);
}
// A header that passes the check has the numbers that were sent.
void check_accepted(const SealedHeader& header, const v1::SealedHeader& sent) {
  if (!check_sealed_header(header)) return;
  HOLDS(header.format_version == sent.format_version());
  HOLDS(header.has_digest() == !sent.content_digest().empty());
}
template <typename Value, typename Message>
void check_accepted(const Value&, const Message&) {}

template <typename Message>
void check(std::span<const std::byte> wire) {
  Message sent;
  if (!sent.ParseFromArray(wire.data(), static_cast<int>(wire.size()))) return;
  const auto back = [](const Message& message) -> Message {
    Message out;
    const auto value = decode(message);
    if constexpr (IsResult<std::remove_const_t<decltype(value)>>::value) {
      HOLDS(value);
      encode(*value, &out);
    } else {
      encode(value, &out);
    }
    return out;
  };
  const auto value = decode(sent);
  if constexpr (IsResult<std::remove_const_t<decltype(value)>>::value) {
    if (!value) return check_error(value.error());
    check_accepted(*value, sent);
  } else {
    check_accepted(value, sent);
  }
  const Message once = back(sent);
  HOLDS(once.SerializeAsString() == back(once).SerializeAsString());
}

void check_problem(std::span<const std::byte> wire) {
  v1::Problem sent;
  if (!sent.ParseFromArray(wire.data(), static_cast<int>(wire.size()))) return;
  const Status once = decode(sent);
  HOLDS(once.has_value() == (sent.code() == 0));
  v1::Problem again;
  encode(once, &again);
  const Status twice = decode(again);
  HOLDS(once.has_value() == twice.has_value());
  if (once) return;
  HOLDS(once.error().code == twice.error().code && once.error().message == twice.error().message);
  HOLDS(once.error().suspect == twice.error().suspect);
  HOLDS(once.error().reason == twice.error().reason);
}

// How a call ended, as a peer's status says it: code, words and details are the peer's.
void check_status(std::span<const std::byte> wire) {
  fuzz::Input input(wire);
  const auto code = input.number<std::uint8_t>() % 32;  // what the enum holds; gRPC knows 16
  const std::string details(fuzz::text_of(input.rest()));
  const Error error =
      from_grpc(grpc::Status(static_cast<grpc::StatusCode>(code), "words", details), "[::1]:7400");
  HOLDS(error.code != Code::kOk && error.code <= Code::kUnauthenticated);
  const Error again = from_grpc(to_grpc(error), "[::1]:7400");
  HOLDS(again.code == error.code && again.suspect == error.suspect);
  HOLDS(again.message == error.message && again.next_step == error.next_step);
}

// Those that go no further than the parser: what the server takes from them it checks itself.
template <typename Message>
void check_parsed(std::span<const std::byte> wire) {
  Message sent;
  if (!sent.ParseFromArray(wire.data(), static_cast<int>(wire.size()))) return;
  Message again;
  HOLDS(again.ParseFromString(sent.SerializeAsString()));
  HOLDS(again.SerializeAsString() == sent.SerializeAsString());
}

// What is looked at before a caller has authority, and before a request is decoded.
void check_door(std::span<const std::byte> wire) {
  const std::string text(fuzz::text_of(wire));
  if (const auto proof = CallProof::decode(text)) HOLDS(proof->encode() == text);
  constexpr std::size_t kFew = 64;
  google::protobuf::io::ArrayInputStream in(wire.data(), static_cast<int>(wire.size()));
  const bool few = has_few_fields(in, *v1::TransferRequest::descriptor(), kFew);
  v1::TransferRequest request;
  if (!request.ParseFromArray(wire.data(), static_cast<int>(wire.size()))) return;
  if (few) HOLDS(static_cast<std::size_t>(request.extents_size()) <= kFew);
}

using Check = void (*)(std::span<const std::byte>);
constexpr std::array<Check, 19> kChecks = {check<v1::TransferRequest>,
                                           check<v1::StreamRequest>,
                                           check<v1::StreamResponse>,
                                           check<v1::Place>,
                                           check<v1::StoreIdentity>,
                                           check<v1::SealedHeader>,
                                           check<v1::Progress>,
                                           check<v1::ExtentOutcome>,
                                           check<v1::Summary>,
                                           check<v1::TransferInfo>,
                                           check<v1::VerifyResult>,
                                           check<v1::DescribeResponse>,
                                           check_problem,
                                           check_status,
                                           check_parsed<v1::WatchRequest>,
                                           check_parsed<v1::CancelRequest>,
                                           check_parsed<v1::ListRequest>,
                                           check_parsed<v1::VerifyRequest>,
                                           check_door};

template <typename Message>
fuzz::Bytes seed_of(std::uint8_t check, const Message& message) {
  const std::string wire = message.SerializeAsString();
  return fuzz::SeedWriter().number(check).bytes(std::as_bytes(std::span(wire))).take();
}

SealedHeader sample_header() {
  SealedHeader header;
  header.content_bytes = 1000;
  header.block_count = 2;
  header.extent_bytes = sealed_extent_bytes(header.content_bytes, header.block_count);
  header.part_bytes = 8u << 20;
  header.format_version = kSealedHeaderVersion;
  header.content_digest.fill(std::byte{7});
  return header;
}

}  // namespace
}  // namespace siphon::rpc

namespace siphon::fuzz {

void run(std::span<const std::byte> input) {
  Input parts(input);
  const auto check = rpc::kChecks.at(parts.number<std::uint8_t>() % rpc::kChecks.size());
  check(parts.rest());
}

std::vector<Bytes> seeds() {
  using namespace rpc;
  std::vector<Bytes> out;
  const auto add = [&out](std::uint8_t check, const auto& value, auto message) {
    encode(value, &message);
    out.push_back(seed_of(check, message));
  };
  TransferSpec spec;
  spec.id = std::string(32, 'a');
  spec.source_address = "127.0.0.1:7400";
  spec.source = {"p1", "n", 4};
  spec.target = {"p2", "", 5};
  spec.extents = {{"a", "a", 100}, {"b", "c", 0}};
  spec.lanes = 2;
  spec.bytes_per_second = 50u << 20;
  add(0, spec, v1::TransferRequest());
  add(18, spec, v1::TransferRequest());
  const std::string proof = make_call_proof({}, {}, "List", "127.0.0.1:7400", {}, "").encode();
  out.push_back(
      SeedWriter().number<std::uint8_t>(18).bytes(std::as_bytes(std::span(proof))).take());
  StreamCall call;
  call.transfer_id = spec.id;
  call.source = spec.source;
  call.extents = {"a", "b"};
  call.data = {"127.0.0.1", 7420};
  call.ticket = Ticket::make({});
  call.target_device = "osd.1";
  call.max_frame_bytes = 4u << 20;
  call.deadline = std::chrono::hours(1);
  call.target_store = {"ceph:f/4/n", ""};
  add(1, call, v1::StreamRequest());

  const Error error{Code::kDataLoss, "it is gone", Side::kSource, "look for it", Reason::kBusy};
  SourceReport report;
  report.source_device = "osd.2";
  report.extents.push_back({0, SourceClaim{sample_header(), sample_header().extent_bytes, 7}});
  report.extents.push_back({1, fail(error)});
  add(2, report, v1::StreamResponse());
  add(3, spec.source, v1::Place());
  add(4, call.target_store, v1::StoreIdentity());
  add(5, sample_header(), v1::SealedHeader());
  Progress progress;
  progress.total_bytes = 1000;
  progress.data_endpoint = "127.0.0.1:7420";
  add(6, progress, v1::Progress());
  ExtentOutcome outcome{0, "a", "a", fail(error)};
  add(7, outcome, v1::ExtentOutcome());
  Receipt receipt;
  receipt.header = sample_header();
  receipt.private_id.bytes[0] = std::byte{1};
  outcome.result = receipt;
  add(7, outcome, v1::ExtentOutcome());
  Summary summary;
  summary.status = fail(error);
  add(8, summary, v1::Summary());
  add(9, TransferInfo{spec.id, spec.source, spec.target, "osd.2", "osd.1", 9, progress, {}},
      v1::TransferInfo());
  add(10, VerifyOutcome{0, "a", sample_header(), receipt.private_id, 1, 2, 2, {}, fail(error)},
      v1::VerifyResult());
  DeviceDescription device;
  device.device = "osd.1";
  device.store = call.target_store;
  add(11, device, v1::DescribeResponse());
  add(12, error, v1::Problem());
  v1::Problem problem;
  encode(error, &problem);
  Bytes status = seed_of(13, problem);
  status.insert(status.begin() + 1, std::byte{14});
  out.push_back(status);
  v1::WatchRequest watch;
  watch.set_transfer_id(spec.id);
  out.push_back(seed_of(14, watch));
  v1::VerifyRequest verify;
  verify.add_extents("a");
  out.push_back(seed_of(17, verify));
  return out;
}

}  // namespace siphon::fuzz
