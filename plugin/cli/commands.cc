#include "plugin/cli/commands.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "plugin/cli/options.h"

namespace siphon::cli {
namespace {

// A program that messages name commands of.
struct Program {
  std::string name;                // with the space behind it
  std::string words;               // of the connection; begins with a space, or is empty
  std::vector<std::string> verbs;  // what else stands behind the name is prose
};

std::vector<Program>& programs() {
  static std::vector<Program> set;
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

// Who may mend a cluster is somebody else than who copies: its files, and not the user. Which of
// two clusters a command is for cannot be known here.
std::string ceph_words(const Options& options) {
  std::string words;
  for (const auto& [flag, value] :
       {std::pair("conf", &options.cluster.conf), std::pair("cluster", &options.cluster.cluster)}) {
    const std::string name = flag;
    if (is_flag(options, "--source-" + name) || is_flag(options, "--target-" + name)) return {};
    if (is_flag(options, "--" + name)) words += option("--" + name, *value);
  }
  return words;
}

std::string with_connection(const Program& program, std::string_view text) {
  std::string out;
  while (!program.words.empty()) {
    const std::size_t at = text.find(program.name);
    if (at == std::string_view::npos) break;
    const std::string_view rest = text.substr(at + program.name.size());
    const std::size_t length =
        std::min(rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz"), rest.size());
    const bool is_command =
        begins_word(text, at) &&
        std::ranges::find(program.verbs, rest.substr(0, length)) != program.verbs.end();
    out += text.substr(0, at + program.name.size() - 1);
    if (is_command) out += program.words;
    out += ' ';
    text = rest;
  }
  return out += text;
}

}  // namespace

void set_commands(const Options& options, std::vector<std::string> verbs) {
  programs() = {{"siphon ", connection_words(options), std::move(verbs)},
                {"ceph ", ceph_words(options), {"osd", "auth", "config", "health", "df", "pg"}}};
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
  std::string out(text);
  for (const Program& program : programs()) out = with_connection(program, out);
  return out;
}

}  // namespace siphon::cli
