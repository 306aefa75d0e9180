#include "plugin/cli/commands.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "plugin/cli/options.h"

namespace siphon::cli {
namespace {

constexpr std::string_view kProgram = "siphon ";

struct Commands {
  std::string words;  // begins with a space, or is empty
  std::vector<std::string> verbs;
};

Commands& commands() {
  static Commands set;
  return set;
}

bool is_flag(const Options& options, const std::string& flag) {
  const auto origin = options.origins.find(flag);
  return origin != options.origins.end() && origin->second == "flag";
}

std::string option(const std::string& flag, const std::string& value) {
  return " " + flag + " " + shell_word(value);
}

std::vector<std::pair<std::string, const std::string*>> fields(const ClusterOptions& cluster) {
  return {{"conf", &cluster.conf},
          {"cluster", &cluster.cluster},
          {"id", &cluster.id},
          {"name", &cluster.name},
          {"keyring", &cluster.keyring}};
}

std::string device_words(const Options& options) {
  std::string words;
  for (const auto& [flag, value] :
       {std::pair("--secret-file", &options.secret_file), std::pair("--tls-ca", &options.tls_ca),
        std::pair("--tls-cert", &options.tls_cert), std::pair("--tls-key", &options.tls_key)}) {
    if (is_flag(options, flag)) words += option(flag, *value);
  }
  return words;
}

bool begins_word(std::string_view text, std::size_t at) {
  if (at == 0) return true;
  const char before = text[at - 1];
  return std::isalnum(static_cast<unsigned char>(before)) == 0 &&
         std::string_view("-_./").find(before) == std::string_view::npos;
}

}  // namespace

void set_commands(const Options& options, std::vector<std::string> verbs) {
  commands() = {connection_words(options), std::move(verbs)};
}

std::string connection_words(const Options& options) {
  std::string words;
  for (const auto& [prefix, cluster] :
       {std::pair("--", &options.cluster), std::pair("--source-", &options.source_cluster),
        std::pair("--target-", &options.target_cluster)}) {
    for (const auto& [field, value] : fields(*cluster)) {
      if (is_flag(options, prefix + field)) words += option(prefix + field, *value);
    }
  }
  return words + device_words(options);
}

std::string connection_words(const Options& options, const ClusterOptions& cluster) {
  std::string words;
  const auto base = fields(options.cluster);
  const auto own = fields(cluster);
  for (std::size_t i = 0; i < own.size(); ++i) {
    const auto& [field, value] = own[i];
    const bool differs = *value != *base[i].second;
    if (!value->empty() && (differs || is_flag(options, "--" + field))) {
      words += option("--" + field, *value);
    }
  }
  return words + device_words(options);
}

std::string pasteable(std::string_view text) {
  const Commands& set = commands();
  std::string out;
  while (!set.words.empty()) {
    const std::size_t at = text.find(kProgram);
    if (at == std::string_view::npos) break;
    const std::string_view rest = text.substr(at + kProgram.size());
    const std::size_t length =
        std::min(rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz"), rest.size());
    const bool is_command = begins_word(text, at) &&
                            std::ranges::find(set.verbs, rest.substr(0, length)) != set.verbs.end();
    out += text.substr(0, at + kProgram.size() - 1);
    if (is_command) out += set.words;
    out += ' ';
    text = rest;
  }
  return out += text;
}

std::string shell_word(const std::string& word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_@%+=:,./-").find(c) != std::string_view::npos;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace siphon::cli
