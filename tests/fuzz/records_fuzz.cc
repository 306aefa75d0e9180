// The small records and texts that come from a peer or from a disk: what an OSD answers, the inputs
// of its class's methods, a receipt in the journal, names, endpoints, and a peer's sentences.
//
// Properties: what is accepted encodes to what it was; a name that is accepted can stand in a path,
// an object's name and a line; text that is made fit for a terminal is.
#include <optional>

#include "plugin/base/text.h"
#include "plugin/base/types.h"
#include "plugin/exchange/exchange.h"
#include "plugin/stream/socket.h"
#include "plugin/transfer/receipt_record.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

// A record of fixed size: decoded, encoded, decoded, encoded.
template <typename Record>
void check_record(std::span<const std::byte> bytes) {
  Record record;
  if (!Record::decode(bytes, record)) return;
  HOLDS(bytes.size() == Record::kEncodedBytes);
  std::array<std::byte, Record::kEncodedBytes> once, twice;
  record.encode(once);
  Record again;
  HOLDS(Record::decode(once, again));
  again.encode(twice);
  HOLDS(once == twice);
}

void check_grant(std::span<const std::byte> bytes) {
  check_record<exchange::GrantRequest>(bytes);
  exchange::GrantRequest request;
  if (!exchange::GrantRequest::decode(bytes, request)) return;
  HOLDS(request.namespace_bytes <= request.nspace.size());
  HOLDS(request.ttl_seconds > 0 && request.ttl_seconds <= exchange::kMaxGrantSeconds);
}

void check_receipt(std::span<const std::byte> bytes) {
  const auto receipt = decode_receipt(text_of(bytes));
  if (!receipt) return;
  const std::string once = encode_receipt(*receipt);
  const auto again = decode_receipt(once);
  HOLDS(again && encode_receipt(*again) == once);
  HOLDS(once.size() == bytes.size());
}

void check_path(std::span<const std::byte> bytes) {
  const std::string_view text = text_of(bytes);
  if (const Status name = check_extent_name(text)) {
    HOLDS(!text.empty() && text.size() <= kMaxExtentNameBytes && text.front() != '.');
    HOLDS(text.find('/') == std::string_view::npos && escaped(text) == text);
  } else {
    check_error(name.error());
    HOLDS(escaped(name.error().message) == name.error().message);
  }
  const auto path = parse_extent_path(text);
  if (!path) return check_error(path.error());
  HOLDS(path->location.to_string() + (path->extent.empty() ? "" : "/" + path->extent) == text ||
        text.back() == '/');
}

void check_endpoint(std::span<const std::byte> bytes) {
  const auto endpoint = parse_endpoint(text_of(bytes));
  if (!endpoint) return check_error(endpoint.error());
  const auto again = parse_endpoint(endpoint->to_string());
  HOLDS(again && *again == *endpoint);
}

void check_text(std::span<const std::byte> bytes) {
  const std::string_view text = text_of(bytes);
  for (const std::string& line : {escaped(text), escaped_lines(text)}) {
    HOLDS(is_utf8(line));
    HOLDS(line.size() <= 4 * text.size());
    for (const char c : line) {
      HOLDS((static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) || c == '\n');
    }
  }
  HOLDS(escaped(text).find('\n') == std::string::npos);
  HOLDS(escaped(escaped(text)) == escaped(text));
  (void)parse_bytes(text);
  PrivateId id;
  if (from_hex(text, id.bytes)) HOLDS(to_hex(id).size() == text.size());
}

using Check = void (*)(std::span<const std::byte>);
constexpr std::array<Check, 9> kChecks = {check_record<exchange::Hello>,
                                          check_grant,
                                          check_record<exchange::OperationRequest>,
                                          check_record<exchange::OperationReply>,
                                          check_receipt,
                                          check_path,
                                          check_endpoint,
                                          check_text,
                                          check_record<exchange::ProbeRequest>};

}  // namespace

void run(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto check = kChecks.at(input.number<std::uint8_t>() % kChecks.size());
  check(input.rest());
}

std::vector<Bytes> seeds() {
  std::vector<Bytes> out;
  const auto add = [&out](std::uint8_t check, std::span<const std::byte> bytes) {
    out.push_back(SeedWriter().number(check).bytes(bytes).take());
  };
  const auto add_record = [&add]<typename Record>(std::uint8_t check, const Record& record) {
    std::array<std::byte, Record::kEncodedBytes> bytes;
    record.encode(bytes);
    add(check, bytes);
  };
  add_record(0, exchange::Hello{});
  exchange::GrantRequest grant;
  grant.ttl_seconds = 60;
  grant.namespace_bytes = 2;
  add_record(1, grant);
  add_record(2, exchange::OperationRequest{});
  add_record(3, exchange::OperationReply{4096});
  add_record(8, exchange::ProbeRequest{});
  Receipt receipt;
  receipt.transfer_id = std::string(32, 'a');
  receipt.source = {"p1", "n", 4};
  receipt.target_device = "osd.3";
  const auto text = [&add](std::uint8_t check, std::string_view words) {
    add(check, std::as_bytes(std::span(words)));
  };
  text(4, encode_receipt(receipt));
  for (const char* path : {"pool/extent", "pool/ns/extent", "pool", "pool/", "/x", ".x"}) {
    text(5, path);
  }
  for (const char* endpoint : {"127.0.0.1:7400", "[::1]:7400", "0.0.0.0:0", "[fe80::1%lo]:1"}) {
    text(6, endpoint);
  }
  for (const char* words : {"a\x1b[31mred", "5.5 GiB", "\xe2\x80\xae turned", "\xff\xfe",
                            "\xc3\xa9", "00112233445566778899aabbccddeeff"}) {
    text(7, words);
  }
  return out;
}

}  // namespace siphon::fuzz
