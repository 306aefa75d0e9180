#include "plugin/rpc/convert.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <limits>

namespace siphon::rpc {

namespace pb = google::protobuf;

namespace {

// The parser writes a line to stderr for every text that is not UTF-8: an unproven peer could fill
// a log with it. Whoever sends such a message is answered all the same.
[[maybe_unused]] auto* const parser_says = pb::SetLogHandler(nullptr);

// Whatever number a peer calls its failure by.
Code failure_of(std::uint32_t number) {
  return number >= 1 && number <= 16 ? static_cast<Code>(number) : Code::kUnknown;
}

std::string bytes_of(std::span<const std::byte> in) {
  return {reinterpret_cast<const char*>(in.data()), in.size()};
}
// False unless `in` has exactly the size of `out`.
bool bytes_to(const std::string& in, std::span<std::byte> out) {
  if (in.size() != out.size()) return false;
  std::memcpy(out.data(), in.data(), out.size());
  return true;
}
constexpr std::size_t kMaxNameBytes = 512;  // of a device, an address, a pool, a store
Status check_names(std::initializer_list<const std::string*> names) {
  for (const std::string* name : names) {
    if (name->size() > kMaxNameBytes) {
      return fail(Code::kInvalidArgument, "a name in the request is too long");
    }
  }
  return {};
}
PrivateId id_from_hex(const std::string& text) {
  PrivateId id;
  return from_hex(text, id.bytes) ? id : PrivateId{};
}

// A peer's words are kept, told and written down: no more of them than anybody would read. Cut
// between characters: half a one would make a message that no parser takes.
std::string at_most(std::size_t bytes, const std::string& in) {
  if (in.size() <= bytes) return in;
  while (bytes > 0 && (static_cast<unsigned char>(in[bytes]) & 0xc0) == 0x80) --bytes;
  return in.substr(0, bytes);
}
std::string words(const std::string& in) { return at_most(4096, in); }
std::string device_name(const std::string& in) { return at_most(256, in); }

}  // namespace

void encode(const Error& in, v1::Problem* out) {
  out->set_code(static_cast<std::uint32_t>(in.code));
  out->set_message(in.message);
  out->set_suspect(static_cast<v1::Side>(in.suspect));
  out->set_next_step(in.next_step);
  out->set_reason(static_cast<v1::Reason>(in.reason));
}
Status decode(const v1::Problem& in) {
  if (in.code() == 0) return {};
  const int side = in.suspect();
  Error error{failure_of(in.code()), words(in.message()),
              side >= 0 && side <= 4 ? static_cast<Side>(side) : Side::kNone, words(in.next_step()),
              v1::Reason_IsValid(in.reason()) ? static_cast<Reason>(in.reason()) : Reason::kNone};
  return fail(std::move(error));
}

void encode(const Location& in, v1::Place* out) {
  out->set_pool(in.pool);
  out->set_namespace_(in.nspace);
  out->set_pool_id(in.pool_id);
}
Location decode(const v1::Place& in) { return {in.pool(), in.namespace_(), in.pool_id()}; }

void encode(const StoreIdentity& in, v1::StoreIdentity* out) {
  out->set_id(in.id);
  out->set_node(in.node);
}
StoreIdentity decode(const v1::StoreIdentity& in) { return {in.id(), in.node()}; }

void encode(const SealedHeader& in, v1::SealedHeader* out) {
  out->set_extent_bytes(in.extent_bytes);
  out->set_content_bytes(in.content_bytes);
  out->set_crc32(in.crc32);
  out->set_block_count(in.block_count);
  out->set_part_bytes(in.part_bytes);
  out->set_format_version(in.format_version);
  out->set_sealed_unix_ms(in.sealed_unix_ms);
  if (in.has_digest()) out->set_content_digest(bytes_of(in.content_digest));
}
SealedHeader decode(const v1::SealedHeader& in) {
  // A version beyond the field's range must stay unknown, not become another one.
  const auto version = static_cast<std::uint16_t>(
      std::min<std::uint32_t>(in.format_version(), std::numeric_limits<std::uint16_t>::max()));
  SealedHeader out{
      in.extent_bytes(), in.content_bytes(),  in.crc32(), in.block_count(), in.part_bytes(),
      version,           in.sealed_unix_ms(), {}};
  // A digest of another length is none, which check_sealed_header refuses for version 2.
  (void)bytes_to(in.content_digest(), out.content_digest);
  return out;
}

void encode(const TransferSpec& in, v1::TransferRequest* out) {
  out->set_transfer_id(in.id);
  out->set_source_address(in.source_address);
  encode(in.source, out->mutable_source());
  encode(in.target, out->mutable_target());
  for (const ExtentPair& e : in.extents) {
    auto* pair = out->add_extents();
    pair->set_source_extent(e.source);
    if (e.target != e.source) pair->set_target_extent(e.target);
    pair->set_planned_bytes(e.planned_bytes);
  }
  out->set_replace(in.replace);
  out->set_check_blocks(in.check_blocks);
  out->set_attempt(in.attempt);
  out->set_lanes(in.lanes);
  out->set_bandwidth_limit_bytes_per_second(in.bytes_per_second);
  if (in.source_key) {
    out->mutable_source_key()->set_key_id(bytes_of(in.source_key->key_id));
    out->mutable_source_key()->set_key(bytes_of(in.source_key->key));
  }
}
Result<TransferSpec> decode(const v1::TransferRequest& in) {
  TransferSpec out;
  if (static_cast<std::size_t>(in.extents_size()) > kMaxExtentsPerTransfer) {
    return fail(Code::kInvalidArgument,
                "at most " + std::to_string(kMaxExtentsPerTransfer) + " extents in one transfer",
                Side::kRequester);
  }
  SIPHON_TRY(
      check_names({&in.transfer_id(), &in.source_address(), &in.source().pool(),
                   &in.source().namespace_(), &in.target().pool(), &in.target().namespace_()}));
  out.id = in.transfer_id();
  out.source_address = in.source_address();
  out.source = decode(in.source());
  out.target = decode(in.target());
  for (const auto& e : in.extents()) {
    out.extents.push_back({e.source_extent(),
                           e.target_extent().empty() ? e.source_extent() : e.target_extent(),
                           e.planned_bytes()});
  }
  out.replace = in.replace();
  out.check_blocks = in.check_blocks();
  out.attempt = std::max(in.attempt(), 1u);
  if (in.lanes() > kMaxLanes) {
    return fail(Code::kInvalidArgument, "at most " + std::to_string(kMaxLanes) + " lanes",
                Side::kRequester);
  }
  out.lanes = static_cast<std::uint16_t>(in.lanes());
  out.bytes_per_second = in.bandwidth_limit_bytes_per_second();
  if (in.has_source_key()) {
    SourceKey& source = out.source_key.emplace();
    if (!bytes_to(in.source_key().key_id(), source.key_id) ||
        !bytes_to(in.source_key().key(), source.key)) {
      return fail(Code::kInvalidArgument, "the key for the source is malformed", Side::kRequester);
    }
  }
  SIPHON_TRY(check_spec(out));
  return out;
}

void encode(const StreamCall& in, v1::StreamRequest* out) {
  out->set_transfer_id(in.transfer_id);
  out->set_attempt(in.attempt);
  encode(in.source, out->mutable_source());
  for (const std::string& e : in.extents) out->add_extents(e);
  out->set_data_address(in.data.address);
  out->set_data_port(in.data.port);
  out->set_ticket_id(bytes_of(in.ticket.id));
  out->set_ticket_key(bytes_of(in.ticket.key.reveal()));
  out->set_target_device(in.target_device);
  out->set_lanes(in.lanes);
  out->set_max_frame_bytes(in.max_frame_bytes);
  out->set_min_bytes_per_second(in.minimum_rate.min_bytes_per_second);
  out->set_idle_timeout_ms(static_cast<std::uint32_t>(in.minimum_rate.idle_timeout.count()));
  out->set_deadline_ms(static_cast<std::uint32_t>(in.deadline.count()));
  out->set_bandwidth_limit_bytes_per_second(in.bytes_per_second);
  out->set_in_order(in.in_order);
  encode(in.target_store, out->mutable_target_store());
  out->set_headers_only(in.headers_only);
}
Result<StreamCall> decode(const v1::StreamRequest& in) {
  auto wrong = [](const char* what) {
    return fail(Code::kInvalidArgument, std::string("stream request: ") + what, Side::kTarget);
  };
  StreamCall out;
  SIPHON_TRY(check_transfer_id(in.transfer_id()));
  SIPHON_TRY(
      check_names({&in.source().pool(), &in.source().namespace_(), &in.data_address(),
                   &in.target_device(), &in.target_store().id(), &in.target_store().node()}));
  out.transfer_id = in.transfer_id();
  out.attempt = in.attempt();
  out.source = decode(in.source());
  if (in.extents_size() < 1 ||
      static_cast<std::size_t>(in.extents_size()) > kMaxExtentsPerTransfer) {
    return wrong("it names no extents, or too many");
  }
  for (const std::string& e : in.extents()) {
    SIPHON_TRY(check_extent_name(e));
    out.extents.push_back(e);
  }
  out.headers_only = in.headers_only();
  if ((in.data_port() < 1 && !out.headers_only) || in.data_port() > 65535) {
    return wrong("no such data port");
  }
  out.data = {in.data_address(), static_cast<std::uint16_t>(in.data_port())};
  if (!bytes_to(in.ticket_id(), out.ticket.id) || in.ticket_key().size() != 32) {
    return wrong("the ticket is malformed");
  }
  out.ticket.key = Secret(std::as_bytes(std::span(in.ticket_key())));
  out.target_device = device_name(in.target_device());
  if (in.lanes() < 1 || in.lanes() > kMaxLanes) return wrong("1 to 16 lanes");
  out.lanes = static_cast<std::uint16_t>(in.lanes());
  if (in.max_frame_bytes() < 4096 || in.max_frame_bytes() > (64u << 20)) {
    return wrong("a frame has 4 KiB to 64 MiB");
  }
  out.max_frame_bytes = in.max_frame_bytes();
  constexpr std::uint32_t kMaxMs = 7u * 24 * 3600 * 1000;
  if (in.idle_timeout_ms() < 100 || in.idle_timeout_ms() > kMaxMs || in.deadline_ms() > kMaxMs) {
    return wrong("a timeout is out of bounds");
  }
  out.minimum_rate = {std::chrono::milliseconds(in.idle_timeout_ms()), in.min_bytes_per_second()};
  out.deadline = std::chrono::milliseconds(in.deadline_ms());
  out.bytes_per_second = in.bandwidth_limit_bytes_per_second();
  if (out.bytes_per_second != 0 && out.bytes_per_second < kLeastBytesPerSecond) {
    return wrong("its bandwidth limit is too low");
  }
  out.in_order = in.in_order();
  if (out.in_order && out.lanes != 1) return wrong("in order on several lanes");
  out.target_store = decode(in.target_store());
  out.ticket.binding = ticket_binding(out);
  return out;
}

void encode(const SourceReport& in, v1::StreamResponse* out) {
  out->set_source_device(in.source_device);
  out->set_bottleneck(static_cast<v1::Bottleneck>(in.bottleneck));
  for (const auto& e : in.extents) {
    auto* result = out->add_results();
    result->set_index(e.index);
    if (e.claim) {
      encode(e.claim->header, result->mutable_header());
      result->set_bytes(e.claim->bytes);
      result->set_crc32(e.claim->crc32);
    } else {
      encode(e.claim.error(), result->mutable_problem());
    }
  }
}
SourceReport decode(const v1::StreamResponse& in) {
  SourceReport out;
  out.source_device = device_name(in.source_device());
  out.bottleneck = v1::Bottleneck_IsValid(in.bottleneck())
                       ? static_cast<Bottleneck>(in.bottleneck())
                       : Bottleneck::kNone;
  for (const auto& result : in.results()) {
    SourceReport::Extent e{result.index(),
                           SourceClaim{decode(result.header()), result.bytes(), result.crc32()}};
    if (Status problem = decode(result.problem()); !problem) {
      e.claim = fail(std::move(problem).error());
    }
    out.extents.push_back(std::move(e));
  }
  return out;
}

void encode(const Progress& in, v1::Progress* out) {
  out->set_phase(static_cast<v1::TransferPhase>(in.phase));
  out->set_total_bytes(in.total_bytes);
  out->set_received_bytes(in.received_bytes);
  out->set_durable_bytes(in.durable_bytes);
  out->set_extents_total(in.extents_total);
  out->set_extents_done(in.extents_done);
  out->set_extents_already_there(in.extents_already_there);
  out->set_extents_failed(in.extents_failed);
  out->set_bottleneck(static_cast<v1::Bottleneck>(in.bottleneck));
  out->set_data_endpoint(in.data_endpoint);
  out->set_elapsed_ms(in.elapsed_ms);
}
Progress decode(const v1::Progress& in) {
  Progress out;
  out.phase = static_cast<Phase>(in.phase());
  out.total_bytes = in.total_bytes();
  out.received_bytes = in.received_bytes();
  out.durable_bytes = in.durable_bytes();
  out.extents_total = in.extents_total();
  out.extents_done = in.extents_done();
  out.extents_already_there = in.extents_already_there();
  out.extents_failed = in.extents_failed();
  out.bottleneck = static_cast<Bottleneck>(in.bottleneck());
  out.data_endpoint = in.data_endpoint();
  out.elapsed_ms = in.elapsed_ms();
  return out;
}

namespace {

using GoneList = google::protobuf::RepeatedPtrField<v1::GoneGeneration>;

void encode(const std::vector<TrashEntry>& in, GoneList* out) {
  for (const TrashEntry& entry : in) {
    auto* gone = out->Add();
    gone->set_private_id(to_hex(entry.id));
    gone->set_trashed_unix_ms(entry.trashed_unix_ms);
    gone->set_bytes(entry.header.extent_bytes);
  }
}
std::vector<TrashEntry> decode(const GoneList& in) {
  std::vector<TrashEntry> out;
  for (const auto& gone : in) {
    if (out.size() == HeadRegister::kMaxTrash) break;  // no name has more
    TrashEntry& entry = out.emplace_back();
    entry.id = id_from_hex(gone.private_id());
    entry.trashed_unix_ms = gone.trashed_unix_ms();
    entry.header.extent_bytes = gone.bytes();
    entry.was_published = true;
  }
  return out;
}

}  // namespace

void encode(const ExtentOutcome& in, v1::ExtentOutcome* out) {
  out->set_index(in.index);
  out->set_source_extent(in.source_extent);
  out->set_target_extent(in.target_extent);
  encode(in.left_for_good, out->mutable_left_for_good());
  if (!in.result) {
    encode(in.result.error(), out->mutable_problem());
    return;
  }
  const Receipt& r = *in.result;
  auto* o = out->mutable_receipt();
  o->set_transfer_id(r.transfer_id);
  o->set_source_extent(r.source_extent);
  o->set_target_extent(r.target_extent);
  encode(r.source, o->mutable_source());
  encode(r.target, o->mutable_target());
  o->set_source_device(r.source_device);
  o->set_target_device(r.target_device);
  o->set_bytes(r.bytes);
  o->set_source_crc32(r.source_crc32);
  o->set_target_crc32(r.target_crc32);
  encode(r.header, o->mutable_header());
  o->set_private_id(to_hex(r.private_id));
  o->set_data_endpoint(r.data_endpoint);
  o->set_lanes(r.lanes);
  o->set_started_unix_ms(r.started_unix_ms);
  o->set_finished_unix_ms(r.finished_unix_ms);
  o->set_attempts(r.attempts);
  o->set_fallback_parts(r.fallback_parts);
  o->set_already_there(r.already_there);
  o->set_blocks_checked(r.blocks_checked);
  encode(r.left_for_good, o->mutable_left_for_good());
}
ExtentOutcome decode(const v1::ExtentOutcome& in) {
  ExtentOutcome out{in.index(), in.source_extent(), in.target_extent(),
                    fail(Code::kUnknown, "no outcome"), decode(in.left_for_good())};
  if (Status problem = decode(in.problem()); !problem) {
    out.result = fail(std::move(problem).error());
    return out;
  }
  const v1::Receipt& r = in.receipt();
  Receipt o;
  o.transfer_id = r.transfer_id();
  o.source_extent = r.source_extent();
  o.target_extent = r.target_extent();
  o.source = decode(r.source());
  o.target = decode(r.target());
  o.source_device = device_name(r.source_device());
  o.target_device = device_name(r.target_device());
  o.bytes = r.bytes();
  o.source_crc32 = r.source_crc32();
  o.target_crc32 = r.target_crc32();
  o.header = decode(r.header());
  o.private_id = id_from_hex(r.private_id());
  o.data_endpoint = r.data_endpoint();
  o.lanes = r.lanes();
  o.started_unix_ms = r.started_unix_ms();
  o.finished_unix_ms = r.finished_unix_ms();
  o.attempts = r.attempts();
  o.fallback_parts = r.fallback_parts();
  o.already_there = r.already_there();
  o.blocks_checked = r.blocks_checked();
  o.left_for_good = decode(r.left_for_good());
  out.result = std::move(o);
  return out;
}

void encode(const Summary& in, v1::Summary* out) {
  out->set_phase(static_cast<v1::TransferPhase>(in.phase));
  out->set_extents_done(in.extents_done);
  out->set_extents_already_there(in.extents_already_there);
  out->set_extents_failed(in.extents_failed);
  out->set_bytes(in.bytes);
  out->set_lane_bytes(in.lane_bytes);
  out->set_rpc_bytes(in.rpc_bytes);
  out->set_elapsed_ms(in.elapsed_ms);
  out->set_stream_ms(in.stream_ms);
  out->set_rejected_connections(in.rejected_connections);
  out->set_fallback_parts(in.fallback_parts);
  encode(in.status, out->mutable_problem());
  out->set_source_device(in.source_device);
  out->set_target_device(in.target_device);
  out->set_data_endpoint(in.data_endpoint);
}
Summary decode(const v1::Summary& in) {
  Summary out;
  out.phase = static_cast<Phase>(in.phase());
  out.extents_done = in.extents_done();
  out.extents_already_there = in.extents_already_there();
  out.extents_failed = in.extents_failed();
  out.bytes = in.bytes();
  out.lane_bytes = in.lane_bytes();
  out.rpc_bytes = in.rpc_bytes();
  out.elapsed_ms = in.elapsed_ms();
  out.stream_ms = in.stream_ms();
  out.rejected_connections = in.rejected_connections();
  out.fallback_parts = in.fallback_parts();
  out.status = decode(in.problem());
  out.source_device = device_name(in.source_device());
  out.target_device = device_name(in.target_device());
  out.data_endpoint = in.data_endpoint();
  return out;
}

void encode(const TransferInfo& in, v1::TransferInfo* out) {
  out->set_transfer_id(in.id);
  encode(in.source, out->mutable_source());
  encode(in.target, out->mutable_target());
  out->set_source_device(in.source_device);
  out->set_target_device(in.target_device);
  out->set_started_unix_ms(in.started_unix_ms);
  encode(in.progress, out->mutable_progress());
  encode(in.status, out->mutable_problem());
}
TransferInfo decode(const v1::TransferInfo& in) {
  return {in.transfer_id(),
          decode(in.source()),
          decode(in.target()),
          device_name(in.source_device()),
          device_name(in.target_device()),
          in.started_unix_ms(),
          decode(in.progress()),
          decode(in.problem())};
}

void encode(const VerifyOutcome& in, v1::VerifyResult* out) {
  out->set_index(in.index);
  out->set_extent(in.extent);
  encode(in.header, out->mutable_header());
  out->set_bytes(in.bytes);
  out->set_crc32(in.crc32);
  out->set_block_count(in.block_count);
  out->set_private_id(to_hex(in.private_id));
  if (in.content_digest != Sha256{}) out->set_content_digest(bytes_of(in.content_digest));
  encode(in.status, out->mutable_problem());
}
VerifyOutcome decode(const v1::VerifyResult& in) {
  VerifyOutcome out{
      in.index(),          in.extent(), decode(in.header()), id_from_hex(in.private_id()),
      in.bytes(),          in.crc32(),  in.block_count(),    {},
      decode(in.problem())};
  (void)bytes_to(in.content_digest(), out.content_digest);
  return out;
}

void encode(const DeviceDescription& in, v1::DescribeResponse* out) {
  out->set_device(in.device);
  out->set_version(in.version);
  out->set_adapter(in.adapter);
  out->set_control_address(in.control_address);
  out->set_data_address(in.data_address);
  out->set_data_ports(in.data_ports);
  out->set_boot_nonce(in.boot_nonce);
  out->set_region_bytes(in.region_bytes);
  out->set_bytes_in_flight(in.bytes_in_flight);
  out->set_transfers_in(in.transfers_in);
  out->set_transfers_out(in.transfers_out);
  out->set_started_unix_ms(in.started_unix_ms);
  out->set_bytes_received(in.bytes_received);
  out->set_bytes_sent(in.bytes_sent);
  out->set_rejected_connections(in.rejected_connections);
  out->set_fallback_parts(in.fallback_parts);
  out->set_extents_published(in.extents_published);
  out->set_open_data_port(in.open_data_port);
  out->set_pid(in.pid);
  encode(in.store, out->mutable_store());
  out->set_clock_unix_ms(in.clock_unix_ms);
  out->set_journal_file(in.journal_file);
  out->set_journal_in_memory(in.journal_in_memory);
}
DeviceDescription decode(const v1::DescribeResponse& in) {
  DeviceDescription out;
  out.device = device_name(in.device());
  out.version = in.version();
  out.adapter = in.adapter();
  out.control_address = in.control_address();
  out.data_address = in.data_address();
  out.data_ports = in.data_ports();
  out.boot_nonce = in.boot_nonce();
  out.region_bytes = in.region_bytes();
  out.bytes_in_flight = in.bytes_in_flight();
  out.transfers_in = in.transfers_in();
  out.transfers_out = in.transfers_out();
  out.started_unix_ms = in.started_unix_ms();
  out.bytes_received = in.bytes_received();
  out.bytes_sent = in.bytes_sent();
  out.rejected_connections = in.rejected_connections();
  out.fallback_parts = in.fallback_parts();
  out.extents_published = in.extents_published();
  out.open_data_port = in.open_data_port();
  out.pid = in.pid();
  out.store = decode(in.store());
  out.clock_unix_ms = in.clock_unix_ms();
  out.journal_file = in.journal_file();
  out.journal_in_memory = in.journal_in_memory();
  return out;
}

namespace {

// Takes what it finds from `left`; false as soon as there is more.
bool count_fields(pb::io::CodedInputStream& in, const pb::Descriptor& type, std::size_t& left) {
  using Wire = pb::internal::WireFormatLite;
  while (const std::uint32_t tag = in.ReadTag()) {
    if (left == 0) return false;
    --left;
    const auto wire_type = Wire::GetTagWireType(tag);
    if (wire_type == Wire::WIRETYPE_START_GROUP) return false;  // none of ours is one
    const auto* field = type.FindFieldByNumber(Wire::GetTagFieldNumber(tag));
    const auto* inner = field != nullptr ? field->message_type() : nullptr;
    if (inner == nullptr || wire_type != Wire::WIRETYPE_LENGTH_DELIMITED) {
      if (!Wire::SkipField(&in, tag)) return false;
      continue;
    }
    int length = 0;
    if (!in.ReadVarintSizeAsInt(&length)) return false;
    const auto outer = in.PushLimit(length);
    if (!count_fields(in, *inner, left)) return false;
    in.PopLimit(outer);
  }
  return in.ConsumedEntireMessage();
}

}  // namespace

bool has_few_fields(pb::io::ZeroCopyInputStream& in, const pb::Descriptor& type, std::size_t most) {
  pb::io::CodedInputStream coded(&in);
  return count_fields(coded, type, most);
}

grpc::Status to_grpc(const Error& error) {
  v1::Problem problem;
  encode(error, &problem);
  return {static_cast<grpc::StatusCode>(error.code), error.message, problem.SerializeAsString()};
}
Error from_grpc(const grpc::Status& status, const std::string& address) {
  v1::Problem problem;
  if (!status.error_details().empty() && problem.ParseFromString(status.error_details())) {
    if (Status s = decode(problem); !s) return s.error();
  }
  const bool gone = status.error_code() == grpc::StatusCode::UNAVAILABLE;
  return {failure_of(static_cast<std::uint32_t>(status.error_code())),
          "device at " + address + (gone ? " went away (" : ": ") + status.error_message() +
              (gone ? ")" : ""),
          Side::kNone,
          gone ? "is siphond running there? siphon daemons " + address + "/ shows" : ""};
}

}  // namespace siphon::rpc
