// How the checks report: the words that several of them use. For checks*.cc alone.
//
// Functions and values; thread compatible.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plugin/cli/doctor/checks.h"

namespace siphon::cli::doctor {

// One check's findings about one thing.
class Reporter {
 public:
  Reporter(Findings& out, std::string check, std::string about)
      : out_(out), check_(std::move(check)), about_(std::move(about)) {}

  void ok(std::string what) { add(Severity::kOk, std::move(what), {}, {}); }
  void unseen(const std::string& what, const std::string& because, std::string mend = {}) {
    add(Severity::kNote, what + ": not seen from here: " + because, {}, std::move(mend));
    out_.back().seen = false;
  }
  void note(std::string what, std::string why, std::string mend) {
    add(Severity::kNote, std::move(what), std::move(why), std::move(mend));
  }
  void warning(std::string what, std::string why, std::string mend) {
    add(Severity::kWarning, std::move(what), std::move(why), std::move(mend));
  }
  void error(std::string what, std::string why, std::string mend) {
    add(Severity::kError, std::move(what), std::move(why), std::move(mend));
  }

 private:
  void add(Severity severity, std::string what, std::string why, std::string mend) {
    out_.push_back(
        {check_, severity, true, about_, std::move(what), std::move(why), std::move(mend)});
  }
  Findings& out_;
  const std::string check_, about_;
};

std::string name_of(const OsdFacts& osd);  // "osd.3"

// The OSDs that can say something, or one finding that says why there are none.
std::vector<const OsdFacts*> living(const Facts& facts, const std::string& check,
                                    const std::string& what, Findings& out);

// A command for the OSD's host, which is named behind it.
std::string at_host(const OsdFacts& osd, const std::string& command);
// "systemctl restart ceph-osd@3"
std::string restart(const OsdFacts& osd);

// Of a list as Ceph's options have them.
std::vector<std::string> words_of_list(const std::string& text);
std::string joined(const std::vector<std::string>& parts, const std::string& between = ", ");

// "16.2.15"; nothing: not of this form.
using Version = std::array<int, 3>;
std::optional<Version> parse_version(const std::string& text);

}  // namespace siphon::cli::doctor
