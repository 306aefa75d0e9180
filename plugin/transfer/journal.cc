#include "plugin/transfer/journal.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <optional>
#include <system_error>
#include <thread>

#include "plugin/base/log.h"
#include "plugin/core/mutex.h"
#include "plugin/transfer/receipt_record.h"

namespace siphon {

namespace {

constexpr char kInMemory[] = ":memory:";
// How long what may wait waits for more of its kind.
constexpr std::chrono::milliseconds kGather{20};
constexpr std::size_t kPruneEvery = 10'000;
constexpr std::size_t kMaxUnremoved = 10'000;

constexpr char kSchema[] =
    "PRAGMA journal_mode=WAL;"
    "CREATE TABLE IF NOT EXISTS attempts(private_id TEXT PRIMARY KEY, pool TEXT NOT NULL,"
    " pool_id INTEGER NOT NULL, namespace TEXT NOT NULL, extent TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS receipts(seq INTEGER PRIMARY KEY, transfer TEXT NOT NULL,"
    " finished_unix_ms INTEGER NOT NULL, record BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS watched(extent TEXT NOT NULL, private_id TEXT NOT NULL,"
    " trashed_unix_ms INTEGER NOT NULL, watched_ms INTEGER NOT NULL);"
    "CREATE INDEX IF NOT EXISTS receipts_by_transfer ON receipts(transfer);";

// What is written in one transaction.
struct Batch {
  std::vector<Attempt> adds;
  std::vector<PrivateId> removes;
  std::vector<Receipt> receipts;
  bool written = false;
  Status status;

  bool empty() const { return adds.empty() && removes.empty() && receipts.empty(); }
};

// The lock that says whose the journal is. Held as long as the descriptor is open.
Result<int> lock_journal(const std::string& file) {
  const std::string path = file + ".lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return fail(error_from_errno(errno, "open " + path));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    std::string pid(32, '\0');
    const ssize_t got = ::pread(fd, pid.data(), pid.size(), 0);
    pid.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    ::close(fd);
    if (error != EWOULDBLOCK) return fail(error_from_errno(error, "lock " + path));
    return fail(Code::kFailedPrecondition,
                "the journal " + file + " is in use by the siphond with pid " +
                    (pid.empty() ? std::string("(unknown)") : pid),
                Side::kNone, "stop that one first, or give this one a journal.file of its own");
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    log::warn("cannot write this pid to {}", path);  // the lock itself holds
  }
  return fd;
}

}  // namespace

bool outlasts_the_host(const std::string& folder) {
  struct statfs fs {};
  return ::statfs(folder.c_str(), &fs) == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
}

class AttemptJournal::Impl {
 public:
  ~Impl() {
    if (writer_.joinable()) {
      writer_.request_stop();
      changed_.notify_all();
      writer_.join();
    }
    if (db_ != nullptr) flush();
    close_db();
    if (lock_fd_ >= 0) ::close(lock_fd_);
  }

  Status open(const std::string& file, std::string* set_aside) {
    if (file != kInMemory) {
      const std::filesystem::path folder = std::filesystem::path(file).parent_path();
      std::error_code error;
      if (!folder.empty() && !std::filesystem::exists(folder, error)) {
        std::filesystem::create_directories(folder, error);
        if (error) return fail(error_from_errno(error.value(), "create " + folder.string()));
        std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
      }
      auto lock = lock_journal(file);
      if (!lock) return fail(std::move(lock).error());
      lock_fd_ = *lock;
    }
    SIPHON_TRY(open_or_begin_anew(file, set_aside));
    try {
      writer_ = std::jthread([this](std::stop_token stop) { write_soon(std::move(stop)); });
    } catch (const std::system_error&) {
      log::warn("no thread for the journal's writer: each row is written by itself");
    }
    return {};
  }

  Status add(const Attempt& attempt) {
    MutexLock lock(mutex_);
    const std::shared_ptr<Batch> batch = waiting_;
    batch->adds.push_back(attempt);
    while (!batch->written) write_or_wait(lock);
    if (!batch->status) return fail(batch->status.error());
    return {};
  }

  // `put` adds to the batch that waits; the writer takes it from there.
  template <typename Put>
  void soon(const Put& put) {
    {
      const MutexLock lock(mutex_);
      put(*waiting_);
    }
    if (writer_.joinable()) {
      changed_.notify_all();
    } else {
      flush();
    }
  }

  void flush() {
    MutexLock lock(mutex_);
    const std::shared_ptr<Batch> batch = waiting_;
    take_unremoved(*batch);
    if (batch->empty() && !writing_) return;
    while (!batch->written && !(batch->empty() && !writing_)) write_or_wait(lock);
  }

  Result<std::vector<Attempt>> all() {
    flush();
    const MutexLock lock(db_mutex_);
    std::vector<Attempt> rows;
    int rc = 0;
    while ((rc = sqlite3_step(all_)) == SQLITE_ROW) {
      Attempt a{
          {text(all_, 1), text(all_, 3), sqlite3_column_int64(all_, 2)}, text(all_, 4), {}, {}};
      if (from_hex(text(all_, 0), a.private_id.bytes)) rows.push_back(std::move(a));
    }
    sqlite3_reset(all_);
    if (rc != SQLITE_DONE) return fail(error("read"));
    return rows;
  }

  Result<std::vector<Watched>> watched() {
    const MutexLock lock(db_mutex_);
    std::vector<Watched> rows;
    int rc = 0;
    while ((rc = sqlite3_step(watched_)) == SQLITE_ROW) {
      Watched w{text(watched_, 0), {}, unsigned_at(watched_, 2), unsigned_at(watched_, 3)};
      if (from_hex(text(watched_, 1), w.private_id.bytes)) rows.push_back(std::move(w));
    }
    sqlite3_reset(watched_);
    if (rc != SQLITE_DONE) return fail(error("read"));
    return rows;
  }

  Status keep_watched(const std::vector<Watched>& all) {
    const MutexLock lock(db_mutex_);
    if (sqlite3_exec(db_, "PRAGMA synchronous=NORMAL; BEGIN IMMEDIATE; DELETE FROM watched",
                     nullptr, nullptr, nullptr) != SQLITE_OK) {
      Status failed = fail(error("begin"));
      sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
      return failed;
    }
    Status status;
    for (auto w = all.begin(); status && w != all.end(); ++w) {
      bind(watch_, 1, w->extent);
      bind(watch_, 2, to_hex(w->private_id));
      sqlite3_bind_int64(watch_, 3, static_cast<sqlite3_int64>(w->trashed_unix_ms));
      sqlite3_bind_int64(watch_, 4, static_cast<sqlite3_int64>(w->watched_ms));
      status = step(watch_);
    }
    if (status && sqlite3_exec(db_, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    if (status) status = fail(error("commit"));
    sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    return status;
  }

  Result<std::vector<Receipt>> receipts_of(const std::string& transfer_id) {
    flush();
    const MutexLock lock(db_mutex_);
    std::vector<Receipt> receipts;
    bind(receipts_of_, 1, transfer_id);
    int rc = 0;
    while ((rc = sqlite3_step(receipts_of_)) == SQLITE_ROW) {
      if (auto receipt = decode_receipt(text(receipts_of_, 0))) {
        receipts.push_back(std::move(*receipt));
      }
    }
    sqlite3_reset(receipts_of_);
    if (rc != SQLITE_DONE) return fail(error("read"));
    return receipts;
  }

 private:
  Error error(const char* what) const SIPHON_REQUIRES(db_mutex_) {
    return {Code::kInternal,
            std::string("attempt journal: ") + what + ": " +
                (db_ != nullptr ? sqlite3_errmsg(db_) : "out of memory"),
            Side::kNone, "check the disk that holds the journal"};
  }

  static std::string text(sqlite3_stmt* statement, int column) {
    const void* p = sqlite3_column_blob(statement, column);
    const auto length = static_cast<std::size_t>(sqlite3_column_bytes(statement, column));
    return p != nullptr ? std::string(static_cast<const char*>(p), length) : std::string();
  }
  static std::uint64_t unsigned_at(sqlite3_stmt* statement, int column) {
    return static_cast<std::uint64_t>(sqlite3_column_int64(statement, column));
  }
  static void bind(sqlite3_stmt* statement, int index, const std::string& value) {
    sqlite3_bind_text(statement, index, value.data(), static_cast<int>(value.size()),
                      SQLITE_TRANSIENT);
  }

  // ---- the file ----

  // Who may read the file may take SQLite's locks of it. Those beside it get its mode.
  static void keep_private(const std::string& file) {
    if (file == kInMemory) return;
    const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return;  // SQLite says why
    if (::fchmod(fd, 0600) != 0) log::warn("cannot make {} its owner's alone", file);
    ::close(fd);
  }

  int open_db(const std::string& file) SIPHON_REQUIRES(db_mutex_) {
    keep_private(file);
    if (int rc = sqlite3_open(file.c_str(), &db_); rc != SQLITE_OK) return rc;
    sqlite3_busy_timeout(db_, 5000);
    if (int rc = sqlite3_exec(db_, kSchema, nullptr, nullptr, nullptr); rc != SQLITE_OK) return rc;
    if (int rc = check(); rc != SQLITE_OK) return rc;
    for (const auto& [sql, statement] :
         std::initializer_list<std::pair<const char*, sqlite3_stmt**>>{
             {"INSERT OR REPLACE INTO attempts VALUES(?,?,?,?,?)", &add_},
             {"DELETE FROM attempts WHERE private_id=?", &remove_},
             {"SELECT private_id, pool, pool_id, namespace, extent FROM attempts", &all_},
             {"SELECT extent, private_id, trashed_unix_ms, watched_ms FROM watched", &watched_},
             {"INSERT INTO watched VALUES(?,?,?,?)", &watch_},
             {"INSERT INTO receipts VALUES(NULL,?,?,?)", &note_},
             {"SELECT record FROM receipts WHERE transfer=? ORDER BY seq", &receipts_of_}}) {
      if (int rc = sqlite3_prepare_v2(db_, sql, -1, statement, nullptr); rc != SQLITE_OK) return rc;
    }
    return SQLITE_OK;
  }

  Status open_or_begin_anew(const std::string& file, std::string* set_aside) {
    const MutexLock lock(db_mutex_);
    int rc = open_db(file);
    if (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == SQLITE_ERROR) {
      const std::string why = error("read").message;
      close_db();
      SIPHON_TRY(put_aside(file, why, set_aside));
      rc = open_db(file);
    }
    if (rc != SQLITE_OK) return fail(error(("open " + file).c_str()));
    return prune();
  }

  // Looks at every page: better found damaged now than by a row that is missing later.
  int check() SIPHON_REQUIRES(db_mutex_) {
    sqlite3_stmt* statement = nullptr;
    int rc = sqlite3_prepare_v2(db_, "PRAGMA quick_check(1)", -1, &statement, nullptr);
    if (rc == SQLITE_OK) {
      rc = sqlite3_step(statement) == SQLITE_ROW && text(statement, 0) == "ok" ? SQLITE_OK
                                                                               : SQLITE_CORRUPT;
    }
    sqlite3_finalize(statement);
    return rc;
  }

  void close_db() SIPHON_REQUIRES(db_mutex_) {
    for (sqlite3_stmt** s : {&add_, &remove_, &all_, &watched_, &watch_, &note_, &receipts_of_}) {
      sqlite3_finalize(*s);
      *s = nullptr;
    }
    sqlite3_close(db_);
    db_ = nullptr;
  }

  Status put_aside(const std::string& file, const std::string& why, std::string* set_aside) {
    const std::string aside = file + ".damaged-" + std::to_string(now_unix_ms());
    for (const char* tail : {"", "-wal", "-shm"}) {
      std::error_code error;
      std::filesystem::rename(file + tail, aside + tail, error);
      if (error && error != std::errc::no_such_file_or_directory) {
        return fail(error_from_errno(error.value(), "set the damaged journal " + file + " aside"));
      }
    }
    log::warn(
        "the journal {} is damaged ({}): it is now {}, and a new one was begun; scratch that only "
        "it "
        "named stays until its lease ends: siphon scratch ls",
        file, why, aside);
    if (set_aside != nullptr) *set_aside = aside;
    return {};
  }

  Status prune() SIPHON_REQUIRES(db_mutex_) {
    const std::uint64_t now = now_unix_ms();
    const std::uint64_t oldest = now > kKeepReceiptsMs ? now - kKeepReceiptsMs : 0;
    const std::string sql =
        "DELETE FROM receipts WHERE seq <= (SELECT coalesce(max(seq), 0) FROM receipts) - " +
        std::to_string(kMaxReceipts) + " OR finished_unix_ms < " + std::to_string(oldest);
    if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    return fail(error("prune"));
  }

  // ---- writing ----

  void take_unremoved(Batch& batch) SIPHON_REQUIRES(mutex_) {
    batch.removes.insert(batch.removes.end(), unremoved_.begin(), unremoved_.end());
    unremoved_.clear();
  }

  // Writes what waits, or waits until somebody else has.
  void write_or_wait(MutexLock& lock) SIPHON_REQUIRES(mutex_) {
    if (writing_) {
      changed_.wait(lock);
      return;
    }
    writing_ = true;
    const std::shared_ptr<Batch> batch = std::exchange(waiting_, std::make_shared<Batch>());
    take_unremoved(*batch);
    Status status;
    {
      const MutexUnlock unlock(mutex_);
      status = write(*batch);
      if (!status) log::warn("{}", status.error().message);
    }
    // Rows that are of no use any more go with the next batch.
    if (!status && unremoved_.size() < kMaxUnremoved) {
      unremoved_.insert(unremoved_.end(), batch->removes.begin(), batch->removes.end());
    }
    batch->status = std::move(status);
    batch->written = true;
    writing_ = false;
    changed_.notify_all();
  }

  void write_soon(std::stop_token stop) {
    MutexLock lock(mutex_);
    while (changed_.wait(lock, stop,
                         [this]() SIPHON_REQUIRES(mutex_) { return !waiting_->empty(); })) {
      changed_.wait_for(lock, stop, kGather, [] { return false; });
      if (!waiting_->empty()) write_or_wait(lock);
    }
  }

  // One transaction. Synced when it names scratch: nothing else can be found again by nobody.
  Status write(const Batch& batch) {
    const MutexLock lock(db_mutex_);
    const char* begin = batch.adds.empty() ? "PRAGMA synchronous=NORMAL; BEGIN IMMEDIATE"
                                           : "PRAGMA synchronous=FULL; BEGIN IMMEDIATE";
    if (sqlite3_exec(db_, begin, nullptr, nullptr, nullptr) != SQLITE_OK) {
      return fail(error("begin"));
    }
    Status status = write_rows(batch);
    if (status && sqlite3_exec(db_, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK) {
      return since_prune_ >= kPruneEvery ? (since_prune_ = 0, prune()) : Status{};
    }
    if (status) status = fail(error("commit"));
    sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    return status;
  }

  Status write_rows(const Batch& batch) SIPHON_REQUIRES(db_mutex_) {
    for (const Attempt& a : batch.adds) {
      bind(add_, 1, to_hex(a.private_id));
      bind(add_, 2, a.location.pool);
      sqlite3_bind_int64(add_, 3, a.location.pool_id);
      bind(add_, 4, a.location.nspace);
      bind(add_, 5, a.extent);
      SIPHON_TRY(step(add_));
    }
    for (const PrivateId& id : batch.removes) {
      bind(remove_, 1, to_hex(id));
      SIPHON_TRY(step(remove_));
    }
    for (const Receipt& receipt : batch.receipts) {
      const std::string record = encode_receipt(receipt);
      bind(note_, 1, receipt.transfer_id);
      sqlite3_bind_int64(note_, 2, static_cast<sqlite3_int64>(receipt.finished_unix_ms));
      sqlite3_bind_blob(note_, 3, record.data(), static_cast<int>(record.size()), SQLITE_TRANSIENT);
      SIPHON_TRY(step(note_));
    }
    since_prune_ += batch.receipts.size();
    return {};
  }

  Status step(sqlite3_stmt* statement) SIPHON_REQUIRES(db_mutex_) {
    const int rc = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (rc != SQLITE_DONE) return fail(error("write"));
    return {};
  }

  int lock_fd_ = -1;

  Mutex db_mutex_;
  sqlite3* db_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* add_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* remove_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* all_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* watched_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* watch_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* note_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  sqlite3_stmt* receipts_of_ SIPHON_GUARDED_BY(db_mutex_) = nullptr;
  std::size_t since_prune_ SIPHON_GUARDED_BY(db_mutex_) = 0;

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::shared_ptr<Batch> waiting_ SIPHON_GUARDED_BY(mutex_) = std::make_shared<Batch>();
  std::vector<PrivateId> unremoved_ SIPHON_GUARDED_BY(mutex_);  // whose batch failed
  bool writing_ SIPHON_GUARDED_BY(mutex_) = false;
  std::jthread writer_;
};

AttemptJournal::AttemptJournal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AttemptJournal::~AttemptJournal() = default;

Result<std::unique_ptr<AttemptJournal>> AttemptJournal::open(const std::string& file,
                                                             std::string* set_aside) {
  auto impl = std::make_unique<Impl>();
  SIPHON_TRY(impl->open(file, set_aside));
  return std::unique_ptr<AttemptJournal>(new AttemptJournal(std::move(impl)));
}

Status AttemptJournal::add(const Attempt& attempt) { return impl_->add(attempt); }

void AttemptJournal::remove(const PrivateId& id) {
  impl_->soon([&](Batch& batch) { batch.removes.push_back(id); });
}

Result<std::vector<Attempt>> AttemptJournal::all() { return impl_->all(); }

Result<std::vector<Watched>> AttemptJournal::watched() { return impl_->watched(); }

Status AttemptJournal::keep_watched(const std::vector<Watched>& all) {
  return impl_->keep_watched(all);
}

void AttemptJournal::note(Receipt receipt) {
  impl_->soon([&](Batch& batch) { batch.receipts.push_back(std::move(receipt)); });
}

Result<std::vector<Receipt>> AttemptJournal::receipts_of(const std::string& transfer_id) {
  return impl_->receipts_of(transfer_id);
}

}  // namespace siphon
