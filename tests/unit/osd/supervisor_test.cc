// Spawning and waiting, with shell scripts in the companion's place.
#include "plugin/osd/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <optional>

namespace siphon::osd {
namespace {

using std::chrono::milliseconds;

void no_log(const char*) {}

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string error;
    region_ = Region::create(exchange::kMinDataBytes, error);
    ASSERT_NE(region_, nullptr) << error;
    char name[] = "/tmp/siphon-supervisor-test.XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    unlink((folder_ + "/out").c_str());
    rmdir(folder_.c_str());
  }

  // A companion that runs `script` in sh, with $OUT naming a file.
  Supervisor& with(const std::string& script) {
    const std::string text = "OUT=" + folder_ + "/out\n" + script;
    supervisor_.emplace(*region_, "/bin/sh", std::vector<std::string>{"siphond", "-c", text},
                        no_log);
    return *supervisor_;
  }
  std::string out() const {
    std::ifstream file(folder_ + "/out");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::unique_ptr<Region> region_;
  std::string folder_;
  std::optional<Supervisor> supervisor_;
};

TEST_F(SupervisorTest, TheCompanionHoldsFiveDescriptors) {
  // One that must not get through, as a block device's: no close-on-exec, a high number.
  const int leaky = fcntl(region_->fd(), F_DUPFD, 200);
  ASSERT_GE(leaky, 200);
  // ls holds one more for the folder it lists, sh's redirection is 1.
  auto& supervisor = with("exec ls -l /proc/self/fd > \"$OUT\"");
  ASSERT_EQ(supervisor.spawn(), 0);
  EXPECT_EQ(supervisor.wait().description, "exited with code 0");
  close(leaky);
  const std::string listed = out();
  EXPECT_NE(listed.find(" 0 -> /dev/null"), std::string::npos) << listed;
  EXPECT_NE(listed.find(" 3 -> /memfd:siphon-region"), std::string::npos) << listed;
  EXPECT_NE(listed.find(" 4 -> socket:"), std::string::npos) << listed;
  EXPECT_EQ(listed.find("siphon-region"), listed.rfind("siphon-region")) << listed;
  EXPECT_EQ(listed.find(" 6 -> "), std::string::npos) << listed;
}

TEST_F(SupervisorTest, WorksWhenTheRegionAlreadyHasOneOfTheNumbers) {
  // Whatever this process has at 3 and 4 is kept and must not get in the way.
  const int region = dup2(region_->fd(), exchange::kSocketFd);
  ASSERT_EQ(region, exchange::kSocketFd);
  auto& supervisor = with("readlink /proc/self/fd/3 /proc/self/fd/4 > \"$OUT\"");
  ASSERT_EQ(supervisor.spawn(), 0);
  supervisor.wait();
  EXPECT_EQ(out().find("/memfd:siphon-region"), 0u) << out();
  EXPECT_NE(out().find("\nsocket:"), std::string::npos) << out();
}

TEST_F(SupervisorTest, SignalsAndProcessGroupAreItsOwn) {
  sigset_t blocked;
  sigset_t before;
  sigfillset(&blocked);
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  const auto old_pipe = signal(SIGPIPE, SIG_IGN);
  auto& supervisor = with(
      "grep -E 'Sig(Blk|Ign)' /proc/self/status > \"$OUT\"; "
      "cut -d' ' -f5 /proc/$$/stat >> \"$OUT\"; echo $$ >> \"$OUT\"");
  const int error = supervisor.spawn();
  const pid_t pid = supervisor.pid();
  if (error == 0) supervisor.wait();
  signal(SIGPIPE, old_pipe);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ASSERT_EQ(error, 0);
  const std::string text = out();
  EXPECT_NE(text.find("SigBlk:\t0000000000000000"), std::string::npos) << text;
  // The two signals left ignored are the C library's own (32 and 33).
  EXPECT_TRUE(text.find("SigIgn:\t0000000180000000") != std::string::npos ||
              text.find("SigIgn:\t0000000000000000") != std::string::npos)
      << text;
  const std::string id = std::to_string(pid) + "\n";
  EXPECT_NE(text.find(id + id), std::string::npos) << text;
}

TEST_F(SupervisorTest, HangingUpEndsACompanionThatReadsItsSocket) {
  auto& supervisor = with("exec cat <&4 > \"$OUT\"");
  ASSERT_EQ(supervisor.spawn(), 0);
  supervisor.hang_up();
  EXPECT_EQ(supervisor.wait().description, "exited with code 0");
}

TEST_F(SupervisorTest, TellsHowItEnded) {
  struct Case {
    const char* script;
    const char* description;
    bool configuration_error;
  };
  for (const Case c :
       {Case{"exit 0", "exited with code 0", false}, Case{"exit 1", "exited with code 1", false},
        Case{"exit 64", "exited with code 64 (configuration error)", true},
        Case{"exit 78", "exited with code 78 (configuration error)", true},
        Case{"kill -9 $$", "killed by signal 9", false}}) {
    auto& supervisor = with(c.script);
    ASSERT_EQ(supervisor.spawn(), 0);
    const CompanionEnd end = supervisor.wait();
    EXPECT_EQ(end.description, c.description);
    EXPECT_EQ(end.configuration_error, c.configuration_error);
    EXPECT_EQ(supervisor.pid(), -1);
  }
}

TEST_F(SupervisorTest, WhatTheCompanionLeftIsTakenOutOfUse) {
  region_->header()->hello_seq = 2;
  exchange::Descriptor& d = region_->descriptors()[7];
  d.word = exchange::pack(5, exchange::DescriptorState::kArmed);
  auto& supervisor = with("exit 0");
  ASSERT_EQ(supervisor.spawn(), 0);
  supervisor.wait();
  EXPECT_EQ(region_->header()->hello_seq, 0u);
  EXPECT_EQ(d.word, exchange::pack(6, exchange::DescriptorState::kFree));
}

TEST_F(SupervisorTest, AChildReapedElsewhereCountsAsEnded) {
  const auto before = signal(SIGCHLD, SIG_IGN);  // the kernel reaps
  auto& supervisor = with("exit 3");
  const int error = supervisor.spawn();
  const CompanionEnd end = error == 0 ? supervisor.wait() : CompanionEnd{};
  signal(SIGCHLD, before);
  ASSERT_EQ(error, 0);
  EXPECT_EQ(end.description, "ended, reaped by another part of the process");
}

TEST_F(SupervisorTest, AMissingProgramIsAnErrorNotACrash) {
  Supervisor supervisor(*region_, folder_ + "/siphond", {"siphond"}, no_log);
  EXPECT_EQ(supervisor.spawn(), ENOENT);
  EXPECT_EQ(supervisor.pid(), -1);
}

TEST(RestartDelay, DoublesUpToAHalfMinuteAndStartsOverAfterAGoodLife) {
  RestartDelay delay;
  std::vector<long> seen;
  for (int i = 0; i < 10; ++i) seen.push_back(delay.after(milliseconds(5), false).count());
  EXPECT_EQ(seen, (std::vector<long>{200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}));
  EXPECT_EQ(delay.after(milliseconds(59'999), false).count(), 30'000);
  EXPECT_EQ(delay.after(milliseconds(60'000), false).count(), 200);
  EXPECT_EQ(delay.after(milliseconds(5), true).count(), 30'000) << "configuration error";
  EXPECT_EQ(delay.after(milliseconds(5), false).count(), 400);
}

TEST(CompanionProgram, StandsBesideTheCode) {
  const std::string program = companion_program();
  ASSERT_FALSE(program.empty());
  EXPECT_TRUE(program.ends_with("/siphond"));
}

}  // namespace
}  // namespace siphon::osd
