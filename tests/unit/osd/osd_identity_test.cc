// Which OSD a ceph-osd's command line says it is.
#include "plugin/osd/osd_identity.h"

#include <gtest/gtest.h>

namespace siphon::osd {
namespace {

using Words = std::vector<std::string>;

OsdIdentity parse(const Words& arguments, const char* ceph_args = nullptr) {
  return parse_osd_identity(arguments, ceph_args);
}

TEST(OsdIdentity, EverySpellingOfTheId) {
  for (const Words& words : {Words{"ceph-osd", "-i", "12"}, Words{"/usr/bin/ceph-osd", "-i12"},
                             Words{"ceph-osd", "-f", "--id", "12"}, Words{"ceph-osd", "--id=12"},
                             Words{"ceph-osd", "-n", "osd.12"}, Words{"ceph-osd", "-nosd.12"},
                             Words{"ceph-osd", "--name=osd.12"},
                             Words{"ceph-osd", "--name", "osd.12", "--setuser", "ceph"}}) {
    const OsdIdentity identity = parse(words);
    EXPECT_TRUE(identity.is_osd) << words.back();
    EXPECT_EQ(identity.id, "12") << words.back();
  }
}

TEST(OsdIdentity, PassesOnWhatTheCompanionNeeds) {
  const OsdIdentity identity = parse({"ceph-osd", "-f", "--cluster", "backup", "--id", "3",
                                      "--setuser", "ceph", "-c", "/etc/x.conf", "--keyring=/k"});
  EXPECT_EQ(companion_arguments(identity),
            (Words{"siphond", "--companion", "--id", "3", "--conf", "/etc/x.conf", "--cluster",
                   "backup", "--keyring", "/k"}));
  EXPECT_EQ(companion_arguments(parse({"ceph-osd", "-i", "3"})),
            (Words{"siphond", "--companion", "--id", "3"}));
}

TEST(OsdIdentity, TheCommandLineWinsOverCephArgs) {
  const OsdIdentity identity = parse({"ceph-osd", "-i", "4"}, "--id 3  --conf /from/args -k /k");
  EXPECT_EQ(identity.id, "4");
  EXPECT_EQ(identity.conf, "/from/args");
  EXPECT_EQ(identity.keyring, "/k");
}

TEST(OsdIdentity, OptionsThatOnlyLookAlikeAreNotTaken) {
  const OsdIdentity identity = parse({"ceph-osd", "--id", "1", "--cluster-addr", "10.0.0.1",
                                      "--conf-file-x=/y", "--id-x", "7", "--", "-i", "9"});
  EXPECT_TRUE(identity.is_osd);
  EXPECT_EQ(identity.id, "1");
  EXPECT_EQ(identity.cluster, "");
  EXPECT_EQ(identity.conf, "");
}

TEST(OsdIdentity, OtherProcessesAreNoOsd) {
  for (const Words& words :
       {Words{}, Words{"ceph-osd"}, Words{"ceph-osd", "-i"}, Words{"ceph-osd", "-i", "x"},
        Words{"ceph-objectstore-tool", "-i", "1"}, Words{"my-ceph-osd", "-i", "1"},
        Words{"ceph-osd", "-n", "osd"}, Words{"ceph-osd", "--id="}}) {
    EXPECT_FALSE(parse(words).is_osd);
    EXPECT_EQ(parse(words).in_ceph_osd, !words.empty() && words[0] == "ceph-osd");
  }
}

TEST(OsdIdentity, ReadsThisProcess) {
  const Words words = own_command_line();
  ASSERT_FALSE(words.empty());
  EXPECT_FALSE(parse(words).is_osd);
  EXPECT_FALSE(parse(words).in_ceph_osd);
}

}  // namespace
}  // namespace siphon::osd
