// The head register, stored in version 1 or 2, and the transitions that a class method's input asks
// for.
//
// An input: a byte of flags, the length of the register, the register, then requests. Its checksum
// is made good unless a flag keeps it. Properties: a register that is accepted is the same after a
// round trip; a refused transition changes nothing; one that has taken effect can be asked for
// again; whatever comes out is a register that can be stored and read.
#include "plugin/core/head_register.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

constexpr std::uint8_t kKeepChecksum = 1;
constexpr std::uint8_t kNoRegister = 2;
constexpr std::uint8_t kExisted = 4;

// Stores the register and reads it back.
void check_round_trip(const HeadRegister& head) {
  std::array<std::byte, HeadRegister::kMaxEncodedBytes> raw;
  const std::size_t length = encode_head(head, raw);
  HOLDS(length != 0);
  HeadRegister again;
  HOLDS(decode_head(std::span(raw).first(length), again));
  HOLDS(again == head);
}

void check_request(const TransitionRequest& request) {
  std::array<std::byte, TransitionRequest::kEncodedBytes> raw;
  request.encode(raw);
  TransitionRequest again;
  HOLDS(TransitionRequest::decode(raw, again));
  std::array<std::byte, TransitionRequest::kEncodedBytes> twice;
  again.encode(twice);
  HOLDS(raw == twice);
}

void check_transition(HeadRegister& head, bool& existed, const TransitionRequest& request) {
  const HeadRegister before = head;
  const int result = apply(head, existed, request);
  HOLDS(result <= 0);
  if (result != 0) {
    HOLDS(head == before);
    return;
  }
  HOLDS(head.generation == before.generation || head.generation == before.generation + 1);
  if (!head.blank()) check_round_trip(head);
  existed = !head.blank();
  const HeadRegister after = head;
  HOLDS(apply(head, existed, request) == 0);
  HOLDS(head == after);
}

}  // namespace

void run(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto flags = input.number<std::uint8_t>();
  const auto taken = input.bytes(input.number<std::uint16_t>());
  Bytes raw(taken.begin(), taken.end());
  if ((flags & kKeepChecksum) == 0 && raw.size() >= 4 &&
      raw.size() <= HeadRegister::kMaxEncodedBytes) {
    put_last(raw, record_crc32c(std::span(raw).first(raw.size() - 4)));
  }
  HeadRegister head;
  if (!decode_head(raw, head)) {
    if ((flags & kNoRegister) == 0) return;
    head = {};
  } else {
    check_round_trip(head);
  }
  bool existed = !head.blank() || (flags & kExisted) != 0;
  while (!input.empty()) {
    TransitionRequest request;
    if (!TransitionRequest::decode(input.bytes(TransitionRequest::kEncodedBytes), request))
      continue;
    check_request(request);
    check_transition(head, existed, request);
  }
}

namespace {

TransitionRequest request_of(Transition kind, int number) {
  TransitionRequest request;
  request.kind = kind;
  request.id.bytes[0] = static_cast<std::byte>(number);
  request.expected_generation = TransitionRequest::kAnyGeneration;
  request.header.extent_bytes = 1000;
  request.header.content_bytes = 800;
  request.header.block_count = 1;
  request.header.part_bytes = 65536;
  request.header.format_version = 2;
  request.header.content_digest.fill(std::byte{5});
  request.now_unix_ms = 5000;
  request.lease_unix_ms = 9000;
  return request;
}

// A register of version 1, as docs/extent_format.md has it: nothing writes it any more.
Bytes version_1(const HeadRegister& head) {
  SeedWriter w;
  w.number(HeadRegister::kMagic).number(std::uint16_t{1});
  w.number(static_cast<std::uint8_t>(head.state)).number(std::uint8_t{head.is_inline});
  w.number(head.generation).bytes(head.current.bytes);
  w.number(head.header.extent_bytes).number(head.header.content_bytes).number(head.header.crc32);
  w.number(head.header.block_count).number(head.header.part_bytes).number(std::uint16_t{1});
  w.number(static_cast<std::uint8_t>(head.reservations.size()));
  w.number(static_cast<std::uint8_t>(head.trash.size()));
  w.number(head.header.sealed_unix_ms);
  Bytes fixed = w.take();
  fixed.resize(HeadRegister::kFixedBytesV1);
  SeedWriter lists;
  lists.bytes(fixed);
  for (const Reservation& e : head.reservations) {
    lists.bytes(e.id.bytes).number(e.extent_bytes).number(e.part_bytes).number(std::uint32_t{0});
    lists.number(e.lease_unix_ms).number(std::uint64_t{0});
  }
  for (const TrashEntry& e : head.trash) {
    lists.bytes(e.id.bytes).number(e.header.extent_bytes).number(e.header.part_bytes);
    lists.number(std::uint8_t{e.is_inline}).number(std::uint8_t{e.was_published});
    lists.number(std::uint16_t{0}).number(e.trashed_unix_ms).number(std::uint64_t{0});
  }
  Bytes out = lists.take();
  out.resize(out.size() + 4);
  put_last(out, record_crc32c(std::span(out).first(out.size() - 4)));
  return out;
}

}  // namespace

std::vector<Bytes> seeds() {
  std::vector<TransitionRequest> requests;
  for (int number = 1; number <= 3; ++number) {
    requests.push_back(request_of(Transition::kReserve, number));
  }
  for (const Transition kind :
       {Transition::kPublish, Transition::kSeal, Transition::kCondemn, Transition::kRestore,
        Transition::kCondemn, Transition::kDiscard, Transition::kForget}) {
    requests.push_back(request_of(kind, 1));
  }
  requests.push_back(request_of(Transition::kPublish, 2));
  requests.back().open = true;
  requests.push_back(request_of(Transition::kSeal, 2));
  requests.push_back(request_of(Transition::kPublish, 3));
  requests.back().replace = true;
  requests.push_back(request_of(Transition::kPublish, 4));
  requests.back().is_inline = true;

  std::vector<Bytes> out;
  const auto add = [&](std::uint8_t flags, std::span<const std::byte> raw) {
    SeedWriter writer;
    writer.number(flags).number(static_cast<std::uint16_t>(raw.size())).bytes(raw);
    for (const TransitionRequest& request : requests) {
      std::array<std::byte, TransitionRequest::kEncodedBytes> encoded;
      request.encode(encoded);
      writer.bytes(encoded);
    }
    out.push_back(writer.take());
  };
  add(kNoRegister, {});
  add(kNoRegister | kExisted, {});
  HeadRegister head;
  for (const TransitionRequest& request : requests) {
    (void)apply(head, !head.blank(), request);
    std::array<std::byte, HeadRegister::kMaxEncodedBytes> raw;
    add(0, std::span(raw).first(encode_head(head, raw)));
    const Bytes first = version_1(head);
    HeadRegister read;
    HOLDS(decode_head(first, read));
    add(0, first);
  }
  return out;
}

}  // namespace siphon::fuzz
