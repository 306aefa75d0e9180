#include "plugin/stream/handshake.h"

#include <string.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "plugin/core/le.h"

namespace siphon {
namespace {

constexpr std::uint32_t kHelloMagic = 0x4c485053;  // "SPHL"
constexpr std::uint16_t kHandshakeVersion = 1;
constexpr std::size_t kNonceBytes = 32;
constexpr std::size_t kHelloReservedBytes = 8;

// HMAC(HMAC(key, binding), label | hello | target nonce): each end proves the key for this purpose,
// over both nonces, in its own role.
Sha256 session_mac(const Ticket& ticket, std::string_view label, std::span<const std::byte> hello,
                   std::span<const std::byte> target_nonce) {
  Sha256 session = hmac_sha256(ticket.key.reveal(), ticket.binding);
  std::vector<std::byte> message;
  message.reserve(label.size() + hello.size() + target_nonce.size());
  for (char c : label) message.push_back(static_cast<std::byte>(c));
  message.insert(message.end(), hello.begin(), hello.end());
  message.insert(message.end(), target_nonce.begin(), target_nonce.end());
  const Sha256 mac = hmac_sha256(session, message);
  explicit_bzero(session.data(), session.size());
  return mac;
}

constexpr std::string_view kTargetLabel = "target";
constexpr std::string_view kSourceLabel = "source";

}  // namespace

Ticket Ticket::make(const Sha256& binding) {
  Ticket ticket;
  fill_random(ticket.id);
  ticket.key = Secret::random(32);
  ticket.binding = binding;
  return ticket;
}

Ticket Ticket::clone() const {
  Ticket copy;
  copy.id = id;
  copy.key = key.clone();
  copy.binding = binding;
  return copy;
}

Status prove_ticket(Socket& socket, const Ticket& ticket, std::uint16_t lane, Deadline deadline) {
  std::array<std::byte, kHelloBytes> hello;
  std::array<std::byte, kNonceBytes> nonce;
  fill_random(nonce);
  LeWriter w(hello);
  w.put(kHelloMagic);
  w.put(kHandshakeVersion);
  w.put(lane);
  w.put_bytes(ticket.id);
  w.put_bytes(nonce);
  w.put_zeros(kHelloReservedBytes);
  SIPHON_TRY(socket.send_all({hello}, deadline));

  std::array<std::byte, kChallengeBytes> challenge;
  if (Status got = socket.recv_all({challenge}, deadline); !got) {
    // A target that does not know the ticket closes without a word.
    if (got.error().code == Code::kOutOfRange) {
      return fail(Code::kUnauthenticated, "the target closed the lane at the sight of the ticket",
                  Side::kTarget);
    }
    return got;
  }
  const auto target_nonce = std::span(challenge).first(kNonceBytes);
  const auto target_mac = std::span(challenge).last(sizeof(Sha256));
  if (!equal_constant_time(session_mac(ticket, kTargetLabel, hello, target_nonce), target_mac)) {
    return fail(Code::kUnauthenticated, "whoever answers at the data port does not know the ticket",
                Side::kTarget);
  }
  return socket.send_all({session_mac(ticket, kSourceLabel, hello, target_nonce)}, deadline);
}

TicketChecker::TicketChecker(const Ticket& ticket, std::uint16_t lane_count)
    : ticket_(ticket), lane_count_(lane_count) {}

std::size_t TicketChecker::wanted_bytes() const {
  switch (state_) {
    case State::kHello:
      return kHelloBytes - got_;
    case State::kProof:
      return kProofBytes - got_;
    case State::kDone:
      break;
  }
  return 0;
}

TicketChecker::Step TicketChecker::feed(std::span<const std::byte> bytes) {
  if (state_ == State::kDone) return refuse("the handshake is over");
  if (bytes.size() > wanted_bytes()) return refuse("more bytes than the handshake has");
  std::byte* to = state_ == State::kHello ? hello_.data() : proof_.data();
  std::copy(bytes.begin(), bytes.end(), to + got_);
  got_ += bytes.size();
  if (wanted_bytes() > 0) return Step::kNeedMore;
  got_ = 0;
  return state_ == State::kHello ? check_hello() : check_proof();
}

TicketChecker::Step TicketChecker::check_hello() {
  LeReader r(hello_);
  const auto magic = r.get<std::uint32_t>();
  const auto version = r.get<std::uint16_t>();
  lane_ = r.get<std::uint16_t>();
  std::array<std::byte, 16> id;
  r.get_bytes(id);
  r.skip(kNonceBytes);
  const auto reserved = r.get<std::uint64_t>();
  if (magic != kHelloMagic) return refuse("not a source of ours");
  if (version != kHandshakeVersion) return refuse("another version of the handshake");
  if (!equal_constant_time(id, ticket_.id)) return refuse("an unknown ticket");
  if (reserved != 0) return refuse("reserved bytes that are not zero");
  if (lane_ >= lane_count_) return refuse("a lane that was not asked for");

  const auto nonce = std::span(reply_).first(kNonceBytes);
  fill_random(nonce);
  const Sha256 mac = session_mac(ticket_, kTargetLabel, hello_, nonce);
  std::copy(mac.begin(), mac.end(), reply_.begin() + kNonceBytes);
  state_ = State::kProof;
  return Step::kSend;
}

TicketChecker::Step TicketChecker::check_proof() {
  const auto nonce = std::span(reply_).first(kNonceBytes);
  if (!equal_constant_time(session_mac(ticket_, kSourceLabel, hello_, nonce), proof_)) {
    return refuse("a wrong proof");
  }
  state_ = State::kDone;
  return Step::kAccepted;
}

TicketChecker::Step TicketChecker::refuse(const char* why) {
  state_ = State::kDone;
  why_ = why;
  return Step::kRefused;
}

}  // namespace siphon
