// siphon: the command line. Defines the verbs for CLI11, runs one, prints its error.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/base/log.h"
#include "plugin/base/text.h"
#include "plugin/cli/address.h"
#include "plugin/cli/commands.h"
#include "plugin/cli/doctor/caps.h"
#include "plugin/cli/options.h"
#include "plugin/cli/stdio.h"
#include "plugin/cli/verbs.h"
#include "plugin/format/extent_format.h"

namespace siphon::cli {
namespace {

using Run = std::function<Result<int>(Session&)>;

constexpr const char* kFooter = R"(
Addresses:
  POOL/EXTENT, POOL/NAMESPACE/EXTENT   an extent on Ceph; POOL: all of the pool
  HOST:PORT/EXTENT                     an extent behind a folder's siphond (control address)
  posix:DIR/EXTENT                     an extent in a folder here; posix:DIR: all of it

A flag --some-name can be given as SIPHON_SOME_NAME; flags win over the environment, that wins over
CEPH_ARGS, CEPH_CONF and CEPH_KEYRING: see siphon config show. Flags that make a command lose,
overwrite or let pass something are given on its line alone, and a SIPHON_ variable of theirs is
refused: --accept-degraded, --all, --allow-changing, --corrupt-head, --drop-damaged, --force,
--purge, --replace, --yes-i-really-mean-it.

Exit status: 0 all verified and durable; 1 other; 2 usage; 3 not found; 4 permission; 5 temporary,
retry helps; 6 partial; 7 fatal, retry does not help; 8 stopped by a limit; 9 nothing to do;
11 needs --yes-i-really-mean-it; 12 cluster not fit; 130 interrupted; 141 the reader of stdout has
gone.)";

// What others call our verbs.
std::string_view synonym(std::string_view word) {
  static const std::map<std::string_view, std::string_view> known = {
      {"cp", "copy"},        {"mv", "move"},         {"rename", "move"},      {"list", "ls"},
      {"dir", "ls"},         {"delete", "rm"},       {"remove", "rm"},        {"del", "rm"},
      {"info", "stat"},      {"show", "stat"},       {"check", "verify"},     {"scrub", "verify"},
      {"cmp", "verify"},     {"diff", "verify"},     {"upload", "put"},       {"write", "put"},
      {"import", "put"},     {"download", "get"},    {"cat", "get"},          {"read", "get"},
      {"export", "get"},     {"devices", "daemons"}, {"status", "transfers"}, {"ps", "transfers"},
      {"jobs", "transfers"}, {"stop", "cancel"},     {"kill", "cancel"},      {"follow", "watch"},
      {"health", "doctor"},  {"diagnose", "doctor"}};
  const auto found = known.find(word);
  return found == known.end() ? std::string_view() : found->second;
}

std::string did_you_mean(std::string_view word) {
  return word.empty() ? std::string() : "; did you mean " + std::string(word) + "?";
}

CLI::ParseError unknown_verb(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(verb->get_name());
  }
  const std::vector<std::string_view> views(names.begin(), names.end());
  std::string_view best = synonym(word);
  if (std::ranges::find(views, best) == views.end()) best = closest(word, views);
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  const std::string owner = app.get_parent() == nullptr ? "siphon" : "siphon " + app.get_name();
  return {"'" + word + "' is no verb of " + owner +
              (best.empty() ? "; there are: " + all : did_you_mean(best)),
          CLI::ExitCodes::ExtrasError};
}

CLI::ParseError unknown_option(const CLI::App& app, const std::string& name) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& flag : option->get_lnames()) names.push_back("--" + flag);
  }
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string owner = app.get_parent() == nullptr ? "siphon" : "siphon " + app.get_name();
  return {owner + " has no option " + name + did_you_mean(closest(name, views)),
          CLI::ExitCodes::ExtrasError};
}

// Examples and their like stay line by line: CLI11 makes paragraphs of them since 2.5, and could
// not before.
template <typename Formatter>
void keep_lines(Formatter& formatter) {
  if constexpr (requires { formatter.enable_footer_formatting(false); }) {
    formatter.enable_footer_formatting(false);
    formatter.enable_description_formatting(false);
  }
}

// "siphon copy [OPTIONS] SOURCE... TARGET"
class VerbFormatter : public CLI::Formatter {
 public:
  VerbFormatter() { keep_lines(*this); }
  std::string make_usage(const CLI::App* app, std::string) const override {
    std::string usage = "Usage: siphon";
    if (app->get_parent() != nullptr && app->get_parent()->get_parent() != nullptr) {
      usage += " " + app->get_parent()->get_name();
    }
    usage += " " + app->get_name() + " [OPTIONS]";
    for (const CLI::Option* option : app->get_options()) {
      if (option->nonpositional() || !option->get_positional()) continue;
      const std::string name = option->get_name(true);
      if (name == "SOURCE") {  // the last of its words is another thing
        usage += app->get_name() == "verify" ? " SOURCE [TARGET]" : " SOURCE... TARGET";
        continue;
      }
      const std::string shown = option->get_expected_max() > 1 ? name + "..." : name;
      usage += option->get_required() ? " " + shown : " [" + shown + "]";
    }
    return usage + "\n";
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_positional()) return option->get_required() ? "" : " (optional)";
    return CLI::Formatter::make_option_opts(option);
  }
};

// An unset variable as a value would mean "of any age", "no limit", "all of them". --namespace ''
// is the one whose empty value is a thing of its own.
void refuse_empty_values(CLI::App& app) {
  const CLI::Validator given(
      [](const std::string& value) {
        return std::string(value.empty() ? "the value is empty: is a variable not set?" : "");
      },
      "");
  for (CLI::Option* option : app.get_options()) {
    if (option->get_expected_max() > 0 && !option->check_name("--namespace")) option->check(given);
  }
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; }))
    refuse_empty_values(*verb);
}

void add_every_verb(CLI::App& app, std::vector<CLI::App*>& chain) {
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
    if (std::ranges::find(chain, verb) == chain.end()) chain.push_back(verb);
    add_every_verb(*verb, chain);
  }
}

// Builds the command line; what a verb needs is bound to `options`.
class CommandLine {
 public:
  explicit CommandLine(Options& options) : options_(options) {
    keep_lines(*app_.get_formatter());
    app_.footer(kFooter);
    app_.set_version_flag("--version", std::string("siphon ") + SIPHON_VERSION);
    app_.require_subcommand(1);
    for (auto* add : {add_output_settings, add_ceph_settings, add_two_cluster_settings,
                      add_device_settings, add_transfer_settings}) {
      add(app_, options_);
    }
    define_data_verbs();
    define_looking_verbs();
    define_copy_verbs();
    define_device_verbs();
    define_trash_verbs();
    define_config_verb();
    refuse_empty_values(app_);
  }

  // Throws CLI::ParseError.
  void parse(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    ask_for_help(words);
    name_what_is_unknown(words);
    std::ranges::reverse(words);  // as CLI11 wants them
    app_.parse(std::move(words));
    CLI::App* verb = app_.get_subcommands().front();
    std::vector<CLI::App*> chain{&app_, verb};
    verb_name_ = verb->get_name();
    if (!verb->get_subcommands().empty()) {
      chain.push_back(verb->get_subcommands().front());
      verb_name_ += " " + chain.back()->get_name();
    }
    run_ = runs_.at(chain.back());
    if (const auto changes = changes_.find(chain.back()); changes != changes_.end()) {
      run_ = [run = std::move(run_), slash = changes->second](Session& session) -> Result<int> {
        for (const std::string& name : session.options().names) {
          SIPHON_TRY(check_names_something(name, slash));
        }
        return run(session);
      };
    }
    if (verb_name_ == "config show") add_every_verb(app_, chain);  // all that a variable may set
    apply_environment(chain, options_);
    for (const CLI::Option* option : chain.back()->get_options()) {
      if (option->get_name() == "FILE" && option->count() > 0)
        options_.origins["FILE"] = "argument";
    }
  }

  // What help and version say: CLI11 treats them as errors of code 0.
  std::string text(const CLI::ParseError& error) const {
    std::ostringstream text;
    (void)app_.exit(error, text, text);
    return text.str();
  }
  const std::string& verb_name() const { return verb_name_; }
  std::vector<std::string> verbs() const {
    std::vector<std::string> names;
    for (const CLI::App* verb : app_.get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(verb->get_name());
    }
    return names;
  }
  const Run& run() const { return run_; }

 private:
  CLI::App* add(CLI::App& parent, const std::string& name, const std::string& description,
                const std::string& examples, Run run) {
    CLI::App* verb = parent.add_subcommand(name, description);
    verb->formatter(std::make_shared<VerbFormatter>());
    verb->footer("\nExamples:\n" + examples);
    add_output_settings(*verb, options_);
    add_ceph_settings(*verb, options_);
    runs_[verb] = std::move(run);
    return verb;
  }
  void add_name(CLI::App* verb, const std::string& name, const std::string& description) {
    verb->add_option(name, options_.names, description)
        ->required()
        ->expected(1)
        ->allow_extra_args(false);
  }
  // For a verb that changes something, whose arguments are looked at as such.
  void add_dry_run(CLI::App* verb, NamespaceSlash slash = NamespaceSlash::kIsTaken) {
    verb->add_flag("--dry-run", options_.dry_run, "say what would be done, change nothing");
    changes_[verb] = slash;
  }
  void add_namespace(CLI::App* verb) {
    verb->add_option("--namespace", options_.nspace,
                     "what POOL means: only this namespace of it (default: all of them)")
        ->type_name("NS");
  }
  void add_confirmation(CLI::App* verb) {
    verb->add_flag("--yes-i-really-mean-it", options_.confirmed,
                   "confirm a removal or a replacement");
  }

  void ask_for_help(std::vector<std::string>& words) const;
  void name_what_is_unknown(const std::vector<std::string>& words);
  void define_data_verbs();
  void define_looking_verbs();
  void define_copy_verbs();
  void define_device_verbs();
  void define_trash_verbs();
  void define_config_verb();

  Options& options_;
  CLI::App app_{"siphon: move extents between storage daemons, out of band and proven", "siphon"};
  std::map<const CLI::App*, Run> runs_;
  std::map<const CLI::App*, NamespaceSlash> changes_;
  std::string verb_name_;
  Run run_;
};

// "siphon help copy" is "siphon copy --help".
void CommandLine::ask_for_help(std::vector<std::string>& words) const {
  if (words.empty() || words.front() != "help") return;
  words.erase(words.begin());
  words.emplace_back("--help");
}

// CLI11 says first what is missing; a word that it does not know is the better answer. Throws
// CLI::ParseError. Keeps the verb's name for errors.
void CommandLine::name_what_is_unknown(const std::vector<std::string>& words) {
  CLI::App* app = &app_;
  for (std::size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    const std::string& word = words[i];
    if (word.size() > 1 && word.front() == '-') {
      std::string name = word.substr(0, word.find('='));
      if (!word.starts_with("--")) name = word.substr(0, 2);
      const CLI::Option* option = app->get_option_no_throw(name);
      if (option == nullptr) option = app_.get_option_no_throw(name);
      const bool is_value = i > 0 && std::isdigit(static_cast<unsigned char>(word[1])) != 0;
      if (option == nullptr && !is_value) throw unknown_option(*app, name);
      if (option != nullptr && option->get_expected_max() > 0 && option->get_type_size() > 0 &&
          word == name) {
        ++i;  // its value
      }
      continue;
    }
    if (app->get_subcommands([](CLI::App*) { return true; }).empty()) continue;
    const auto verbs =
        app->get_subcommands([&](const CLI::App* verb) { return verb->get_name() == word; });
    CLI::App* verb = verbs.empty() ? nullptr : verbs.front();
    if (verb == nullptr) throw unknown_verb(*app, word);
    app = verb;
    verb_name_ += (verb_name_.empty() ? "" : " ") + word;
  }
}

void CommandLine::define_data_verbs() {
  auto* put = add(app_, "put", "make an extent from a file or a stream; visible only when complete",
                  "  siphon put p1/e1 /data/volume.img\n"
                  "  tar c /etc | siphon put p1/etc-backup -\n"
                  "  siphon put --expect-bytes 10M posix:/srv/a/e1 volume.img",
                  run_put);
  add_name(put, "EXTENT", "where to");
  put->add_option("FILE", options_.file,
                  "what; '-' is standard input (the default). A file that changes while it is read "
                  "is not put; a stream is taken as it comes, however it ended");
  put->add_option("--expect-bytes", options_.expect_bytes,
                  "publish only if the content has this length, as in 5.5G")
      ->transform(size_value())
      ->type_name("SIZE");
  put->add_option("--expect-sha256", options_.expect_sha256,
                  "publish only if the content has this SHA-256")
      ->type_name("HEX");
  put->add_flag("--allow-changing", options_.allow_changing,
                "put a file though it changes meanwhile");
  put->add_option("--block-size", options_.block_size, "content bytes per block, 4K to 4M")
      ->transform(size_value())
      ->check(CLI::Range(std::uint64_t{4096}, std::uint64_t{kMaxBlockBytes}))
      ->option_text("SIZE");
  put->add_flag("--open", options_.open, "leave it open: not sealed, not to be copied yet");
  put->add_flag("--replace", options_.replace, "replace an extent of that name");
  add_dry_run(put);
  add_confirmation(put);

  auto* get = add(app_, "get", "write an extent's content to a file, every block verified",
                  "  siphon get p1/e1 volume.img\n"
                  "  siphon get p1/etc-backup - | tar t\n"
                  "  siphon get --force posix:/srv/a/e1 volume.img",
                  run_get);
  add_name(get, "EXTENT", "which");
  get->add_option("FILE", options_.file,
                  "where to; '-' is standard output (the default). Appears only when all is right");
  get->add_flag(
      "--force", options_.force,
      "replace a file that is there (mode and owner stay, a symbolic link is followed), or "
      "write to a block device");

  auto* seal = add(app_, "seal", "seal an open extent after its last whole block",
                   "  siphon seal p1/e1\n"
                   "  siphon seal --dry-run p1/e1\n"
                   "  siphon seal posix:/srv/a/log-0042",
                   run_seal);
  add_name(seal, "EXTENT", "which");
  seal->add_flag(
      "--drop-damaged", options_.drop_damaged,
      "seal it also where whole blocks lie behind a damaged one, or what is there cannot "
      "be read: all from the first bad block on is removed for good");
  add_dry_run(seal);
  add_confirmation(seal);

  auto* rm = add(app_, "rm", "move extents to the trash, or remove them for good",
                 "  siphon rm --dry-run p1/e1\n"
                 "  siphon rm p1/e1 p1/e2 --yes-i-really-mean-it\n"
                 "  siphon rm --purge p1/e1 --yes-i-really-mean-it",
                 run_rm);
  rm->add_option("EXTENT", options_.names, "which")->required();
  rm->add_flag("--purge", options_.purge, "for good, with all that is in the name's trash");
  rm->add_flag("--corrupt-head", options_.corrupt_head,
               "give up a name whose head register does not decode: removes the register, and with "
               "it what is current, the trash and the attempts of the name; see --save");
  rm->add_option("--save", options_.save,
                 "with --corrupt-head: a new file that gets the register's bytes first (and "
                 "FILE.data the head's own, where it has some)")
      ->type_name("FILE");
  add_dry_run(rm);
  add_confirmation(rm);
}

void CommandLine::define_looking_verbs() {
  auto* ls = add(app_, "ls", "list the extents of a pool or a folder",
                 "  siphon ls p1\n"
                 "  siphon ls -l p1/backups/\n"
                 "  siphon ls -l -f json posix:/srv/a",
                 run_ls);
  add_name(ls, "STORE", "which");
  ls->add_flag("-l,--long", options_.long_listing,
               "with bytes, state, crc32, blocks and generation");
  add_namespace(ls);

  auto* stat = add(app_, "stat", "what is recorded of an extent",
                   "  siphon stat p1/e1\n"
                   "  siphon stat -f json-pretty p1/backups/e1\n"
                   "  siphon stat posix:/srv/a/e1",
                   run_stat);
  add_name(stat, "EXTENT", "which");

  auto* blocks = add(app_, "blocks", "list an extent's blocks: offset, length, SHA-256",
                     "  siphon blocks p1/e1\n"
                     "  siphon blocks -f json p1/e1\n"
                     "  siphon blocks posix:/srv/a/e1",
                     run_blocks);
  add_name(blocks, "EXTENT", "which");

  auto* verify = add(app_, "verify",
                     "re-read everything beside the device: every block's SHA-256 and the crc32; "
                     "with a TARGET also that both ends are the same",
                     "  siphon verify p1/e1\n"
                     "  siphon verify p1/e1 p2/e1\n"
                     "  siphon verify --local p1",
                     run_verify);
  add_two_cluster_settings(*verify, options_);
  add_device_settings(*verify, options_);
  verify
      ->add_option("SOURCE", options_.names,
                   "an extent or a store; then, if given, the TARGET to compare with")
      ->required()
      ->expected(1, 2);
  verify->add_flag("--local", options_.local, "read everything through this client");
  verify->add_flag("--exact", options_.exact, "also fail on extents that are only in the TARGET");
  add_namespace(verify);
}

void CommandLine::define_copy_verbs() {
  auto* copy = add(
      app_, "copy",
      "copy extents from device to device, out of band and proven: length and crc32 as sealed, at "
      "both ends (with --deep also every block's SHA-256)",
      "  siphon copy p1/e1 p2/e1\n"
      "  siphon copy --deep --receipts receipts.ndjson p1 p2\n"
      "  siphon copy --secret-file s 127.0.0.1:7411/e1 127.0.0.1:7412/",
      run_copy);
  auto* move = add(app_, "move", "copy, verify both ends anew, then trash the sources",
                   "  siphon move --dry-run p1/e1 p2\n"
                   "  siphon move p1/e1 p2/e1 --yes-i-really-mean-it\n"
                   "  siphon move --bwlimit 50M p1 p2 --yes-i-really-mean-it",
                   run_move);
  for (CLI::App* verb : {copy, move}) {
    add_two_cluster_settings(*verb, options_);
    add_device_settings(*verb, options_);
    add_transfer_settings(*verb, options_);
    verb->add_option("SOURCE", options_.names, "extents or stores; the last word is the TARGET")
        ->required()
        ->expected(2, -1);
    verb->add_flag("--replace", options_.replace, "replace extents of the same name at the target");
    verb->add_flag("--check", options_.check,
                   "read what is at the target already, too, before it is called there");
    verb->add_flag("--deep", options_.deep,
                   "publish nothing before every block's SHA-256 is compared with what the target "
                   "has stored: finds rot at the source that a header written anew hides; reads "
                   "everything once more at the target. Implies --check");
    add_namespace(verb);
    add_dry_run(verb);
    add_confirmation(verb);
  }
  move->add_flag("--accept-degraded", options_.accept_degraded,
                 "trash sources although their copies are not on all the OSDs that they should be");
}

void CommandLine::define_device_verbs() {
  auto* daemons = add(app_, "daemons", "the devices, as their daemons describe themselves",
                      "  siphon daemons\n"
                      "  siphon daemons p1 p2\n"
                      "  siphon daemons 127.0.0.1:7411/",
                      run_daemons);
  daemons->add_option("WHERE", options_.names, "pools, or HOST:PORT/ (default: all tagged pools)");

  auto* transfers = add(app_, "transfers", "the transfers that target devices know",
                        "  siphon transfers\n"
                        "  siphon transfers --all p2\n"
                        "  siphon transfers --secret-file s 127.0.0.1:7412/",
                        run_transfers);
  transfers->add_option(
      "WHERE", options_.names,
      "target pools, POOL/NAMESPACE/ or HOST:PORT/ (default: all tagged pools, with "
      "their namespaces)");
  transfers->add_flag("-a,--all", options_.finished, "also those that have ended");

  auto* watch = add(app_, "watch", "follow a transfer by its id",
                    "  siphon watch 0123456789abcdef0123456789abcdef\n"
                    "  siphon watch 0123456789abcdef0123456789abcdef p2\n"
                    "  siphon watch --secret-file s 0123456789abcdef0123456789abcdef "
                    "127.0.0.1:7412/",
                    run_watch);
  auto* cancel = add(app_, "cancel", "end a transfer; what it published stays",
                     "  siphon cancel 0123456789abcdef0123456789abcdef\n"
                     "  siphon cancel --dry-run 0123456789abcdef0123456789abcdef p2\n"
                     "  siphon cancel --secret-file s 0123456789abcdef0123456789abcdef "
                     "127.0.0.1:7412/",
                     run_cancel);
  add_dry_run(cancel);
  for (CLI::App* verb : {watch, cancel}) {
    verb->add_option("ID", options_.transfer_id, "the transfer, 32 hex digits")->required();
    verb->add_option("WHERE", options_.names,
                     "its target pool, or HOST:PORT/ (default: all tagged pools, with their "
                     "namespaces)");
  }

  auto* doctor = add(app_, "doctor",
                     "what is wrong with the cluster's Siphon, why it matters and what mends it; "
                     "changes nothing. 0: fit, 12: not",
                     "  siphon doctor\n"
                     "  siphon doctor --as client.mover --for copy,move p1 p2\n"
                     "  siphon doctor -f json p1",
                     run_doctor);
  doctor->add_option("POOL", options_.names,
                     "which; of several the last is the target (default: all tagged pools)");
  doctor->add_option("--as", options_.as_entity, "whose rights to look at (default: one's own)")
      ->type_name("TYPE.ID");
  doctor->add_option("--for", options_.verbs_wanted, "what it is to be able to do, as in copy,move")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(doctor::verb_names()))
      ->option_text("VERB,...");
  for (CLI::App* verb : {daemons, transfers, watch, cancel, doctor}) {
    add_device_settings(*verb, options_);
  }
}

void CommandLine::define_trash_verbs() {
  CLI::App* trash = app_.add_subcommand("trash", "what was removed or replaced, and can come back");
  trash->require_subcommand(1);
  auto* ls = add(*trash, "ls",
                 "list the trash of a store, or of one extent, with how long it has been there",
                 "  siphon trash ls p1\n"
                 "  siphon trash ls p1/e1\n"
                 "  siphon trash ls -f json posix:/srv/a",
                 run_trash_ls);
  auto* restore = add(*trash, "restore", "bring an extent back, byte for byte; never overwrites",
                      "  siphon trash restore p1/e1\n"
                      "  siphon trash restore --dry-run p1/e1\n"
                      "  siphon trash restore p1/e1 --private-id 0123456789abcdef0123456789abcdef",
                      run_trash_restore);
  auto* purge = add(*trash, "purge", "remove for good what is in the trash",
                    "  siphon trash purge --dry-run p1\n"
                    "  siphon trash purge --older-than 7d p1 --yes-i-really-mean-it\n"
                    "  siphon trash purge p1/e1 --yes-i-really-mean-it",
                    run_trash_purge);
  add_name(ls, "WHAT", "a store or an extent");
  add_name(restore, "EXTENT", "which");
  add_name(purge, "WHAT", "a store or an extent");
  for (CLI::App* verb : {restore, purge}) {
    verb->add_option("--private-id", options_.private_id,
                     "which generation, as trash ls shows it (restore: default the youngest)");
  }
  add_dry_run(restore);
  add_dry_run(purge, NamespaceSlash::kIsRefused);
  purge->add_option("--older-than", options_.older_than,
                    "only what has been there for so long: 90s, 30m, 12h, 7d");
  add_confirmation(purge);

  CLI::App* scratch =
      app_.add_subcommand("scratch", "attempts in progress, and what is left of ended ones");
  scratch->require_subcommand(1);
  auto* attempts =
      add(*scratch, "ls", "list attempts, with bytes and lease; and bytes that no head names",
          "  siphon scratch ls p1\n"
          "  siphon scratch ls p1/e1\n"
          "  siphon scratch ls -f json posix:/srv/a",
          run_scratch_ls);
  auto* end = add(*scratch, "purge", "remove attempts whose lease is over",
                  "  siphon scratch purge --dry-run p1\n"
                  "  siphon scratch purge p1\n"
                  "  siphon scratch purge --all p1/e1 --yes-i-really-mean-it",
                  run_scratch_purge);
  add_name(attempts, "WHAT", "a store or an extent");
  add_name(end, "WHAT", "a store or an extent");
  end->add_flag("-a,--all", options_.finished,
                "also those that may still run, which fail then; and bytes that no head names");
  add_dry_run(end, NamespaceSlash::kIsRefused);
  add_confirmation(end);
  for (CLI::App* verb : {ls, purge, attempts, end}) add_namespace(verb);
}

void CommandLine::define_config_verb() {
  CLI::App* config = app_.add_subcommand("config", "the settings");
  config->require_subcommand(1);
  auto* show = add(*config, "show",
                   "the value of all that a SIPHON_ variable can set, and where it came from",
                   "  siphon config show\n"
                   "  SIPHON_LANES=2 siphon config show\n"
                   "  siphon config show -f json --bwlimit 50M",
                   run_config_show);
  add_two_cluster_settings(*show, options_);
  add_device_settings(*show, options_);
  add_transfer_settings(*show, options_);
}

// Writes out what stdout holds; returns the exit status, which is `status` where that went well.
int flushed(int status) {
  const Status written = standard_output().flush();
  if (written) return status;
  if (written.error().reason == Reason::kClosedPipe) return static_cast<int>(Exit::kBrokenPipe);
  complain(error_text(written.error()));
  if (interrupt_flag().load()) return static_cast<int>(Exit::kInterrupted);
  // What failed before that says more.
  const bool failed = status != 0 && status != static_cast<int>(Exit::kNothingToDo);
  return failed ? status : static_cast<int>(Exit::kOther);
}

// Shows what a verb came to; returns the exit status.
int report_result(Session& session, const Result<int>& result) {
  session.meter().clear();
  int status = 0;
  if (result) {
    status = *result;
  } else if (session.interrupted()) {
    // Whatever the interrupt turned into on its way: a call that ended, a wait cut short.
    status = session.out().error(result.error(), Exit::kInterrupted);
  } else if (result.error().reason == Reason::kClosedPipe) {
    return static_cast<int>(Exit::kBrokenPipe);
  } else {
    status = session.out().error(result.error());
  }
  return flushed(status);
}

// Ends the process when all is said. librados would take itself down thread by thread, for 4 of
// the 32 ms of a `siphon stat`; its sockets the kernel closes as well.
[[noreturn]] void run_verb(const CommandLine& line, Options options) {
  set_commands(options, line.verbs());
  Session session(std::move(options), line.verb_name());
  const int status = report_result(session, line.run()(session));
  ::_exit(status);
}

// For errors of the command line itself, before --format is understood.
bool wants_json(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool two_words = (word == "-f" || word == "--format") && i + 1 < argc;
    const std::string_view value = two_words ? std::string_view(argv[i + 1]) : word;
    if (value == "-fjson" || value == "-fjson-pretty" || value == "--format=json" ||
        value == "--format=json-pretty" || (two_words && value.starts_with("json"))) {
      return true;
    }
  }
  const char* format = std::getenv("SIPHON_FORMAT");
  return format != nullptr && std::string_view(format).starts_with("json");
}

int run(int argc, char** argv) {
  hold_standard_descriptors();
  install_signal_handlers();
  log::setup("error", "");
  Options options;
  CommandLine line(options);
  try {
    line.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // Help and version come this way, too, and are no errors.
    if (error.get_exit_code() == 0) {
      standard_output().write(line.text(error));
      return flushed(0);
    }
    Output out(wants_json(argc, argv) ? Format::kJson : Format::kPlain, line.verb_name());
    return flushed(
        out.error({Code::kInvalidArgument, error.what(), Side::kRequester,
                   "siphon " + line.verb_name() + (line.verb_name().empty() ? "" : " ") + "--help"},
                  Exit::kUsage));
  }
  run_verb(line, options);
}

}  // namespace
}  // namespace siphon::cli

int main(int argc, char** argv) {
  try {
    return siphon::cli::run(argc, argv);
  } catch (const std::exception& e) {
    siphon::cli::complain(e.what());
    return static_cast<int>(siphon::cli::Exit::kOther);
  }
}
