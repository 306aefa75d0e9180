// What an OSD's own host tells: its unit, and how that takes a kill for want of memory.
#include "plugin/cli/doctor/local.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace siphon::cli::doctor {
namespace {

namespace fs = std::filesystem;

class DoctorLocal : public ::testing::Test {
 protected:
  DoctorLocal() {
    std::string name = (fs::temp_directory_path() / "siphon-doctor-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  ~DoctorLocal() override { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) {
    const fs::path path = root_ + file;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  std::string root_;
};

TEST(DoctorUnit, IsThatOfCephInTheControlGroup) {
  EXPECT_EQ(unit_in("0::/system.slice/system-ceph\\x2dosd.slice/ceph-osd@3.service\n"),
            "ceph-osd@3.service");
  EXPECT_EQ(unit_in("1:name=systemd:/a\n0::/system.slice/ceph-f00d@osd.3.service/container"),
            "ceph-f00d@osd.3.service");
  for (const char* text :
       {"", "0::/", "0::/user.slice/session-3.scope", "0::/system.slice/ssh.service"}) {
    EXPECT_EQ(unit_in(text), "") << text;
  }
}

TEST_F(DoctorLocal, DropInsWinOverTheUnitAndTheLastOverOthers) {
  const std::string unit = "ceph-osd@3.service";
  EXPECT_EQ(oom_policy_of(unit, root_), "");
  write("/lib/systemd/system/ceph-osd@.service", "[Service]\nOOMPolicy=stop\n");
  EXPECT_EQ(oom_policy_of(unit, root_), "stop");
  write("/etc/systemd/system/ceph-osd@.service.d/siphon.conf", "[Service]\nOOMPolicy=continue \n");
  EXPECT_EQ(oom_policy_of(unit, root_), "continue");
  write("/etc/systemd/system/ceph-osd@4.service.d/z.conf", "[Service]\nOOMPolicy=kill\n");
  write("/etc/systemd/system/ceph-osd@3.service.d/z.text", "[Service]\nOOMPolicy=kill\n");
  EXPECT_EQ(oom_policy_of(unit, root_), "continue");
  write("/run/systemd/system/ceph-osd@3.service.d/z.conf", "[Service]\nOOMPolicy=kill\n");
  EXPECT_EQ(oom_policy_of(unit, root_), "kill");
}

TEST_F(DoctorLocal, AProcessMustBeACompanion) {
  EXPECT_FALSE(look_at_process(0, root_));
  EXPECT_FALSE(look_at_process(17, root_));
  write("/proc/17/cmdline", std::string("siphond\0--store\0posix:/a\0", 25));
  EXPECT_FALSE(look_at_process(17, root_));
  write("/proc/17/cmdline", std::string("siphond\0--companion\0--id\0003\0", 27));
  write("/proc/17/cgroup", "0::/\n");
  ASSERT_TRUE(look_at_process(17, root_));
  EXPECT_EQ(look_at_process(17, root_)->unit, "");
  write("/proc/17/cgroup", "0::/system.slice/ceph-osd@3.service\n");
  write("/etc/systemd/system/ceph-osd@.service.d/siphon.conf", "[Service]\nOOMPolicy=continue\n");
  EXPECT_EQ(look_at_process(17, root_)->oom_policy, "continue");
}

}  // namespace
}  // namespace siphon::cli::doctor
