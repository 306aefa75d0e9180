// The ticket's proof, and what unproven peers at the data port can and cannot do.

#include "plugin/stream/listener.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "plugin/stream/handshake.h"
#include "tests/support/test_random.h"

namespace siphon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Bytes = std::vector<std::byte>;

Sha256 binding_of(int value) {
  Sha256 out{};
  out[0] = static_cast<std::byte>(value);
  return out;
}

// Both ends of a handshake over a socket pair, with everything that passed recorded.
struct Recording {
  Bytes hello, challenge, proof;
  TicketChecker::Step last = TicketChecker::Step::kNeedMore;
  std::string why;
  Status source;
};

Recording handshake(const Ticket& source_ticket, const Ticket& target_ticket,
                    std::uint16_t lane = 0, std::uint16_t lanes = 1) {
  int fds[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  Socket source(fds[0]), target(fds[1]);
  auto proving = std::async(std::launch::async, [&] {
    Status status = prove_ticket(source, source_ticket, lane, deadline_in(seconds(5)));
    if (!status) source.close();
    return status;
  });
  Recording out;
  TicketChecker checker(target_ticket, lanes);
  const auto step = [&](Bytes& bytes) {
    bytes.resize(checker.wanted_bytes());
    if (!target.recv_all({bytes}, deadline_in(seconds(5)))) return TicketChecker::Step::kRefused;
    return checker.feed(bytes);
  };
  out.last = step(out.hello);
  if (out.last == TicketChecker::Step::kSend) {
    out.challenge.assign(checker.reply().begin(), checker.reply().end());
    EXPECT_TRUE(target.send_all({out.challenge}, deadline_in(seconds(5))));
    out.last = step(out.proof);
  }
  target.close();
  out.why = checker.why();
  out.source = proving.get();
  return out;
}

TEST(Handshake, BothEndsAgree) {
  const Ticket ticket = Ticket::make(binding_of(1));
  Recording r = handshake(ticket, ticket, 2, 3);
  EXPECT_EQ(r.last, TicketChecker::Step::kAccepted);
  EXPECT_TRUE(r.source);
  EXPECT_EQ(r.hello.size(), kHelloBytes);
  EXPECT_EQ(r.challenge.size(), kChallengeBytes);
  EXPECT_EQ(r.proof.size(), kProofBytes);
}

TEST(Handshake, AnotherTicketGetsNoAnswer) {
  const Ticket ticket = Ticket::make(binding_of(1));
  Recording r = handshake(Ticket::make(binding_of(1)), ticket);
  EXPECT_EQ(r.last, TicketChecker::Step::kRefused);
  EXPECT_TRUE(r.challenge.empty());
  EXPECT_EQ(r.source.error().code, Code::kUnauthenticated);
}

TEST(Handshake, AWrongKeyOrBindingIsNoticedByTheSource) {
  const Ticket ticket = Ticket::make(binding_of(1));
  Ticket other_key = ticket.clone();
  other_key.key = Secret::random(32);
  Ticket other_binding = ticket.clone();
  other_binding.binding = binding_of(2);
  for (const Ticket* wrong : {&other_key, &other_binding}) {
    Recording r = handshake(*wrong, ticket);
    EXPECT_EQ(r.source.error().code, Code::kUnauthenticated);
    EXPECT_EQ(r.last, TicketChecker::Step::kRefused);  // it never sent its proof
  }
}

TEST(Handshake, AReplayOfRecordedBytesIsRefused) {
  const Ticket ticket = Ticket::make(binding_of(1));
  const Recording r = handshake(ticket, ticket);
  TicketChecker checker(ticket, 1);
  ASSERT_EQ(checker.feed(r.hello), TicketChecker::Step::kSend);  // a fresh nonce goes out
  EXPECT_EQ(checker.feed(r.proof), TicketChecker::Step::kRefused);
  // Nor can the target's own proof be reflected.
  TicketChecker again(ticket, 1);
  ASSERT_EQ(again.feed(r.hello), TicketChecker::Step::kSend);
  const Bytes reflected(again.reply().end() - kProofBytes, again.reply().end());
  EXPECT_EQ(again.feed(reflected), TicketChecker::Step::kRefused);
}

TEST(Handshake, EveryFlippedBitOfHelloAndProofIsRefused) {
  const Ticket ticket = Ticket::make(binding_of(1));
  const Recording r = handshake(ticket, ticket);
  for (std::size_t bit = 0; bit < kHelloBytes * 8; ++bit) {
    Bytes hello = r.hello;
    hello[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    TicketChecker checker(ticket, 1);
    // A changed nonce is as good as another one, but the proof that was made for this does not fit.
    if (checker.feed(hello) == TicketChecker::Step::kSend) {
      EXPECT_EQ(checker.feed(r.proof), TicketChecker::Step::kRefused);
      EXPECT_TRUE(bit / 8 >= 24 && bit / 8 < 56) << bit;
    }
  }
}

TEST(Handshake, PiecesAndExcess) {
  const Ticket ticket = Ticket::make(binding_of(1));
  const Recording r = handshake(ticket, ticket);
  TicketChecker slow(ticket, 1);
  for (std::size_t i = 0; i + 1 < kHelloBytes; ++i) {
    ASSERT_EQ(slow.wanted_bytes(), kHelloBytes - i);
    ASSERT_EQ(slow.feed(std::span(r.hello).subspan(i, 1)), TicketChecker::Step::kNeedMore);
  }
  EXPECT_EQ(slow.feed(std::span(r.hello).last(1)), TicketChecker::Step::kSend);
  TicketChecker checker(ticket, 1);
  Bytes more = r.hello;
  more.push_back(std::byte{0});
  EXPECT_EQ(checker.feed(more), TicketChecker::Step::kRefused);
  EXPECT_EQ(checker.wanted_bytes(), 0u);
  EXPECT_EQ(checker.feed(r.hello), TicketChecker::Step::kRefused);
}

TEST(Handshake, ALaneBeyondTheOrderIsRefused) {
  const Ticket ticket = Ticket::make(binding_of(1));
  EXPECT_EQ(handshake(ticket, ticket, 2, 2).last, TicketChecker::Step::kRefused);
}

// ---- the port ----------------------------------------------------------------------------------

class ListenerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = Listener::open("127.0.0.1", {});
    ASSERT_TRUE(opened) << opened.error().message;
    listener_.emplace(std::move(*opened));
  }
  void accept(std::uint16_t lanes, milliseconds within = seconds(10)) {
    accepted_ = std::async(std::launch::async, [this, lanes, within] {
      return listener_->accept_lanes(ticket_, lanes, deadline_in(within));
    });
  }
  Socket knock() {
    auto socket = Socket::connect(listener_->endpoint(), deadline_in(seconds(5)));
    EXPECT_TRUE(socket);
    return socket ? std::move(*socket) : Socket();
  }
  // True when the port's owner has hung up without a word.
  static bool hung_up(Socket& socket) {
    std::byte byte;
    Status got = socket.recv_all({std::span(&byte, 1)}, deadline_in(seconds(5)));
    return !got &&
           (got.error().code == Code::kOutOfRange || got.error().code == Code::kUnavailable);
  }
  Status prove(Socket& socket, std::uint16_t lane) {
    return prove_ticket(socket, ticket_, lane, deadline_in(seconds(5)));
  }

  Ticket ticket_ = Ticket::make(binding_of(7));
  std::optional<Listener> listener_;
  std::future<Result<std::vector<Socket>>> accepted_;
};

TEST_F(ListenerTest, LanesComeInAnyOrderAndThePortCloses) {
  accept(3);
  Socket c = knock(), a = knock(), b = knock();
  EXPECT_TRUE(prove(c, 2));
  EXPECT_TRUE(prove(a, 0));
  EXPECT_TRUE(prove(b, 1));
  auto lanes = accepted_.get();
  ASSERT_TRUE(lanes);
  ASSERT_EQ(lanes->size(), 3u);
  EXPECT_EQ((*lanes)[0].peer()->port, a.local()->port);
  EXPECT_EQ((*lanes)[1].peer()->port, b.local()->port);
  EXPECT_EQ((*lanes)[2].peer()->port, c.local()->port);
  EXPECT_EQ(listener_->rejected_connections(), 0u);
  auto late = Socket::connect(listener_->endpoint(), deadline_in(seconds(2)));
  EXPECT_FALSE(late);
}

TEST_F(ListenerTest, AnUnprovenPeerFirstDoesNoHarm) {
  accept(1);
  Socket unproven = knock();
  const Bytes request(kHelloBytes, std::byte{'G'});
  ASSERT_TRUE(unproven.send_all({request}, deadline_in(seconds(1))));
  EXPECT_TRUE(hung_up(unproven));
  Socket source = knock();
  EXPECT_TRUE(prove(source, 0));
  EXPECT_TRUE(accepted_.get());
  EXPECT_EQ(listener_->rejected_connections(), 1u);
}

TEST_F(ListenerTest, ASecondSourceForTheSameLaneIsRefused) {
  accept(2);
  Socket first = knock();
  ASSERT_TRUE(prove(first, 0));
  Socket second = knock();
  // The proof is right, so the refusal shows as a connection that ends.
  EXPECT_TRUE(!prove(second, 0) || hung_up(second));
  Socket other = knock();
  EXPECT_TRUE(prove(other, 1));
  auto lanes = accepted_.get();
  ASSERT_TRUE(lanes);
  EXPECT_EQ((*lanes)[0].peer()->port, first.local()->port);
  EXPECT_EQ(listener_->rejected_connections(), 1u);
}

TEST_F(ListenerTest, SilentUnprovenPeersDoNotUseUpTheSlot) {
  accept(1);
  std::vector<Socket> silent;
  for (int i = 0; i < 10; ++i) silent.push_back(knock());
  EXPECT_TRUE(hung_up(silent[0]));  // the tenth pushed the oldest out
  EXPECT_EQ(listener_->rejected_connections(), 1u);
  Socket source = knock();
  EXPECT_TRUE(prove(source, 0));
  EXPECT_TRUE(accepted_.get());
  EXPECT_EQ(listener_->rejected_connections(), 10u);  // the rest went when the lane was in
}

// Every lane of a transfer has a place of its own, and none is taken for an unproven peer.
TEST_F(ListenerTest, SixteenLanesAtOnceDoNotPushEachOtherOut) {
  accept(16);
  std::vector<Socket> lanes;
  for (int i = 0; i < 16; ++i) lanes.push_back(knock());
  for (std::uint16_t i = 0; i < 16; ++i) EXPECT_TRUE(prove(lanes[i], i)) << i;
  auto accepted = accepted_.get();
  ASSERT_TRUE(accepted) << accepted.error().message;
  EXPECT_EQ(listener_->rejected_connections(), 0u);
}

// A source between its greeting and its proof, with its bytes carried by hand.
class HeldSource {
 public:
  explicit HeldSource(const Ticket& ticket) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    mine_ = Socket(fds[0]);
    proving_ = std::async(std::launch::async, [&ticket, theirs = std::make_shared<Socket>(fds[1])] {
      return prove_ticket(*theirs, ticket, 0, deadline_in(seconds(5)));
    });
  }
  void carry(Socket& from, Socket& to, std::size_t bytes) {
    Bytes message(bytes);
    ASSERT_TRUE(from.recv_all({message}, deadline_in(seconds(5))));
    ASSERT_TRUE(to.send_all({message}, deadline_in(seconds(5))));
  }
  void greet(Socket& port) { carry(mine_, port, kHelloBytes); }
  void prove(Socket& port) {
    carry(port, mine_, kChallengeBytes);
    EXPECT_TRUE(proving_.get());
    carry(mine_, port, kProofBytes);
  }

 private:
  Socket mine_;
  std::future<Status> proving_;
};

TEST_F(ListenerTest, WhoHasShownTheTicketIsNotPushedOutByUnprovenPeers) {
  accept(1);
  HeldSource source(ticket_);
  Socket port = knock();
  source.greet(port);
  pollfd challenge{port.fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&challenge, 1, 5000), 1);
  std::vector<Socket> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(knock());
  EXPECT_TRUE(hung_up(silent[0]));  // so there were too many
  source.prove(port);
  auto lanes = accepted_.get();
  ASSERT_TRUE(lanes) << lanes.error().message;
  EXPECT_GE(listener_->rejected_connections(), 1u);  // the last ones may still stand in line
  EXPECT_LE(listener_->rejected_connections(), 40u);
}

// Nor do they gather without end: who repeats another's greeting has no proof.
TEST_F(ListenerTest, ThoseWhoOnlyRepeatAGreetingAreBoundedToo) {
  accept(1);
  const Bytes greeting = handshake(ticket_, ticket_).hello;
  std::vector<Socket> parrots;
  for (int i = 0; i < 12; ++i) {
    parrots.push_back(knock());
    ASSERT_TRUE(parrots.back().send_all({greeting}, deadline_in(seconds(5))));
    Bytes challenge(kChallengeBytes);
    ASSERT_TRUE(parrots.back().recv_all({challenge}, deadline_in(seconds(5)))) << i;
  }
  EXPECT_TRUE(hung_up(parrots[0]));
  Socket source = knock();
  EXPECT_TRUE(prove(source, 0));
  EXPECT_TRUE(accepted_.get());
}

TEST_F(ListenerTest, WhoIsPushedOutIsResetAndAWrongTicketSeesAPlainEnd) {
  accept(1);
  std::vector<Socket> silent;
  for (int i = 0; i < 10; ++i) silent.push_back(knock());
  std::byte byte;
  EXPECT_EQ(silent[0].recv_all({std::span(&byte, 1)}, deadline_in(seconds(5))).error().code,
            Code::kUnavailable);
  Socket wrong = knock();
  EXPECT_EQ(
      prove_ticket(wrong, Ticket::make(binding_of(7)), 0, deadline_in(seconds(5))).error().code,
      Code::kUnauthenticated);
  listener_->cancel();
}

TEST_F(ListenerTest, TheDeadlineCanBeBroughtForward) {
  accept(1, std::chrono::hours(1));
  Socket first = knock();  // it accepts by now, or will find the deadline there
  listener_->expect_by(deadline_in(milliseconds(1)));
  EXPECT_EQ(accepted_.get().error().code, Code::kDeadlineExceeded);
}

TEST_F(ListenerTest, ASilentUnprovenPeerIsGoneAfterTwoSeconds) {
  accept(1, seconds(10));
  Socket silent = knock();
  const auto start = Deadline::clock::now();
  EXPECT_TRUE(hung_up(silent));
  EXPECT_LT(Deadline::clock::now() - start, seconds(4));
  listener_->cancel();
  EXPECT_EQ(accepted_.get().error().code, Code::kCancelled);
}

TEST_F(ListenerTest, AnOversizedHelloIsCutOffAtItsEnd) {
  accept(1);
  Socket unproven = knock();
  const Bytes flood(1 << 20, std::byte{'x'});
  // It may or may not be possible to send all of that before the other end hangs up.
  (void)unproven.send_all({flood}, deadline_in(seconds(5)));
  EXPECT_TRUE(hung_up(unproven));
  Socket source = knock();
  EXPECT_TRUE(prove(source, 0));
  EXPECT_TRUE(accepted_.get());
}

TEST_F(ListenerTest, NobodyComes) {
  accept(2, milliseconds(100));
  Socket source = knock();
  EXPECT_TRUE(prove(source, 1));
  auto lanes = accepted_.get();
  ASSERT_FALSE(lanes);
  EXPECT_EQ(lanes.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(lanes.error().message.find("1 of 2"), std::string::npos) << lanes.error().message;
  EXPECT_FALSE(Socket::connect(listener_->endpoint(), deadline_in(seconds(2))));
}

TEST_F(ListenerTest, CancelBeforeAndDuring) {
  accept(1);
  listener_->cancel();
  ASSERT_EQ(accepted_.wait_for(seconds(2)), std::future_status::ready);
  EXPECT_EQ(accepted_.get().error().code, Code::kCancelled);

  auto early = Listener::open("127.0.0.1", {});
  ASSERT_TRUE(early);
  early->cancel();
  EXPECT_EQ(early->accept_lanes(ticket_, 1, deadline_in(seconds(5))).error().code,
            Code::kCancelled);
}

TEST_F(ListenerTest, OutOfDescriptorsIsWaitedOutWithoutSpinning) {
  Socket source = knock();  // in the backlog: accept will find no descriptor for it
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int lowest_free = ::dup(source.fd());
  ::close(lowest_free);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(lowest_free);
  // Everything is started before the limit falls: sanitizers need descriptors now and then.
  Status proven;
  std::thread proving([&] { proven = prove(source, 0); });
  std::thread relief([&] {
    ::poll(nullptr, 0, 300);
    ::setrlimit(RLIMIT_NOFILE, &before);
  });
  timespec cpu_start{}, cpu_end{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_start);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  auto lanes = listener_->accept_lanes(ticket_, 1, deadline_in(seconds(10)));
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_end);
  relief.join();
  proving.join();
  EXPECT_TRUE(lanes);
  EXPECT_TRUE(proven);
  const auto ms = [](timespec t) { return t.tv_sec * 1000 + t.tv_nsec / 1'000'000; };
  EXPECT_LT(ms(cpu_end) - ms(cpu_start), 100);
}

TEST(PortRange, Parses) {
  EXPECT_EQ(parse_port_range("7500-7599")->last, 7599);
  EXPECT_EQ(parse_port_range("7500")->first, 7500);
  EXPECT_EQ(parse_port_range("7500")->last, 7500);
  EXPECT_EQ(parse_port_range("0")->last, 0);
  for (const char* bad : {"", "-", "7599-7500", "0-10", "1-65536", "a", "1-2-3", "1-", "-1"}) {
    EXPECT_FALSE(parse_port_range(bad)) << bad;
  }
}

TEST(ListenerOpen, FindsAFreePortOrSaysThereIsNone) {
  auto first = Listener::open("127.0.0.1", {});
  ASSERT_TRUE(first);
  const std::uint16_t port = first->endpoint().port;
  auto taken = Listener::open("127.0.0.1", {port, port});
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, Code::kResourceExhausted);
  EXPECT_EQ(Listener::open("192.0.2.1", {}).error().code, Code::kFailedPrecondition);
  EXPECT_EQ(Listener::open("localhost", {}).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace siphon
