// The class's methods as any client with class caps can call them: any bytes as input, on any
// object, beside a companion that may write anything into the region that both share.
//
// An input is a list of steps: change the object, arm a descriptor, call a method. Properties: an
// answer is 0 or an errno that an OSD sends; nothing but what a method is for is changed; a
// register that could be read can be read afterwards; a transition that has taken effect can be
// asked for again; what belongs to somebody else stays as it is; no buffer outside the region's
// data is touched; no client has more than its share of the grants; who has no ticket of a probe
// changes nothing with one.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "plugin/base/crc32.h"
#include "plugin/base/types.h"
#include "plugin/core/head_register.h"
#include "plugin/exchange/exchange.h"
#include "tests/fuzz/class_host.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

using exchange::Descriptor;

enum class Step : std::uint8_t {
  kObject,
  kDescriptor,
  kTransition,
  kOperation,
  kGrant,
  kProbe,
  kRaw,
  kEnd
};
constexpr std::uint32_t kDescriptors = 4;  // as many as are armed here
constexpr std::size_t kMostSteps = 24;

constexpr std::array<const char*, 14> kMethods = {
    "reserve", "publish",    "condemn",    "forget",      "seal",      "restore",    "discard",
    "hello",   "hello_head", "grant_read", "grant_write", "read_part", "write_part", "probe"};
constexpr std::size_t kTransitions = 7;

// The region as its companion sees it.
std::byte* region() {
  static std::byte* const base = [] {
    void* mapped = MAP_FAILED;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (target.find("memfd:siphon-region") == std::string::npos) continue;
      mapped = ::mmap(nullptr, exchange::kDataOffset + exchange::kMinDataBytes,
                      PROT_READ | PROT_WRITE, MAP_SHARED, std::stoi(entry.path().filename()), 0);
    }
    HOLDS(mapped != MAP_FAILED);
    return static_cast<std::byte*>(mapped);
  }();
  return base;
}

exchange::RegionHeader& region_header() {
  return *reinterpret_cast<exchange::RegionHeader*>(region());
}
Descriptor& descriptor(std::uint32_t number) {
  return reinterpret_cast<Descriptor*>(region() + exchange::kDescriptorsOffset)[number];
}

void clean_region() {
  std::memset(region() + exchange::kGrantsOffset, 0,
              exchange::kGrantCount * sizeof(exchange::Grant));
  for (std::uint32_t i = 0; i < kDescriptors; ++i) {
    std::memset(static_cast<void*>(&descriptor(i)), 0, sizeof(Descriptor));
  }
  region_header().hello_seq = 0;
}

bool register_of(const StoredObject& object, HeadRegister& head) {
  const auto found = object.attributes.find(kHeadXattr);
  if (found == object.attributes.end()) return false;
  return decode_head(std::as_bytes(std::span(found->second)), head);
}

// Calls, and checks what holds for every method.
int call(const std::string& method, const std::string& input, std::string* output = nullptr) {
  ClassHost& host = ClassHost::get();
  const StoredObject before = host.object;
  HeadRegister head;
  const bool readable = register_of(before, head);
  std::string out;
  const int result = host.call(method, input, out);
  HOLDS(result <= 0 && result != -EAGAIN && result != -EINPROGRESS);
  if (result < 0) HOLDS(out.empty());
  HOLDS(out.size() <= 64);
  if (host.object.attributes.contains(kHeadXattr)) {
    HOLDS(register_of(host.object, head) || !readable);
  }
  if (result == exchange::kNotSiphons) HOLDS(host.object == before);
  // What is not Siphon's stays, whatever becomes of the register.
  for (const auto& [name, value] : before.attributes) {
    if (name != kHeadXattr) HOLDS(host.object.attributes.at(name) == value);
  }
  HOLDS(host.object.omap == before.omap);
  if (output != nullptr) *output = std::move(out);
  return result;
}

void take_object(Input& input) {
  StoredObject& object = ClassHost::get().object;
  object = {};
  const auto flags = input.number<std::uint8_t>();
  object.exists = (flags & 1) != 0;
  if (!object.exists) return;
  if ((flags & 2) != 0) object.data = text_of(input.bytes(input.number<std::uint8_t>()));
  if ((flags & 4) != 0) object.attributes["user.other"] = "theirs";
  if ((flags & 8) != 0) object.omap["key"] = "theirs";
  if ((flags & 16) == 0) return;
  const auto raw = input.bytes(input.number<std::uint16_t>());
  Bytes head(raw.begin(), raw.end());
  if ((flags & 32) == 0 && head.size() >= 4 && head.size() <= HeadRegister::kMaxEncodedBytes) {
    put_last(head, record_crc32c(std::span(head).first(head.size() - 4)));
  }
  object.attributes[kHeadXattr] = text_of(head);
}

// What the companion writes, which need not be sound.
void take_descriptor(Input& input) {
  Descriptor& armed = descriptor(input.number<std::uint8_t>() % kDescriptors);
  const auto state = input.number<std::uint8_t>();
  const auto epoch = input.number<std::uint8_t>();
  std::memset(armed.ticket, input.number<std::uint8_t>(), sizeof armed.ticket);
  armed.buffer_offset = input.number<std::uint64_t>();
  armed.buffer_bytes = input.number<std::uint32_t>();
  armed.kind = input.number<std::uint32_t>();
  armed.word = std::uint64_t{epoch} << 8 | state;
}

void take_transition(Input& input) {
  const std::size_t method = input.number<std::uint8_t>() % kTransitions;
  ClassHost& host = ClassHost::get();
  const auto flags = input.number<std::uint8_t>();
  host.fail_at = (flags & 1) != 0 ? input.number<std::uint8_t>() % 8 : -1;
  host.fail_with = (flags & 2) != 0 ? -EAGAIN : -EIO;
  const std::string request(text_of(input.bytes(TransitionRequest::kEncodedBytes)));
  // As in one operation with the creation of the object and the write of its data.
  StoredObject& object = host.object;
  if ((flags & 4) != 0 && !object.exists) {
    object.exists = object.created_now = true;
    object.data = "inline";
  }
  const bool created = object.created_now;
  const int result = call(kMethods.at(method), request);
  host.fail_at = -1;
  if (created && result < 0) object = {};
  if (result != 0) return;
  const StoredObject after = object;
  HOLDS(call(kMethods.at(method), request) == 0);
  HOLDS(object == after);
}

void take_operation(Input& input) {
  const auto flags = input.number<std::uint8_t>();
  const auto raw = input.bytes(exchange::OperationRequest::kEncodedBytes);
  std::string bytes(text_of(raw));
  exchange::OperationRequest request;
  if (exchange::OperationRequest::decode(raw, request)) {
    if ((flags & 1) == 0) request.boot_nonce = region_header().boot_nonce;
    if ((flags & 2) == 0) request.descriptor %= kDescriptors;
    const Descriptor& armed = descriptor(request.descriptor % kDescriptors);
    if ((flags & 4) == 0 && armed.buffer_offset <= exchange::kMinDataBytes &&
        request.length_bytes <= exchange::kMinDataBytes - armed.buffer_offset) {
      request.crc32c = ceph_crc32c(
          std::span(region() + exchange::kDataOffset + armed.buffer_offset, request.length_bytes));
    }
    std::array<std::byte, exchange::OperationRequest::kEncodedBytes> encoded;
    request.encode(encoded);
    bytes = text_of(encoded);
  }
  ClassHost& host = ClassHost::get();
  const StoredObject before = host.object;
  std::string output;
  if ((flags & 8) != 0) {
    (void)call("write_part", bytes);
    HOLDS(host.object.attributes == before.attributes);
    return;
  }
  if (call("read_part", bytes, &output) != 0) return;
  exchange::OperationReply reply;
  HOLDS(exchange::OperationReply::decode(std::as_bytes(std::span(output)), reply));
  HOLDS(reply.length_bytes <= request.length_bytes);
  const std::size_t from = std::min<std::size_t>(request.object_offset, before.data.size());
  const Descriptor& armed = descriptor(request.descriptor);
  HOLDS(before.data.compare(
            from, reply.length_bytes,
            std::string(text_of({region() + exchange::kDataOffset + armed.buffer_offset,
                                 reply.length_bytes}))) == 0);
}

void take_grant(Input& input) {
  const auto flags = input.number<std::uint8_t>();
  ClassHost& host = ClassHost::get();
  host.client = flags >> 4;
  const auto raw = input.bytes(exchange::GrantRequest::kEncodedBytes);
  exchange::GrantRequest request;
  if (exchange::GrantRequest::decode(raw, request) && (flags & 1) == 0) {
    host.name.name = "siphon.grant." + to_hex(request.key_id);
    host.name.pool = request.pool_id;
    host.name.nspace = std::string(request.nspace.data(), request.namespace_bytes);
    host.name.nspace.resize(std::min<std::size_t>(host.name.nspace.size(), 127));
  }
  host.object = {};
  const int result =
      call((flags & 2) != 0 ? "grant_write" : "grant_read", std::string(text_of(raw)));
  HOLDS(!host.object.exists);
  if (result != 0) return;
  HOLDS(host.name.name == "siphon.grant." + to_hex(request.key_id));
  HOLDS(host.name.pool == request.pool_id);
  HOLDS(host.name.nspace == std::string(request.nspace.data(), request.namespace_bytes));
}

// The class has found its layout right: no probe changes that, nor anything else.
void take_probe(Input& input) {
  const auto flags = input.number<std::uint8_t>();
  const auto raw = input.bytes(exchange::ProbeRequest::kEncodedBytes);
  exchange::ProbeRequest request;
  const bool decodes = exchange::ProbeRequest::decode(raw, request);
  exchange::RegionHeader& header = region_header();
  header.probe_armed = flags & 1;
  if ((flags & 2) != 0) std::ranges::copy(request.ticket, header.probe_ticket);
  const bool expected =
      (flags & 1) != 0 && std::ranges::equal(request.ticket, std::span(header.probe_ticket));
  const int result = call("probe", std::string(text_of(raw)));
  HOLDS(result == (!decodes ? -EINVAL : expected ? 0 : -EPERM));
}

// As the companion does before the first grant.
void prove_layout() {
  ClassHost& host = ClassHost::get();
  exchange::ProbeRequest request;
  request.ticket.fill(std::byte{1});
  request.pool_id = 3;
  std::ranges::copy(request.ticket, region_header().probe_ticket);
  region_header().probe_armed = 1;
  host.name = {};
  host.name.name = "siphon.probe." + to_hex(request.name_id);
  host.name.nspace = exchange::kProbeNamespace;
  host.name.pool = request.pool_id;
  std::array<std::byte, exchange::ProbeRequest::kEncodedBytes> raw;
  request.encode(raw);
  HOLDS(call("probe", std::string(text_of(raw))) == 0);
}

void take_raw(Input& input) {
  const std::string method = kMethods.at(input.number<std::uint8_t>() % kMethods.size());
  const auto flags = input.number<std::uint8_t>();
  if ((flags & 1) != 0) {
    const auto hello = input.bytes(sizeof region_header().hello);
    std::copy(hello.begin(), hello.end(), region_header().hello);
    region_header().hello_seq = flags;
  }
  (void)call(method, std::string(text_of(input.bytes(input.number<std::uint8_t>()))));
}

}  // namespace

void run(std::span<const std::byte> bytes) {
  [[maybe_unused]] static const bool small_region =
      ::setenv("SIPHON_REGION_MIB", "16", /*overwrite=*/1) == 0;
  ClassHost& host = ClassHost::get();
  for (const char* method : kMethods) HOLDS(host.has(method));
  [[maybe_unused]] static const bool proven = (prove_layout(), true);
  clean_region();
  host.object = {};
  host.name = {};
  Input input(bytes);
  for (std::size_t step = 0; step < kMostSteps && !input.empty(); ++step) {
    switch (static_cast<Step>(input.number<std::uint8_t>() % static_cast<int>(Step::kEnd))) {
      case Step::kObject:
        take_object(input);
        break;
      case Step::kDescriptor:
        take_descriptor(input);
        break;
      case Step::kTransition:
        take_transition(input);
        break;
      case Step::kOperation:
        take_operation(input);
        break;
      case Step::kGrant:
        take_grant(input);
        break;
      case Step::kProbe:
        take_probe(input);
        break;
      default:
        take_raw(input);
        break;
    }
  }
}

namespace {

class Steps : public SeedWriter {
 public:
  Steps& step(Step step) {
    number(static_cast<std::uint8_t>(step));
    return *this;
  }
  template <typename Request>
  Steps& request(const Request& request) {
    std::array<std::byte, Request::kEncodedBytes> raw;
    request.encode(raw);
    bytes(raw);
    return *this;
  }
  Steps& transition(std::uint8_t method, std::uint8_t flags, int id, bool is_inline = false) {
    TransitionRequest r;
    r.kind = static_cast<Transition>(method + 1);
    r.id.bytes[0] = static_cast<std::byte>(id);
    r.expected_generation = TransitionRequest::kAnyGeneration;
    r.header.extent_bytes = 1000;
    r.header.part_bytes = 65536;
    r.is_inline = is_inline;
    r.now_unix_ms = 5000;
    r.lease_unix_ms = 9000;
    step(Step::kTransition);
    number(method).number(flags);
    return request(r);
  }
  Steps& armed(exchange::OperationKind kind, std::uint64_t offset) {
    step(Step::kDescriptor);
    number(std::uint8_t{1}).number(static_cast<std::uint8_t>(exchange::DescriptorState::kArmed));
    number(std::uint8_t{3}).number(std::uint8_t{7});
    number(offset).number(std::uint32_t{4096}).number(static_cast<std::uint32_t>(kind));
    return *this;
  }
  Steps& operation(std::uint8_t flags, std::uint64_t object_offset) {
    exchange::OperationRequest r;
    r.descriptor = 1;
    r.epoch = 3;
    r.ticket.fill(std::byte{7});
    r.object_offset = object_offset;
    r.length_bytes = 100;
    step(Step::kOperation);
    number(flags);
    return request(r);
  }
};

}  // namespace

std::vector<Bytes> seeds() {
  // Positions of kMethods, which are in the order of Transition's values but for one.
  constexpr std::uint8_t kReserve = 0, kPublish = 1, kCondemn = 2, kForget = 3, kSeal = 4,
                         kRestore = 5, kDiscard = 6;
  std::vector<Bytes> out;
  Steps life;
  life.transition(kReserve, 0, 1).transition(kPublish, 0, 1).transition(kCondemn, 0, 1);
  life.transition(kRestore, 0, 1).transition(kCondemn, 0, 1).transition(kDiscard, 0, 1);
  life.transition(kForget, 0, 1).transition(kSeal, 0, 1);
  out.push_back(life.take());
  Steps in_line;
  in_line.transition(kPublish, 4, 2, true).transition(kCondemn, 0, 2).transition(kForget, 0, 2);
  out.push_back(in_line.take());
  for (const std::uint8_t foreign : {3, 5, 9, 1}) {
    Steps steps;
    steps.step(Step::kObject).number(foreign);
    if (foreign == 3) steps.number(std::uint8_t{4}).number(std::uint32_t{0x61616161});
    steps.transition(kReserve, 0, 1).transition(kPublish, 4, 2, true).transition(kForget, 0, 3);
    out.push_back(steps.take());
  }
  Steps bulk;
  bulk.armed(exchange::OperationKind::kWrite, 4096).operation(8, 0).operation(8, 50);
  bulk.armed(exchange::OperationKind::kRead, 8192).operation(0, 20).operation(0, 1000);
  out.push_back(bulk.take());
  Steps grants;
  for (const std::uint8_t flags : {0x10, 0x12, 0x21}) {
    exchange::GrantRequest r;
    r.key_id.fill(std::byte{flags});
    r.pool_id = 42;
    r.ttl_seconds = 60;
    r.namespace_bytes = 2;
    grants.step(Step::kGrant).number(flags);
    grants.request(r);
  }
  out.push_back(grants.take());
  Steps probes;
  for (const std::uint8_t flags : {0, 1, 3}) {
    exchange::ProbeRequest r;
    r.ticket.fill(std::byte{flags});
    probes.step(Step::kProbe).number(flags);
    probes.request(r);
  }
  out.push_back(probes.take());
  Steps hello;
  exchange::Hello said;
  said.control_port = 7400;
  hello.step(Step::kRaw).number(std::uint8_t{7}).number(std::uint8_t{3});
  hello.request(said).number(std::uint64_t{0}).number(std::uint64_t{0}).number(std::uint8_t{0});
  hello.step(Step::kRaw).number(std::uint8_t{8}).number(std::uint8_t{0}).number(std::uint8_t{0});
  out.push_back(hello.take());
  return out;
}

}  // namespace siphon::fuzz
