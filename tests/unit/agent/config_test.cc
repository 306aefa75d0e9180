// siphond's settings: where a value comes from, what is refused, and what follows from another.
#include "plugin/agent/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace siphon::agent {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() {
    std::string folder = (fs::temp_directory_path() / "siphon-config-XXXXXX").string();
    EXPECT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  ~ConfigTest() override {
    for (const std::string& name : set_) ::unsetenv(name.c_str());
    fs::remove_all(folder_);
  }
  std::string file(const std::string& text, const std::string& name = "siphond.toml") const {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  void set(const std::string& name, const std::string& value) {
    ASSERT_EQ(::setenv(name.c_str(), value.c_str(), 1), 0);
    set_.push_back(name);
  }
  // Loads it; value and origin of one key, as --check-config shows them.
  std::pair<std::string, std::string> shown(const std::string& key, const std::string& from,
                                            const Words& flags) {
    std::vector<Setting> settings;
    const auto config = load_config(from, flags, &settings);
    EXPECT_TRUE(config) << config.error().message;
    for (const Setting& one : settings) {
      if (one.key == key) return {one.value, one.origin};
    }
    ADD_FAILURE() << key << " is no setting";
    return {};
  }
  // What one setting, given as a flag, is told.
  static std::string refusal(const std::string& setting) {
    const auto config = load_config("", {setting}, nullptr);
    if (config) return "";
    EXPECT_EQ(config.error().code, Code::kInvalidArgument);
    return config.error().message;
  }

  fs::path folder_;
  std::vector<std::string> set_;
};

using Shown = std::pair<std::string, std::string>;

TEST_F(ConfigTest, WithoutAnythingEverySettingHasItsDefault) {
  std::vector<Setting> settings;
  const auto config = load_config("", {}, &settings);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_GT(settings.size(), 20u);
  std::map<std::string, int> times;
  for (const Setting& one : settings) {
    EXPECT_EQ(one.origin, "default") << one.key;
    EXPECT_EQ(++times[one.environment], 1) << one.environment;
  }
  EXPECT_EQ(config->server.address, "127.0.0.1");
  EXPECT_EQ(config->server.ports.first, 7400);
  EXPECT_EQ(config->server.ports.last, 7499);
  EXPECT_EQ(config->transfer.data_ports.first, 7500);
  EXPECT_EQ(config->peers, (Words{"127.0.0.1", "::1"}));
  // A default that is told is the one that a Config is made with.
  EXPECT_EQ(config->transfer.lanes, TransferSettings{}.lanes);
  EXPECT_EQ(config->store.trash_grace_ms, StoreLimits{}.trash_grace_ms);
  EXPECT_EQ(config->transfer.minimum_rate.idle_timeout,
            TransferSettings{}.minimum_rate.idle_timeout);
}

TEST_F(ConfigTest, AFlagComesBeforeTheEnvironmentAndThatBeforeTheFile) {
  const std::string from = file("[transfer]\nlanes = 3\n");
  EXPECT_EQ(shown("transfer.lanes", "", {}), Shown("1", "default"));
  EXPECT_EQ(shown("transfer.lanes", from, {}), Shown("3", "file"));
  set("SIPHOND_TRANSFER_LANES", "4");
  EXPECT_EQ(shown("transfer.lanes", from, {}), Shown("4", "environment"));
  EXPECT_EQ(shown("transfer.lanes", from, {"transfer.lanes=5"}), Shown("5", "flag"));
  EXPECT_EQ(load_config(from, {"transfer.lanes=5"}, nullptr)->transfer.lanes, 5);
}

TEST_F(ConfigTest, AFileHasTablesStringsNumbersAndLists) {
  const auto config = load_config(file("secret_file = \"/s\"\n"
                                       "[control]\nlisten = \"127.0.0.1:8000\"\n"
                                       "[data]\naddress = \"::1\"\nports = \"8100-8199\"\n"
                                       "[trash]\ngrace_hours = 2\n"
                                       "[peers]\nallow = [\"10.0.0.1\", \"10.0.0.2\"]\n"),
                                  {}, nullptr);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->server.secret_file, "/s");
  EXPECT_EQ(config->server.ports.first, 8000);
  EXPECT_EQ(config->server.ports.last, 8000);
  EXPECT_EQ(config->transfer.data_address, "::1");
  EXPECT_EQ(config->transfer.data_ports.last, 8199);
  EXPECT_EQ(config->store.trash_grace_ms, 2u * 3600 * 1000);
  EXPECT_EQ(config->peers, (Words{"10.0.0.1", "10.0.0.2"}));
}

TEST_F(ConfigTest, WhatIsNoSettingIsNamedWithWhereItStands) {
  const std::string from = file("[transfer]\nlanse = 3\n");
  const auto in_file = load_config(from, {}, nullptr);
  ASSERT_FALSE(in_file);
  EXPECT_EQ(in_file.error().code, Code::kInvalidArgument);
  EXPECT_NE(in_file.error().message.find("transfer.lanse in " + from), std::string::npos)
      << in_file.error().message;
  EXPECT_NE(refusal("no.such=1").find("no.such on the command line"), std::string::npos);
  EXPECT_NE(refusal("transfer.lanes").find("KEY=VALUE"), std::string::npos);
}

TEST_F(ConfigTest, AFileThatIsNoTomlIsRefusedWithItsLine) {
  for (const char* text : {"a = 1\n[transfer\n", "x = 1\n[peers]\nallow = [\n"}) {
    const auto config = load_config(file(text), {}, nullptr);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, Code::kInvalidArgument);
    EXPECT_NE(config.error().message.find("line "), std::string::npos) << config.error().message;
  }
  EXPECT_FALSE(load_config(folder_ / "none.toml", {}, nullptr));
  EXPECT_FALSE(load_config(file("[peers]\nallow = [1, 2]\n"), {}, nullptr)) << "not of strings";
  EXPECT_FALSE(load_config(file("[transfer]\nlanes = 1.5\n"), {}, nullptr));
}

TEST_F(ConfigTest, AValueOutOfItsBoundsIsNamedWithItsKeyAndOrigin) {
  for (const char* setting :
       {"transfer.lanes=0", "transfer.lanes=17", "transfer.lanes=two", "transfer.lanes=1x",
        "transfer.lanes=", "transfer.lanes=-1", "transfer.max_transfers=65",
        "store.part_bytes=65535", "store.read_depth=0", "transfer.idle_timeout_ms=999",
        "memory.arena_mib=15", "trash.keep=0", "trash.grace_hours=87601", "log.level=loud",
        "transfer.bytes_per_second=1", "transfer.bytes_per_second=99999999999999999999",
        "data.ports=9-8", "control.listen=127.0.0.1", "peers.allow=127.0.0.1,nobody"}) {
    const std::string said = refusal(setting);
    const std::string key = std::string(setting).substr(0, std::string(setting).find('='));
    EXPECT_NE(said.find(key + " (from flag)"), std::string::npos) << setting << ": " << said;
  }
  EXPECT_EQ(refusal("transfer.bytes_per_second=0"), "") << "unlimited";
  EXPECT_EQ(refusal("transfer.lanes=16"), "");
}

TEST_F(ConfigTest, AWildcardIsNoAddressToBeReachedAt) {
  for (const char* setting : {"control.listen=0.0.0.0:7400", "control.listen=[::]:7400",
                              "data.address=0.0.0.0", "data.address=::"}) {
    EXPECT_NE(refusal(setting).find("a wildcard"), std::string::npos) << setting;
  }
}

TEST_F(ConfigTest, AnInlineExtentIsNoLargerThanAPart) {
  const auto config =
      load_config("", {"store.part_bytes=65536", "store.inline_max_bytes=65537"}, nullptr);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, Code::kInvalidArgument);
  EXPECT_FALSE(config.error().next_step.empty());
  EXPECT_TRUE(load_config("", {"store.part_bytes=65536", "store.inline_max_bytes=65536"}, nullptr));
}

TEST_F(ConfigTest, WhatOneSettingSaysAnotherPartOfTheDaemonGoesBy) {
  const auto config = load_config(
      "",
      {"store.operation_bytes=131072", "store.part_bytes=131072", "store.inline_max_bytes=0",
       "transfer.idle_timeout_ms=5000", "transfer.max_extent_bytes=1000"},
      nullptr);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->transfer.max_frame_bytes, 131072u) << "a frame is one operation";
  EXPECT_EQ(config->transfer.paced_frame_bytes, 131072u);
  EXPECT_EQ(config->server.peer_patience, std::chrono::milliseconds(5000));
  EXPECT_EQ(config->store.max_extent_bytes, 1000u);
  const auto large = load_config("", {"store.operation_bytes=8388608"}, nullptr);
  ASSERT_TRUE(large);
  EXPECT_EQ(large->transfer.paced_frame_bytes, TransferSettings{}.paced_frame_bytes);
}

TEST_F(ConfigTest, TheCompanionsOfAHostShareAFile) {
  Config config;
  config.journal_file = "/j/$id/$id";
  config.log_file = "/l";
  config.ceph_name = "client.siphon.$id";
  insert_osd_id(config, "12");
  EXPECT_EQ(config.journal_file, "/j/12/12");
  EXPECT_EQ(config.log_file, "/l");
  EXPECT_EQ(config.ceph_name, "client.siphon.12");
  EXPECT_EQ(config.ceph_keyring, "");
  config.ceph_keyring = "$id";
  insert_osd_id(config, "$id");  // what was put in is not looked at again
  EXPECT_EQ(config.ceph_keyring, "$id");
}

TEST_F(ConfigTest, ACompanionHasNoSecret) {
  Config config;
  EXPECT_TRUE(check_companion(config));
  config.server.secret_file = "/etc/secret";
  const Status refused = check_companion(config);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_NE(refused.error().message.find("/etc/secret"), std::string::npos);
}

TEST_F(ConfigTest, TheFileBesideTheCephConfIsFoundUnlessOneIsNamed) {
  const std::string conf = folder_ / "ceph.conf";
  const std::string none = default_config_file(conf);
  EXPECT_TRUE(none.empty() || none == "/etc/siphon/siphond.toml") << none;
  const std::string beside = file("");
  EXPECT_EQ(default_config_file(conf), beside);
  set("SIPHON_CONFIG", "/named");
  EXPECT_EQ(default_config_file(conf), "/named");
}

}  // namespace
}  // namespace siphon::agent
