#include "plugin/rpc/call_proof.h"

#include <initializer_list>
#include <vector>

#include "plugin/core/le.h"
#include "plugin/stream/socket.h"

namespace siphon::rpc {

namespace {

using Bytes = std::span<const std::byte>;

Bytes bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

// An address has one spelling; an IPv6 one would have several.
std::string canonical(const std::string& endpoint) {
  auto parsed = parse_endpoint(endpoint);
  return parsed ? parsed->to_string() : endpoint;
}

// Every field behind its length: no two lists of fields have the same image.
std::vector<std::byte> joined(std::initializer_list<Bytes> fields) {
  std::size_t size = 0;
  for (const auto field : fields) size += 4 + field.size();
  std::vector<std::byte> out(size);
  LeWriter w(out);
  for (const auto field : fields) {
    w.put(static_cast<std::uint32_t>(field.size()));
    w.put_bytes(field);
  }
  return out;
}

Sha256 hmac_of(Bytes key, std::initializer_list<Bytes> fields) {
  return hmac_sha256(key, joined(fields));
}

using Encoded = std::array<std::byte, CallProof::kEncodedBytes>;

Encoded image(const CallProof& proof) {
  Encoded out;
  LeWriter w(out);
  w.put_bytes(proof.key_id);
  w.put_bytes(proof.nonce);
  w.put_bytes(proof.device.run_id);
  w.put(proof.device.clock_ms);
  w.put(proof.request_bytes);
  w.put_bytes(proof.request_digest);
  w.put_bytes(proof.hmac);
  return out;
}

Sha256 hmac_of_call(Bytes key, std::string_view method, const std::string& endpoint,
                    const CallProof& proof) {
  const Encoded all = image(proof);
  return hmac_of(key, {bytes("siphon.v1 call"), bytes(method), bytes(canonical(endpoint)),
                       Bytes(all).first(all.size() - proof.hmac.size())});
}

}  // namespace

std::string CallProof::encode() const {
  const Encoded all = image(*this);
  return {reinterpret_cast<const char*>(all.data()), all.size()};
}

std::optional<CallProof> CallProof::decode(std::string_view in) {
  if (in.size() != kEncodedBytes) return std::nullopt;
  LeReader r(bytes(in));
  CallProof out;
  r.get_bytes(out.key_id);
  r.get_bytes(out.nonce);
  r.get_bytes(out.device.run_id);
  out.device.clock_ms = r.get<std::uint64_t>();
  out.request_bytes = r.get<std::uint32_t>();
  r.get_bytes(out.request_digest);
  r.get_bytes(out.hmac);
  return out;
}

CallProof make_call_proof(Bytes key, const KeyId& key_id, std::string_view method,
                          const std::string& endpoint, const DeviceTime& device,
                          std::string_view request) {
  CallProof proof;
  proof.key_id = key_id;
  fill_random(proof.nonce);
  proof.device = device;
  proof.request_bytes = static_cast<std::uint32_t>(request.size());
  proof.request_digest = sha256(bytes(request));
  proof.hmac = hmac_of_call(key, method, endpoint, proof);
  return proof;
}

bool is_proof_of(Bytes key, std::string_view method, const std::string& endpoint,
                 const CallProof& proof) {
  return equal_constant_time(hmac_of_call(key, method, endpoint, proof), proof.hmac);
}

Sha256 device_proof(Bytes key, const std::string& endpoint, Bytes nonce, const DeviceTime& device) {
  std::array<std::byte, 8> clock;
  LeWriter(clock).put(device.clock_ms);
  return hmac_of(
      key, {bytes("siphon.v1 device"), bytes(canonical(endpoint)), nonce, device.run_id, clock});
}

Sha256 masked(Bytes key, Bytes with, std::string_view purpose, Bytes id) {
  Sha256 out = hmac_of(with, {bytes("siphon.v1 mask"), bytes(purpose), id});
  for (std::size_t i = 0; i < out.size() && i < key.size(); ++i) out[i] ^= key[i];
  return out;
}

std::string source_scope(const std::string& transfer_id, const Location& source) {
  const auto all = joined({bytes(transfer_id), bytes(source.pool), bytes(source.nspace)});
  return {reinterpret_cast<const char*>(all.data()), all.size()};
}

Sha256 source_key(Bytes nonce, std::string_view scope) {
  return hmac_of(nonce, {bytes("siphon.v1 stream"), bytes(scope)});
}

}  // namespace siphon::rpc
