// A folder of its own for one test, removed at its end, and a look at what a posix store left
// in it that shares no code with the adapter.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace siphon::contract {

class TempFolder {
 public:
  TempFolder() : path_(testing::TempDir() + "/siphon-XXXXXX") {
    if (!::mkdtemp(path_.data())) ADD_FAILURE() << "mkdtemp " << path_;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Files of any kind that belong to the extent `name`.
inline std::size_t count_files_of(const std::string& folder, const std::string& name) {
  namespace fs = std::filesystem;
  auto present = [](const std::string& path) {
    return fs::exists(fs::symlink_status(path)) ? 1 : 0;
  };
  std::size_t count = present(folder + "/" + name) + present(folder + "/.siphon/head/" + name) +
                      present(folder + "/.siphon/tmp/" + name);
  if (!fs::exists(folder + "/.siphon/data")) return count;  // nobody has written here yet
  constexpr std::size_t kIdHexBytes = 32;
  for (const auto& entry : fs::directory_iterator(folder + "/.siphon/data")) {
    const std::string file = entry.path().filename();
    if (file.size() == name.size() + 1 + kIdHexBytes && file.starts_with(name + ".")) ++count;
  }
  return count;
}

inline std::vector<std::byte> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::vector<char> chars((std::istreambuf_iterator<char>(in)), {});
  const auto* first = reinterpret_cast<const std::byte*>(chars.data());
  return {first, first + chars.size()};
}

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  EXPECT_TRUE(out.flush()) << path;
}

}  // namespace siphon::contract
