#include "plugin/cli/doctor/caps.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace siphon::cli::doctor {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// The words of each grant; '=' is a word of its own, a quoted text is one word.
std::vector<std::vector<std::string>> words_of(std::string_view text) {
  std::vector<std::vector<std::string>> grants(1);
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (is_space(c)) {
      ++at;
    } else if (c == ',' || c == ';') {
      grants.emplace_back();
      ++at;
    } else if (c == '=') {
      grants.back().emplace_back("=");
      ++at;
    } else if (c == '"' || c == '\'') {
      const std::size_t end = std::min(text.find(c, at + 1), text.size());
      grants.back().emplace_back(text.substr(at + 1, end - at - 1));
      at = std::min(end + 1, text.size());
    } else {
      std::size_t end = at;
      while (end < text.size() && !is_space(text[end]) &&
             std::string_view(",;=").find(text[end]) == std::string_view::npos) {
        ++end;
      }
      grants.back().emplace_back(text.substr(at, end - at));
      at = end;
    }
  }
  std::erase_if(grants, [](const auto& words) { return words.empty(); });
  return grants;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

bool is_limit(std::string_view word) {
  return word == "pool" || word == "namespace" || word == "object_prefix" || word == "tag" ||
         word == "network" || word == "auid";
}

bool is_access(std::string_view word) {
  return !word.empty() && word.find_first_not_of("rwx") == std::string_view::npos;
}

// One grant, word by word.
class GrantReader {
 public:
  explicit GrantReader(const std::vector<std::string>& words) : words_(words) {}

  std::optional<CapGrant> read() {
    if (next() != "allow" || !more()) return std::nullopt;
    CapGrant grant;
    while (more()) {
      if (!read_part(next(), grant)) return std::nullopt;
    }
    return grant;
  }

 private:
  bool more() const { return at_ < words_.size(); }
  std::string next() { return more() ? words_[at_++] : std::string(); }
  bool is_next(std::string_view word) const { return more() && words_[at_] == word; }
  // "pool A", "pool=A", "pool = A"
  std::string value() {
    if (is_next("=")) ++at_;
    return next();
  }

  bool read_part(const std::string& word, CapGrant& grant) {
    if (word == "pool") {
      grant.pool = value();
      return !grant.pool.empty();
    }
    if (word == "namespace") {
      const std::string name = value();
      grant.narrower = grant.narrower || (!name.empty() && name != "*");
      return true;
    }
    if (word == "object_prefix" || word == "network" || word == "auid") {
      grant.narrower = true;
      return !value().empty();
    }
    if (word == "tag") return read_tag(grant);
    if (word == "class") {
      grant.class_name = next();
      if (more() && !is_limit(words_[at_])) grant.method = next();
      return !grant.class_name.empty();
    }
    if (word == "*" || word == "all") {
      grant.everything = true;
      return true;
    }
    if (word == "class-read" || word == "class-write")
      return true;  // of the default list's classes
    if (!is_access(word)) return false;
    grant.read = grant.read || word.find('r') != std::string::npos;
    grant.write = grant.write || word.find('w') != std::string::npos;
    grant.execute = grant.execute || word.find('x') != std::string::npos;
    return true;
  }

  bool read_tag(CapGrant& grant) {
    grant.tag = next();
    grant.tag_key = next();
    if (!is_next("=")) return false;
    grant.tag_value = value();
    return !grant.tag.empty() && !grant.tag_key.empty();
  }

  const std::vector<std::string>& words_;
  std::size_t at_ = 0;
};

bool tag_fits(const CapGrant& grant, const PoolState& pool) {
  const auto application = pool.applications.find(grant.tag);
  if (application == pool.applications.end()) return false;
  if (grant.tag_key == "*" && grant.tag_value == "*") return true;
  return std::ranges::any_of(application->second, [&](const auto& entry) {
    return (grant.tag_key == "*" || grant.tag_key == entry.first) &&
           (grant.tag_value == "*" || grant.tag_value == entry.second);
  });
}

bool fits(const CapGrant& grant, const PoolState& pool) {
  if (grant.narrower) return false;
  if (!grant.pool.empty() && grant.pool != pool.name) return false;
  return grant.tag.empty() || tag_fits(grant, pool);
}

constexpr PoolNeeds kHello{.hello = true};
constexpr PoolNeeds kReads{.read = true};
constexpr PoolNeeds kWrites{.read = true, .write = true};
constexpr PoolNeeds kGrantRead{.hello = true, .grant_read = true};
constexpr PoolNeeds kGrantWrite{.hello = true, .grant_write = true};
constexpr PoolNeeds kMoveSource{.read = true, .write = true, .hello = true, .grant_read = true};
constexpr PoolNeeds kMoveTarget{.hello = true, .grant_read = true, .grant_write = true};
constexpr PoolNeeds kAnyGrant{.hello = true, .any_grant = true};

constexpr auto kVerbs = std::to_array<VerbNeeds>({{"copy", kGrantRead, kGrantWrite},
                                                  {"move", kMoveSource, kMoveTarget},
                                                  {"verify", kGrantRead, {}},
                                                  {"ls", kReads, {}},
                                                  {"stat", kReads, {}},
                                                  {"blocks", kReads, {}},
                                                  {"get", kReads, {}},
                                                  {"put", kWrites, {}},
                                                  {"rm", kWrites, {}},
                                                  {"seal", kWrites, {}},
                                                  {"trash", kWrites, {}},
                                                  {"scratch", kWrites, {}},
                                                  {"daemons", kHello, {}},
                                                  {"transfers", kAnyGrant, {}},
                                                  {"watch", kGrantWrite, {}},
                                                  {"cancel", kGrantWrite, {}}});

int base64_digit(char c) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto at = kDigits.find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

}  // namespace

OsdCaps parse_osd_caps(std::string_view text) {
  OsdCaps caps;
  for (const auto& words : words_of(text)) {
    if (auto grant = GrantReader(words).read()) {
      caps.grants.push_back(std::move(*grant));
    } else {
      caps.not_understood.push_back(joined(words));
    }
  }
  return caps;
}

PoolRights rights_in(const OsdCaps& caps, const PoolState& pool) {
  PoolRights rights;
  for (const CapGrant& grant : caps.grants) {
    if (!fits(grant, pool)) continue;
    const bool of_class = grant.class_name == "siphon";
    const auto method = [&](std::string_view name) {
      return grant.everything || (of_class && (grant.method.empty() || grant.method == name));
    };
    rights.read = rights.read || grant.everything || grant.read;
    rights.write = rights.write || grant.everything || grant.write;
    rights.hello = rights.hello || method("hello");
    rights.grant_read = rights.grant_read || method("grant_read");
    rights.grant_write = rights.grant_write || method("grant_write");
    rights.lifecycle = rights.lifecycle || grant.everything || (of_class && grant.method.empty());
  }
  return rights;
}

bool mon_cap_reads(std::string_view text) {
  for (const auto& words : words_of(text)) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (word == "profile" && i + 1 < words.size()) return true;
      if (i == 0 || words[i - 1] != "allow") continue;
      if (word == "*" || word == "all") return true;
      if (is_access(word) && word.find('r') != std::string::npos) return true;
    }
  }
  return false;
}

const VerbNeeds* needs_of(std::string_view verb) {
  const auto found = std::ranges::find(kVerbs, verb, &VerbNeeds::verb);
  return found == kVerbs.end() ? nullptr : &*found;
}

std::vector<std::string> verb_names() {
  std::vector<std::string> names;
  for (const VerbNeeds& needs : kVerbs) names.emplace_back(needs.verb);
  return names;
}

std::vector<std::string> missing_caps(const PoolNeeds& needs, const PoolRights& rights,
                                      const std::string& pool) {
  std::vector<std::string> caps;
  const std::string of_pool = " pool=" + pool;
  if (needs.hello && !rights.hello) caps.emplace_back("allow class siphon hello");
  if (needs.grant_read && !rights.grant_read) {
    caps.push_back("allow class siphon grant_read" + of_pool);
  }
  if (needs.grant_write && !rights.grant_write) {
    caps.push_back("allow class siphon grant_write" + of_pool);
  }
  if (needs.any_grant && !rights.grant_read && !rights.grant_write) {
    caps.push_back("allow class siphon grant_write" + of_pool);
  }
  if (needs.write && !rights.write) {
    caps.push_back("allow rw" + of_pool);
  } else if (needs.read && !rights.read) {
    caps.push_back("allow r" + of_pool);
  }
  return caps;
}

std::optional<int> key_type(std::string_view base64_key) {
  if (base64_key.size() < 4) return std::nullopt;
  unsigned bits = 0;
  for (const char c : base64_key.substr(0, 4)) {
    const int digit = base64_digit(c);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<unsigned>(digit);
  }
  return static_cast<int>((bits >> 16 & 0xff) | (bits & 0xff00));  // two bytes, the low one first
}

}  // namespace siphon::cli::doctor
