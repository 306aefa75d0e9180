// Addresses, and what a Socket says when its peer is slow, silent or gone.

#include "plugin/stream/socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <future>
#include <map>
#include <string>
#include <vector>

namespace siphon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Pair {
  Pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a = Socket(fds[0]);
    b = Socket(fds[1]);
  }
  Socket a, b;
};

std::vector<std::byte> bytes_of(std::size_t size) { return std::vector<std::byte>(size); }

TEST(Endpoint, Parses) {
  EXPECT_EQ(parse_endpoint("127.0.0.1:7400")->to_string(), "127.0.0.1:7400");
  EXPECT_EQ(parse_endpoint("[::1]:7400")->to_string(), "[::1]:7400");
  EXPECT_EQ(parse_endpoint("[0:0:0:0:0:0:0:1]:1")->address, "::1");
  EXPECT_EQ(parse_endpoint("10.1.2.3:65535")->port, 65535);
  for (const char* bad : {"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
                          "localhost:80", "::1:80", "[127.0.0.1]:80", "[::1]", "[]:80", "1.2.3:4",
                          "127.0.0.1:80x", " 127.0.0.1:80"}) {
    EXPECT_FALSE(parse_endpoint(bad)) << bad;
  }
}

TEST(Endpoint, AnAddressHasOneSpelling) {
  const std::map<std::string, std::string> spellings{
      {"127.0.0.1", "127.0.0.1"},
      {"::ffff:127.0.0.1", "127.0.0.1"},
      {"[::ffff:127.0.0.1]", "127.0.0.1"},
      {"::FFFF:7f00:1", "127.0.0.1"},
      {"0:0:0:0:0:ffff:10.0.0.1", "10.0.0.1"},
      {"[::1]", "::1"},
      {"::1", "::1"},
      {"[0:0:0:0:0:0:0:1]", "::1"},
      {"2001:DB8::0001", "2001:db8::1"},
  };
  for (const auto& [text, address] : spellings) {
    auto parsed = parse_address(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, address) << text;
    const bool v6 = text.find(':') != std::string::npos && text.front() != '[';
    auto endpoint = parse_endpoint((v6 ? "[" + text + "]" : text) + ":7400");
    ASSERT_TRUE(endpoint) << text;
    EXPECT_EQ(endpoint->address, address) << text;
  }
  // However it is written, it is one: refused wherever wildcards are.
  for (const char* text :
       {"0.0.0.0", "::", "[::]", "::0", "0:0:0:0:0:0:0:0", "[0::0]", "::0.0.0.0", "::ffff:0.0.0.0",
        "[::ffff:0.0.0.0]", "::ffff:0:0", "[0:0:0:0:0:FFFF:0.0.0.0]"}) {
    auto parsed = parse_address(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_TRUE(is_wildcard(*parsed)) << text;
  }
  for (const char* zone : {"fe80::1%eth0", "[fe80::1%eth0]", "fe80::1%2", "::%eth0", "[::%lo]",
                           "::1%lo", "::ffff:0.0.0.0%eth0"}) {
    auto parsed = parse_address(zone);
    ASSERT_FALSE(parsed) << zone;
    EXPECT_NE(parsed.error().message.find("has a zone (%"), std::string::npos)
        << parsed.error().message;
  }
  for (const char* bad : {"", "[]", "[", "0", "00.0.0.0", "0x0.0.0.0", "0.0.0", "*", "localhost",
                          "[127.0.0.1]", ":::", "[[::1]]", "::ffff:0.0.0", " ::"}) {
    EXPECT_FALSE(parse_address(bad)) << bad;
  }
}

TEST(Endpoint, LoopbackAndWildcard) {
  for (const char* text : {"127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"}) {
    EXPECT_TRUE(is_loopback(text)) << text;
  }
  for (const char* text : {"10.0.0.1", "::", "0.0.0.0", "::ffff:10.0.0.1", "localhost", ""}) {
    EXPECT_FALSE(is_loopback(text)) << text;
  }
  for (const char* text : {"0.0.0.0", "::", "::ffff:0.0.0.0"}) {
    EXPECT_TRUE(is_wildcard(text)) << text;
  }
  for (const char* text : {"127.0.0.1", "::1", "nonsense"}) EXPECT_FALSE(is_wildcard(text)) << text;
}

TEST(Socket, SendsAndReceivesSeveralSpansAtOnce) {
  Pair pair;
  auto big = bytes_of(3 << 20);
  for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<std::byte>(i * 31);
  const std::array<std::byte, 3> head{std::byte{1}, std::byte{2}, std::byte{3}};
  auto sent = std::async(std::launch::async, [&] {
    return pair.a.send_all({head, big, head}, deadline_in(seconds(5)));
  });
  auto got = bytes_of(big.size());
  std::array<std::byte, 3> h, t;
  EXPECT_TRUE(pair.b.recv_all({h, got, t}, deadline_in(seconds(5))));
  EXPECT_TRUE(sent.get());
  EXPECT_EQ(h, head);
  EXPECT_EQ(t, head);
  EXPECT_TRUE(got == big);
  EXPECT_EQ(pair.a.sent_bytes(), big.size() + 6);
  EXPECT_EQ(pair.b.received_bytes(), big.size() + 6);
}

TEST(Socket, EndOfFileBeforeAndInTheMiddle) {
  Pair pair;
  const auto one = bytes_of(1);
  ASSERT_TRUE(pair.a.send_all({one}, deadline_in(seconds(1))));
  pair.a.close();
  auto two = bytes_of(2);
  EXPECT_EQ(pair.b.recv_all({two}, deadline_in(seconds(1))).error().code, Code::kUnavailable);
  EXPECT_EQ(pair.b.recv_all({two}, deadline_in(seconds(1))).error().code, Code::kOutOfRange);
  EXPECT_EQ(pair.b.send_all({two}, deadline_in(seconds(1))).error().code, Code::kUnavailable);
}

TEST(Socket, DeadlinesHoldBothWays) {
  Pair pair;
  auto bytes = bytes_of(8 << 20);
  EXPECT_EQ(pair.b.recv_all({bytes}, deadline_in(milliseconds(20))).error().code,
            Code::kDeadlineExceeded);
  EXPECT_EQ(pair.a.send_all({bytes}, deadline_in(milliseconds(20))).error().code,
            Code::kDeadlineExceeded);
}

TEST(Socket, ShutdownFromAnotherThreadIsACancel) {
  Pair pair;
  auto bytes = bytes_of(8 << 20);
  auto receive = std::async(std::launch::async,
                            [&] { return pair.a.recv_all({bytes}, deadline_in(seconds(20))); });
  pair.a.shutdown();
  ASSERT_EQ(receive.wait_for(seconds(2)), std::future_status::ready);
  EXPECT_EQ(receive.get().error().code, Code::kCancelled);
  EXPECT_EQ(pair.a.send_all({bytes}, deadline_in(seconds(1))).error().code, Code::kCancelled);
}

TEST(Socket, ATricklingPeerBreaksThePace) {
  Pair pair;
  MinimumRateMeter meter(MinimumRate{milliseconds(150), 1 << 20});
  const auto start = Deadline::clock::now();
  auto trickle = std::async(std::launch::async, [&] {
    const auto one = bytes_of(1);
    // One byte per 20 ms, until the other end gives up.
    std::promise<void> never;
    auto pause = never.get_future();
    while (pair.a.send_all({one}, deadline_in(seconds(1)))) pause.wait_for(milliseconds(20));
  });
  auto bytes = bytes_of(4096);
  Status status = pair.b.recv_all({bytes}, deadline_in(seconds(20)), &meter);
  EXPECT_EQ(status.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(status.error().message.find("slow"), std::string::npos) << status.error().message;
  EXPECT_LT(Deadline::clock::now() - start, seconds(3));
  pair.b.close();
}

TEST(MinimumRateMeter, JudgesWindowByWindow) {
  MinimumRateMeter meter(MinimumRate{milliseconds(1000), 100});
  const Deadline t0 = Deadline::clock::now();
  meter.restart(t0);
  EXPECT_TRUE(meter.check(t0 + milliseconds(999)));
  meter.add(100);
  EXPECT_TRUE(meter.check(t0 + milliseconds(1000)));  // a new window begins
  meter.add(50);
  EXPECT_TRUE(meter.check(t0 + milliseconds(1500)));
  EXPECT_FALSE(meter.check(t0 + milliseconds(2000)));
  meter.restart(t0 + milliseconds(5000));
  EXPECT_TRUE(meter.check(t0 + milliseconds(5999)));
  EXPECT_NE(meter.check(t0 + milliseconds(6000)).error().message.find("silent"), std::string::npos);
}

TEST(Socket, ConnectCanBeWoken) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  ASSERT_EQ(::write(pipe_fds[1], "x", 1), 1);
  auto socket = Socket::connect({"127.0.0.1", 9}, deadline_in(seconds(5)), pipe_fds[0]);
  EXPECT_FALSE(socket);
  ::close(pipe_fds[0]);
  ::close(pipe_fds[1]);
  EXPECT_EQ(Socket::connect({"localhost", 9}, deadline_in(seconds(1))).error().code,
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace siphon
