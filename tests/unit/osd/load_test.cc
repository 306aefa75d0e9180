// Loading libcls_siphon.so as an OSD does, into a process that says it is one, or does not.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/as_ceph_osd.h"

namespace {

using Words = std::vector<std::string>;

std::filesystem::path build_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
}

// What `library` registers when it runs in this Ceph build.
Words load(const std::filesystem::path& library, const char* version, const char* commit,
           bool refused = false) {
  void* stub =
      dlopen((build_folder() / "testlib/libcls_host_stub.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  EXPECT_NE(stub, nullptr) << dlerror();
  if (stub == nullptr) return {};
  static Words registered;  // the stub keeps its address
  registered.clear();
  using Prepare = void (*)(const char*, const char*, Words*);
  reinterpret_cast<Prepare>(dlsym(stub, "stub_prepare"))(version, commit, &registered);
  if (refused) reinterpret_cast<void (*)()>(dlsym(stub, "stub_refuse_class"))();
  // As ceph-osd does: every symbol at once. Most of Ceph is missing here.
  void* handle = dlopen(library.c_str(), RTLD_NOW);
  EXPECT_NE(handle, nullptr) << dlerror();
  if (handle == nullptr) return {};
  auto init = reinterpret_cast<void (*)()>(dlsym(handle, "__cls_init"));
  EXPECT_NE(init, nullptr);
  if (init != nullptr) init();
  return registered;
}

std::size_t open_regions() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
    count += target.starts_with("/memfd:siphon-region") ? 1 : 0;
  }
  return count;
}

TEST(ClassLoad, ElsewhereThanInACephOsdNothingIsDone) {
  EXPECT_EQ(load(build_folder() / "bin/libcls_siphon.so", SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT),
            Words{});
  EXPECT_EQ(open_regions(), 0u);
}

TEST(ClassLoad, OnTheExpectedBuildEveryMethodIsRegisteredWithItsFlags) {
  const siphon::test::AsCephOsd as_ceph_osd;
  // 1: reads, 2: writes (or runs on an object that does not exist).
  EXPECT_EQ(load(build_folder() / "bin/libcls_siphon.so", SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT),
            (Words{"siphon", "hello 2", "hello_head 1", "grant_read 2", "grant_write 2", "probe 2",
                   "read_part 1", "write_part 2", "reserve 3", "publish 3", "condemn 3", "forget 3",
                   "seal 3", "restore 3", "discard 3"}));
}

// Whether there is a verified layout decides about grants, and about nothing else.
TEST(ClassLoad, WithoutARowForTheBuildEveryMethodIsRegisteredAllTheSame) {
  const siphon::test::AsCephOsd as_ceph_osd;
  const auto before = open_regions();
  const Words registered = load(build_folder() / "testlib/no_layout/libcls_siphon.so",
                                SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT);
  EXPECT_EQ(registered.size(), 15u);
  EXPECT_EQ(open_regions(), before + 1);
}

TEST(ClassLoad, OnAnotherBuildItLoadsAndRegistersNoMethod) {
  const siphon::test::AsCephOsd as_ceph_osd;
  EXPECT_EQ(
      load(build_folder() / "testlib/libcls_siphon.so", SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT),
      Words{"siphon"});
  EXPECT_EQ(load(build_folder() / "bin/libcls_siphon.so", "17.2.6", SIPHON_CEPH_COMMIT),
            Words{"siphon"});
}

TEST(ClassLoad, ASecondCopyUnderAnotherNameIsRefusedByTheOsdAndDoesNothing) {
  const siphon::test::AsCephOsd as_ceph_osd;
  EXPECT_EQ(load(build_folder() / "bin/libcls_siphon.so", SIPHON_CEPH_VERSION, SIPHON_CEPH_COMMIT,
                 /*refused=*/true),
            Words{"siphon"});
}

}  // namespace
