#include "plugin/rpc/grant_proof.h"

#include <arpa/inet.h>

#include <initializer_list>
#include <vector>

#include "plugin/exchange/le.h"
#include "plugin/stream/socket.h"

namespace siphon::rpc {

namespace {

// Every field behind its length: no two lists of fields have the same image.
Sha256 hmac_of(std::span<const std::byte> key,
               std::initializer_list<std::span<const std::byte>> fields) {
  std::size_t size = 0;
  for (const auto field : fields) size += 4 + field.size();
  std::vector<std::byte> message(size);
  LeWriter w(message);
  for (const auto field : fields) {
    w.put(static_cast<std::uint32_t>(field.size()));
    w.put_bytes(field);
  }
  return hmac_sha256(key, message);
}

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// One spelling for each address: an IPv6 one has several.
std::string canonical(const std::string& endpoint) {
  auto parsed = parse_endpoint(endpoint);
  if (!parsed) return endpoint;
  for (const int family : {AF_INET, AF_INET6}) {
    std::array<unsigned char, 16> binary{};
    char text[INET6_ADDRSTRLEN] = "";
    if (inet_pton(family, parsed->address.c_str(), binary.data()) == 1 &&
        inet_ntop(family, binary.data(), text, sizeof text) != nullptr) {
      parsed->address = text;
    }
  }
  return parsed->to_string();
}

}  // namespace

Sha256 source_key(std::span<const std::byte> nonce, const std::string& transfer_id,
                  const Location& source) {
  return hmac_of(nonce, {bytes("siphon.v1 stream"), bytes(transfer_id), bytes(source.pool),
                         bytes(source.nspace)});
}

Sha256 device_proof(std::span<const std::byte> key, const std::string& endpoint,
                    std::span<const std::byte> nonce) {
  return hmac_of(key, {bytes("siphon.v1 device"), bytes(canonical(endpoint)), nonce});
}

Sha256 call_proof(std::span<const std::byte> key, const std::string& method,
                  const std::string& endpoint, std::span<const std::byte> call_nonce,
                  const std::string& request) {
  const Sha256 digest = sha256(bytes(request));
  return hmac_of(key, {bytes("siphon.v1 call"), bytes(method), bytes(canonical(endpoint)),
                       call_nonce, digest});
}

}  // namespace siphon::rpc
