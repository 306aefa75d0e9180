#include "plugin/transfer/journal.h"

#include <sqlite3.h>

#include <mutex>

namespace siphon {

class AttemptJournal::Impl {
 public:
  ~Impl() {
    for (sqlite3_stmt* s : {add_, remove_, all_}) sqlite3_finalize(s);
    sqlite3_close(db_);
  }

  Error error(const char* what) const {
    return {Code::kInternal,
            std::string("attempt journal: ") + what + ": " +
                (db_ != nullptr ? sqlite3_errmsg(db_) : "out of memory"),
            Side::kNone, "check the disk that holds the journal"};
  }

  Status open(const std::string& file) {
    if (sqlite3_open(file.c_str(), &db_) != SQLITE_OK) return fail(error(("open " + file).c_str()));
    sqlite3_busy_timeout(db_, 5000);
    const char* schema =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        "CREATE TABLE IF NOT EXISTS attempts(private_id TEXT PRIMARY KEY, pool TEXT NOT NULL,"
        " namespace TEXT NOT NULL, extent TEXT NOT NULL);";
    if (sqlite3_exec(db_, schema, nullptr, nullptr, nullptr) != SQLITE_OK) {
      return fail(error("create"));
    }
    SIPHON_TRY(prepare("INSERT OR REPLACE INTO attempts VALUES(?,?,?,?)", &add_));
    SIPHON_TRY(prepare("DELETE FROM attempts WHERE private_id=?", &remove_));
    return prepare("SELECT private_id, pool, namespace, extent FROM attempts", &all_);
  }

  Status run(sqlite3_stmt* statement, const std::vector<std::string>& values) {
    std::lock_guard lock(mutex_);
    sqlite3_reset(statement);
    for (std::size_t i = 0; i < values.size(); ++i) {
      sqlite3_bind_text(statement, static_cast<int>(i) + 1, values[i].data(),
                        static_cast<int>(values[i].size()), SQLITE_TRANSIENT);
    }
    const int rc = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (rc != SQLITE_DONE) return fail(error("write"));
    return {};
  }

  Result<std::vector<Attempt>> all() {
    std::lock_guard lock(mutex_);
    std::vector<Attempt> rows;
    auto text = [&](int column) {
      const auto* p = reinterpret_cast<const char*>(sqlite3_column_text(all_, column));
      return std::string(p != nullptr ? p : "");
    };
    int rc = 0;
    while ((rc = sqlite3_step(all_)) == SQLITE_ROW) {
      Attempt a{{text(1), text(2)}, text(3), {}};
      if (from_hex(text(0), a.private_id.bytes)) rows.push_back(std::move(a));
    }
    sqlite3_reset(all_);
    if (rc != SQLITE_DONE) return fail(error("read"));
    return rows;
  }

  sqlite3_stmt* add_ = nullptr;
  sqlite3_stmt* remove_ = nullptr;

 private:
  Status prepare(const char* sql, sqlite3_stmt** out) {
    if (sqlite3_prepare_v2(db_, sql, -1, out, nullptr) != SQLITE_OK) return fail(error(sql));
    return {};
  }

  std::mutex mutex_;
  sqlite3* db_ = nullptr;
  sqlite3_stmt* all_ = nullptr;
};

AttemptJournal::AttemptJournal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AttemptJournal::~AttemptJournal() = default;

Result<std::unique_ptr<AttemptJournal>> AttemptJournal::open(const std::string& file) {
  auto impl = std::make_unique<Impl>();
  SIPHON_TRY(impl->open(file));
  return std::unique_ptr<AttemptJournal>(new AttemptJournal(std::move(impl)));
}

Status AttemptJournal::add(const Attempt& a) {
  return impl_->run(impl_->add_,
                    {to_hex(a.private_id), a.location.pool, a.location.nspace, a.extent});
}

Status AttemptJournal::remove(const PrivateId& id) {
  return impl_->run(impl_->remove_, {to_hex(id)});
}

Result<std::vector<Attempt>> AttemptJournal::all() { return impl_->all(); }

}  // namespace siphon
