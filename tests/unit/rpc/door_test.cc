#include "plugin/rpc/door.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <list>
#include <mutex>
#include <string>
#include <vector>

namespace siphon::rpc {
namespace {

// A caller's end of a connection.
class Client {
 public:
  explicit Client(const Endpoint& to) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(to.port);
    inet_pton(AF_INET, to.address.c_str(), &address.sin_addr);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  Client(Client&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Client& operator=(Client&&) = delete;
  ~Client() {
    if (fd_ >= 0) ::close(fd_);
  }
  Endpoint endpoint() const {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    return {"127.0.0.1", ntohs(address.sin_port)};
  }
  void say(std::size_t bytes) const {
    const std::string text(bytes, 'x');
    (void)!::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  bool closed_within(int ms) const {
    pollfd wait{fd_, POLLIN, 0};
    char byte = 0;
    return ::poll(&wait, 1, ms) == 1 && ::recv(fd_, &byte, 1, 0) <= 0;
  }

 private:
  int fd_;
};

class DoorTest : public ::testing::Test {
 protected:
  DoorTest() {
    auto door = Door::open("127.0.0.1", {0, 0});
    EXPECT_TRUE(door);
    door_ = std::move(*door);
    door_->serve(
        [this](int fd) {
          const std::lock_guard lock(mutex_);
          inside_.push_back(fd);
        },
        [this] { return is_behind_.load(); });
  }
  ~DoorTest() override {
    door_->close();
    for (const int fd : inside_) ::close(fd);
  }
  // Whoever has the connections reads them.
  void read_all() {
    const std::lock_guard lock(mutex_);
    std::array<char, 4096> bytes;
    for (const int fd : inside_) {
      while (::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
      }
    }
  }
  void wait_for_unproven(std::size_t count) const {
    const Deadline until = deadline_in(std::chrono::seconds(20));
    while (door_->unproven() != count && std::chrono::steady_clock::now() < until) ::poll({}, 0, 5);
    ASSERT_EQ(door_->unproven(), count);
  }

  std::mutex mutex_;
  std::vector<int> inside_;
  std::atomic<bool> is_behind_ = false;
  std::unique_ptr<Door> door_;
};

constexpr int kLongMs = 20000, kShortMs = 100;

TEST_F(DoorTest, WhoWasRefusedMakesRoomForTheNextThenTheOldestThatIsSilent) {
  std::vector<Client> clients;
  for (std::size_t i = 0; i < Door::kMostUnproven; ++i) clients.emplace_back(door_->endpoint());
  wait_for_unproven(Door::kMostUnproven);
  door_->was_refused(clients[3].endpoint());
  EXPECT_FALSE(clients[3].closed_within(kShortMs));
  clients.emplace_back(door_->endpoint());
  EXPECT_TRUE(clients[3].closed_within(kLongMs));
  EXPECT_FALSE(clients[0].closed_within(kShortMs));
  clients.emplace_back(door_->endpoint());
  EXPECT_TRUE(clients[0].closed_within(kLongMs));
  EXPECT_FALSE(clients[1].closed_within(kShortMs));
}

TEST_F(DoorTest, WhoSaysTooMuchWithoutAuthorityIsClosedAndAKnownCallerIsNot) {
  const Client unproven(door_->endpoint()), known(door_->endpoint());
  wait_for_unproven(2);
  EXPECT_TRUE(door_->now_known(known.endpoint(), {{"key"}}));
  wait_for_unproven(1);
  for (int i = 0; i < 40; ++i) {
    unproven.say(Door::kMostBytes / 20);
    known.say(Door::kMostBytes / 20);
    read_all();
  }
  EXPECT_TRUE(unproven.closed_within(kLongMs));
  EXPECT_FALSE(known.closed_within(kShortMs));
  wait_for_unproven(0);
}

TEST_F(DoorTest, WhoHangsUpIsForgotten) {
  {
    const Client client(door_->endpoint());
    wait_for_unproven(1);
  }
  wait_for_unproven(0);
}

TEST_F(DoorTest, KnownOnesDoNotCountAndAreNotPushedOut) {
  const Client known(door_->endpoint());
  wait_for_unproven(1);
  EXPECT_TRUE(door_->now_known(known.endpoint(), {{"key"}}));
  std::vector<Client> clients;
  for (std::size_t i = 0; i < Door::kMostUnproven + 1; ++i) clients.emplace_back(door_->endpoint());
  EXPECT_TRUE(clients[0].closed_within(kLongMs));
  EXPECT_FALSE(known.closed_within(kShortMs));
}

TEST_F(DoorTest, OneKeysConnectionsAreBoundedAndAnotherKeyGetsItsOwn) {
  std::list<Client> clients;
  std::size_t taken = 0;
  auto knock = [&](const char* key) {
    clients.emplace_back(door_->endpoint());
    wait_for_unproven(1);
    if (!door_->now_known(clients.back().endpoint(), {{key}})) return false;
    ++taken;
    return true;
  };
  while (knock("greedy")) ASSERT_LE(taken, Door::kMostKnown / 2);
  EXPECT_EQ(taken, Door::kMostKnown / 2);
  clients.pop_back();
  wait_for_unproven(0);
  EXPECT_TRUE(knock("other"));
  // Known already: nothing more is taken.
  EXPECT_TRUE(door_->now_known(clients.back().endpoint(), {{"greedy"}}));
  EXPECT_EQ(door_->known(), taken);
  // Who goes gives his place back.
  clients.pop_front();
  const Deadline until = deadline_in(std::chrono::seconds(20));
  while (door_->known() == taken && std::chrono::steady_clock::now() < until) ::poll({}, 0, 5);
  EXPECT_EQ(door_->known(), taken - 1);
  EXPECT_TRUE(knock("greedy"));
}

TEST_F(DoorTest, WhoIsRefusedTooOftenIsClosedAndAKnownCallerIsNot) {
  const Client unproven(door_->endpoint()), known(door_->endpoint());
  wait_for_unproven(2);
  EXPECT_TRUE(door_->now_known(known.endpoint(), {{"key"}}));
  for (int i = 0; i < Door::kMostRefusals; ++i) {
    door_->was_refused(unproven.endpoint());
    door_->was_refused(known.endpoint());
  }
  EXPECT_FALSE(unproven.closed_within(kShortMs));
  door_->was_refused(unproven.endpoint());
  door_->was_refused(known.endpoint());
  EXPECT_TRUE(unproven.closed_within(kLongMs));
  EXPECT_FALSE(known.closed_within(kShortMs));
}

TEST_F(DoorTest, NobodyComesInWhileThereIsTooMuchToClearAway) {
  is_behind_ = true;
  const Client client(door_->endpoint());
  ::poll({}, 0, kShortMs);
  EXPECT_EQ(door_->unproven(), 0u);
  is_behind_ = false;
  wait_for_unproven(1);
}

TEST_F(DoorTest, ATakenPortIsSaid) {
  const std::uint16_t port = door_->endpoint().port;
  auto second = Door::open("127.0.0.1", {port, port});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace siphon::rpc
