// The handshake, both ends: what an unproven peer may send to a data port, and what whoever listens
// there may answer.
//
// Properties: nothing is said before a whole hello with the right ticket id; nobody is accepted
// without the proof; after 96 bytes it is over; the source never sends its proof to one that has
// not shown the ticket. The first byte says which parts are made good.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "plugin/stream/handshake.h"
#include "tests/fuzz/fuzz.h"

namespace siphon::fuzz {
namespace {

constexpr std::uint8_t kGoodId = 1;
constexpr std::uint8_t kGoodProof = 2;
constexpr std::uint8_t kSourceSide = 4;
constexpr std::uint16_t kLanes = 3;
constexpr std::size_t kIdOffset = 8;

Ticket sample_ticket() {
  Ticket ticket;
  ticket.id.fill(std::byte{0x11});
  const std::array<std::byte, 32> key{std::byte{0x22}};
  ticket.key = Secret(key);
  ticket.binding.fill(std::byte{0x33});
  return ticket;
}

Sha256 mac(const Ticket& ticket, std::string_view label, std::span<const std::byte> hello,
           std::span<const std::byte> nonce) {
  Bytes message;
  const auto words = std::as_bytes(std::span(label));
  message.insert(message.end(), words.begin(), words.end());
  message.insert(message.end(), hello.begin(), hello.end());
  message.insert(message.end(), nonce.begin(), nonce.end());
  return hmac_sha256(hmac_sha256(ticket.key.reveal(), ticket.binding), message);
}

void check_target(std::uint8_t flags, Input& input) {
  const Ticket ticket = sample_ticket();
  TicketChecker checker(ticket, kLanes);
  Bytes hello;
  bool was_sent = false;  // our reply has gone out
  std::size_t fed = 0;
  using Step = TicketChecker::Step;
  while (!input.empty()) {
    HOLDS(fed <= kHelloBytes + kProofBytes);
    const std::size_t wanted = checker.wanted_bytes();
    HOLDS(wanted > 0);
    const auto taken = input.bytes(input.number<std::uint8_t>());
    Bytes piece(taken.begin(), taken.end());
    if (!was_sent && (flags & kGoodId) != 0) {
      for (std::size_t i = 0; i < piece.size(); ++i) {
        const std::size_t at = hello.size() + i;
        if (at >= kIdOffset && at < kIdOffset + ticket.id.size()) {
          piece[i] = ticket.id[at - kIdOffset];
        }
      }
    }
    Sha256 proof{};
    if (was_sent) proof = mac(ticket, "source", hello, checker.reply().first(32));
    if (was_sent && (flags & kGoodProof) != 0) piece.assign(proof.begin(), proof.end());
    const Step step = checker.feed(piece);
    fed += piece.size();
    if (!was_sent) hello.insert(hello.end(), piece.begin(), piece.end());
    switch (step) {
      case Step::kNeedMore:
        HOLDS(piece.size() < wanted);
        break;
      case Step::kSend:
        HOLDS(!was_sent && hello.size() == kHelloBytes && checker.lane() < kLanes);
        HOLDS(std::equal(ticket.id.begin(), ticket.id.end(), hello.begin() + kIdOffset));
        HOLDS(checker.reply().size() == kChallengeBytes);
        was_sent = true;
        break;
      case Step::kAccepted:
        HOLDS(was_sent && std::equal(proof.begin(), proof.end(), piece.begin(), piece.end()));
        HOLDS(checker.wanted_bytes() == 0);
        HOLDS(checker.feed(piece) == Step::kRefused);
        return;
      case Step::kRefused:
        HOLDS(checker.wanted_bytes() == 0 && std::strlen(checker.why()) > 0);
        HOLDS((flags & kGoodProof) == 0 || !was_sent);
        HOLDS(checker.feed(piece) == Step::kRefused);
        return;
    }
  }
}

void check_source(std::uint8_t flags, Input& input) {
  int ends[2];
  HOLDS(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  const Ticket ticket = sample_ticket();
  // The answer lies there before the question comes: nothing of it can be right by accident.
  const auto answer = input.bytes(kChallengeBytes);
  HOLDS(answer.empty() || ::send(ends[1], answer.data(), answer.size(), MSG_NOSIGNAL) ==
                              static_cast<ssize_t>(answer.size()));
  HOLDS(::shutdown(ends[1], SHUT_WR) == 0);
  Socket source(ends[0]);
  const Status proven =
      prove_ticket(source, ticket, flags % kLanes, deadline_in(std::chrono::seconds(10)));
  HOLDS(!proven);
  check_error(proven.error());
  HOLDS(proven.error().code != Code::kDeadlineExceeded);
  HOLDS(source.sent_bytes() == kHelloBytes);
  ::close(ends[1]);
}

}  // namespace

void run(std::span<const std::byte> bytes) {
  Input input(bytes);
  const auto flags = input.number<std::uint8_t>();
  return (flags & kSourceSide) != 0 ? check_source(flags, input) : check_target(flags, input);
}

std::vector<Bytes> seeds() {
  // The source's own hello, as it comes out of a socket.
  int ends[2];
  HOLDS(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  std::array<std::byte, kHelloBytes> hello{};
  HOLDS(::shutdown(ends[1], SHUT_WR) == 0);
  {
    Socket source(ends[0]);
    (void)prove_ticket(source, sample_ticket(), 1, deadline_in(std::chrono::seconds(10)));
  }
  HOLDS(::recv(ends[1], hello.data(), hello.size(), MSG_WAITALL) == kHelloBytes);
  ::close(ends[1]);

  const std::array<std::byte, kProofBytes> proof{std::byte{9}};
  const std::array<std::byte, kChallengeBytes> challenge{std::byte{8}};
  std::vector<Bytes> out;
  for (const std::uint8_t flags : {0, 1, 2, 3}) {
    out.push_back(SeedWriter()
                      .number(flags)
                      .number(static_cast<std::uint8_t>(kHelloBytes))
                      .bytes(hello)
                      .number(static_cast<std::uint8_t>(kProofBytes))
                      .bytes(proof)
                      .take());
    out.push_back(SeedWriter()
                      .number(flags)
                      .number(std::uint8_t{10})
                      .bytes(std::span(hello).first(10))
                      .number(std::uint8_t{54})
                      .bytes(std::span(hello).subspan(10))
                      .number(std::uint8_t{7})
                      .bytes(std::span(proof).first(7))
                      .number(std::uint8_t{25})
                      .bytes(std::span(proof).subspan(7))
                      .take());
  }
  out.push_back(SeedWriter().number(kSourceSide).bytes(challenge).take());
  return out;
}

}  // namespace siphon::fuzz
