// The commands in messages, such that they work when pasted: with the connection that the user
// named on the command line. What came from the environment is there for the next command, too.
//
// Set once, before anything else is said; then thread safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace siphon::cli {

struct Options;
struct ClusterOptions;

// `verbs`: the words behind "siphon" that make a command of it.
void set_commands(const Options& options, std::vector<std::string> verbs);

// " --conf /etc/a.conf --secret-file s", or nothing: what the user named, for both of two clusters.
std::string connection_words(const Options& options);
// The same where a command is about `cluster` alone, which `options` gives to one of the two ends.
std::string connection_words(const Options& options, const ClusterOptions& cluster);

// Every "siphon VERB" in `text` becomes "siphon CONNECTION VERB", and a command of ceph's has the
// cluster that was named.
std::string pasteable(std::string_view text);

// As a shell reads it as one word.
std::string shell_word(const std::string& word);

}  // namespace siphon::cli
