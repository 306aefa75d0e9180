#include "plugin/cli/commands.h"

#include <gtest/gtest.h>

#include "plugin/cli/options.h"

namespace siphon::cli {
namespace {

class Commands : public ::testing::Test {
 protected:
  void flag(const std::string& name) { options_.origins[name] = "flag"; }
  std::string told(std::string_view text) {
    set_commands(options_, {"ls", "verify", "watch"});
    return pasteable(text);
  }
  Options options_;
};

TEST_F(Commands, AreLeftAloneWhereNothingWasNamed) {
  options_.cluster.conf = "/etc/a.conf";
  options_.origins["--conf"] = "SIPHON_CONF";  // the next command finds it there, too
  EXPECT_EQ(told("siphon ls p1"), "siphon ls p1");
}

TEST_F(Commands, CarryWhatTheUserNamed) {
  options_.cluster.conf = "/etc/a b.conf";
  options_.target_cluster.id = "moo's";
  options_.secret_file = "s";
  options_.tls_ca = "/ca.pem";
  for (const char* name : {"--conf", "--target-id", "--secret-file", "--tls-ca"}) flag(name);
  EXPECT_EQ(told("run siphon verify p1/e1, or (siphon ls p1); siphon watch"),
            "run siphon --conf '/etc/a b.conf' --target-id 'moo'\\''s' --secret-file s --tls-ca "
            "/ca.pem verify p1/e1, or (siphon --conf '/etc/a b.conf' --target-id 'moo'\\''s' "
            "--secret-file s --tls-ca /ca.pem ls p1); siphon --conf '/etc/a b.conf' --target-id "
            "'moo'\\''s' --secret-file s --tls-ca /ca.pem watch");
}

TEST_F(Commands, OfCephAreForTheClusterThatWasNamed) {
  options_.cluster = {"/a.conf", "moo", "me", "", "/k"};
  for (const char* name : {"--conf", "--cluster", "--id", "--keyring"}) flag(name);
  EXPECT_EQ(told("ceph osd pool ls; ceph auth get X; see /etc/ceph or a ceph of mine"),
            "ceph --conf /a.conf --cluster moo osd pool ls; ceph --conf /a.conf --cluster moo auth "
            "get X; see /etc/ceph or a ceph of mine")
      << "its user is whoever may do that";
  flag("--target-conf");
  EXPECT_EQ(told("ceph osd pool ls"), "ceph osd pool ls") << "of which of the two?";
}

TEST_F(Commands, AreNotSeenWhereThereIsNone) {
  options_.secret_file = "s";
  flag("--secret-file");
  for (const char* text : {"the same version of siphon everywhere", "allow class siphon hello",
                           "/usr/bin-siphon ls", "siphon lsx", "siphon", "siphond ls", ""}) {
    EXPECT_EQ(told(text), text);
  }
}

// What is at one end of two is looked at with a command that knows one cluster.
TEST_F(Commands, AboutOneEndNameItsClusterAlone) {
  options_.cluster.conf = "/a.conf";
  options_.cluster.keyring = "/a.keyring";
  options_.source_cluster.conf = "/b.conf";
  options_.secret_file = "s";
  for (const char* name : {"--keyring", "--source-conf", "--secret-file"}) flag(name);
  ClusterOptions source = options_.cluster;
  source.conf = "/b.conf";
  EXPECT_EQ(connection_words(options_, source),
            " --conf /b.conf --keyring /a.keyring --secret-file s");
  EXPECT_EQ(connection_words(options_, options_.cluster), " --keyring /a.keyring --secret-file s");
}

}  // namespace
}  // namespace siphon::cli
