#include "kedge/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "claims/bundle.h"
#include "claims/environment.h"
#include "claims/gates.h"
#include "claims/verify_run.h"
#include "claims/verify_summary.h"
#include "generate/session.h"
#include "kedge/error.h"
#include "record/envelope.h"
#include "record/provenance.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

constexpr auto kReplace = Json::error_handler_t::replace;

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder.string() + ": " + error.message());
}

// A run that was stopped goes on only with what it was registered with.
Protocol resume_protocol(Protocol fresh, const fs::path& out) {
  RegisteredProtocol earlier = read_protocol(out);
  if (earlier.sha256 != fresh.sha256() || earlier.protocol.sha256() != fresh.sha256()) {
    throw Error(ErrorCode::mismatch, out.string() + " holds a run of other claims, of other tracks or another profile",
                "the ones it was registered with", "choose another folder");
  }
  if (earlier.protocol.git_hash != fresh.git_hash || earlier.protocol.kedge_version != fresh.kedge_version) {
    throw Error(
        ErrorCode::mismatch,
        fmt::format("{} holds a run of kedge {} (git {}), this is {} (git {})", out.string(),
                    earlier.protocol.kedge_version, earlier.protocol.git_hash, fresh.kedge_version, fresh.git_hash),
        "the same build", "choose another folder");
  }
  fresh.run_id = earlier.protocol.run_id;
  fresh.started = earlier.protocol.started;
  return fresh;
}

Protocol open_bundle(const VerifyOptions& options, std::span<const TrackRow> rows) {
  if (options.profile != "quick" && options.profile != "full") {
    throw Error(ErrorCode::usage, "the profile is \"" + options.profile + "\"", "quick or full");
  }
  for (const std::string& track : options.tracks) {
    const bool known = std::any_of(rows.begin(), rows.end(), [&](const TrackRow& row) { return track == row.track; });
    if (!known) throw Error(ErrorCode::usage, "there is no track " + track, "Q, QS, P, PS, DB, T, X, R or S");
  }
  std::error_code no_folder;
  if (!options.data.empty() && !fs::is_directory(options.data, no_folder)) {
    throw Error(ErrorCode::not_found, options.data.string() + " is no folder",
                "the folder with the four files of MNIST");
  }
  Protocol protocol = register_claims(read_claims(options.claims), options.profile, options.tracks);
  for (const Claim& claim : protocol.claims) {
    const TrackRow& row = find_track(claim, rows);
    if (row.check != nullptr) row.check(claim);
  }
  std::error_code ignored;
  const bool there = fs::exists(options.out / "protocol.json", ignored);
  if (there && !options.resume) {
    throw Error(ErrorCode::exists, options.out.string() + " holds a bundle", "",
                "give --resume to go on with it, or choose another folder");
  }
  if (fs::exists(options.out, ignored) && !there && !fs::is_empty(options.out, ignored)) {
    throw Error(ErrorCode::exists, options.out.string() + " holds something else than a bundle", "an empty folder");
  }
  if (there) return resume_protocol(std::move(protocol), options.out);
  write_protocol(protocol, options.out);
  return protocol;
}

class Run {
 public:
  Run(const VerifyOptions& options, const TorchTracks& torch, std::span<const TrackRow> rows)
      : options_(options),
        torch_(torch),
        rows_(rows),
        protocol_(open_bundle(options, rows)),
        load_(make_load_options(options.runtime)),
        threads_(ThreadPool(options.runtime.threads).size()),
        before_(machine_state().dump(-1, ' ', false, kReplace)) {
    make_folder(options.out / "records");
    make_folder(options.out / "logs");
  }

  void all() {
    for (std::size_t first = 0, end = 0; first < rows_.size(); first = end) {
      while (end < rows_.size() && together(rows_[first], rows_[end])) ++end;
      const std::span<const TrackRow> group = rows_.subspan(first, end - first);
      std::vector<TrackJob> jobs;
      for (const TrackRow& row : group) {
        for (const Claim& claim : protocol_.claims) {
          if (&find_track(claim, rows_) == &row && !has_record(claim)) jobs.push_back({&claim, protocol_.size(claim)});
        }
      }
      if (!jobs.empty()) measure(group, jobs);
    }
    for (const TrackRow& row : rows_) finish_log(row.track);
    write_environment();
  }

 private:
  // Of this run and of this text; others are measured again, and what was missing may be there now.
  bool has_record(const Claim& claim) const {
    const fs::path file = options_.out / "records" / (claim.name + ".json");
    std::error_code ignored;
    if (!fs::exists(file, ignored)) return false;
    try {
      const ClaimRecord record = parse_record(read_json(file), file.string());
      return record.run_id == protocol_.run_id && record.claim_sha256 == claim.sha256 && record.ran;
    } catch (const Error&) {
      return false;
    }
  }

  // Rows of one subject that stand side by side run in one go: what they measure is loaded or trained once.
  static bool together(const TrackRow& a, const TrackRow& b) {
    return &a == &b || (a.run != nullptr && a.run == b.run && std::string_view(a.subject) == b.subject);
  }

  void measure(std::span<const TrackRow> group, const std::vector<TrackJob>& jobs) {
    const TrackRow& row = group.front();
    if (row.missing != nullptr) {
      for (const TrackJob& job : jobs) {
        TrackOutcome outcome;
        outcome.not_run = row.missing, outcome.missing_subject = true;
        take(job, std::move(outcome));
      }
      return;
    }
    std::set<std::string> tracks;
    for (const TrackRow& each : group) {
      const auto claims =
          std::count_if(jobs.begin(), jobs.end(), [&](const TrackJob& job) { return job.claim->track == each.track; });
      if (claims == 0) continue;
      const std::string title = fmt::format("track {} ({}): {}", each.track, each.subject, each.shows);
      tracks.insert(each.track);
      log(each.track, title);
      note(fmt::format("{}, {} claims", title, claims));
    }
    const fs::path scratch = scratch_folder(options_.out) / row.subject;
    make_folder(scratch);
    std::set<const Claim*> done;
    TrackContext context;
    context.runtime = options_.runtime, context.tuners = torch_.tuners, context.train = torch_.train;
    context.data = options_.data, context.bundle = options_.out;
    context.scratch = scratch;
    context.log = [&](const std::string& line) {
      for (const std::string& track : tracks) log(track, line);
    };
    context.done = [&](const TrackJob& job, TrackOutcome outcome) {
      take(job, std::move(outcome));
      done.insert(job.claim);
    };
    run_guarded(row, jobs, context, done);
  }

  // What goes wrong in a track is the reason of its claims, not the end of the run.
  void run_guarded(const TrackRow& row, const std::vector<TrackJob>& jobs, const TrackContext& context,
                   const std::set<const Claim*>& done) {
    std::string reason = "the track ended without a result for it";
    try {
      row.run(jobs, context);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::interrupted) {
        throw Error(ErrorCode::interrupted, "interrupted; what is measured is kept in " + options_.out.string(), "",
                    "run the same command with --resume to go on");
      }
      reason = error.what();
    } catch (const std::exception& error) {
      reason = std::string("a bug in kedge: ") + error.what();
    }
    for (const TrackJob& job : jobs) {
      if (done.contains(job.claim)) continue;
      TrackOutcome outcome;
      outcome.not_run = reason;
      take(job, std::move(outcome));
    }
  }

  void take(const TrackJob& job, TrackOutcome outcome) {
    const Claim& claim = *job.claim;
    ClaimRecord record;
    record.claim = claim.name, record.claim_sha256 = claim.sha256;
    record.protocol_sha256 = protocol_.sha256(), record.run_id = protocol_.run_id;
    record.ran = outcome.not_run.empty();
    record.reason = outcome.not_run, record.missing_subject = outcome.missing_subject;
    record.samples = std::move(outcome.samples);
    record.estimate = estimate(claim, record.samples);
    for (Artifact& artifact : outcome.artifacts) artifact.sha256 = sha256_file(options_.out / artifact.path);
    record.artifacts = std::move(outcome.artifacts);
    Provenance provenance = make_provenance(load_, threads_);
    provenance.seeds = job.size.seeds;
    provenance.inputs = std::move(outcome.inputs);
    record.provenance = to_json(provenance).dump(-1, ' ', false, kReplace);
    const Json machine{{"before", Json::parse(before_)}, {"after", machine_state()}};
    record.machine = machine.dump(-1, ' ', false, kReplace);
    before_ = machine["after"].dump(-1, ' ', false, kReplace);
    record.details = outcome.details;
    write_envelope(options_.out / "records" / (claim.name + ".json"), record_json(record));
    if (record.ran) {
      log(claim.track, fmt::format("claim {}: {} samples", claim.name, record.samples.size()));
      const std::string measured = measured_text(claim, record.estimate);
      log(claim.track, fmt::format("  {} measured, {} required", measured, required_text(claim)));
      note(fmt::format("{}: {} measured, {} required", claim.name, measured, required_text(claim)));
    } else {
      log(claim.track, fmt::format("claim {}: not run, {}", claim.name, record.reason));
    }
  }

  std::string& log_text(const std::string& track) {
    const fs::path file = options_.out / "logs" / (track + ".log");
    std::error_code ignored;
    if (!logs_.contains(track)) logs_[track] = fs::exists(file, ignored) ? read_file(file) : std::string();
    return logs_[track];
  }
  void log(const std::string& track, const std::string& line) {
    std::string& text = log_text(track);
    text += line + "\n";
    write_file_atomically(options_.out / "logs" / (track + ".log"), text);
  }
  // Also of a track whose last record was written just before the run was stopped.
  void finish_log(const std::string& track) {
    const std::string end = fmt::format("track {}: finished", track);
    const std::string& text = log_text(track);
    if (!text.empty() && !text.ends_with(end + "\n")) log(track, end);
  }

  void write_environment() {
    Json env = to_json(make_provenance(load_, threads_));
    env.erase("seeds");
    env.erase("inputs");
    env["run_id"] = protocol_.run_id;
    env["started"] = protocol_.started;
    env["finished"] = utc_time();
    env["machine"] = {{"before", Json::parse(first_)}, {"after", machine_state()}};
    write_file_atomically(options_.out / "env.json", env.dump(2, ' ', false, kReplace) + "\n");
  }

  const VerifyOptions& options_;
  TorchTracks torch_;
  std::span<const TrackRow> rows_;
  Protocol protocol_;
  LoadOptions load_;
  int threads_;
  std::string before_, first_ = before_;
  std::map<std::string, std::string> logs_;
};

VerifyReport report_of(const Bundle& bundle, const BundleVerdicts& verdicts, std::vector<VerifyGate> gates) {
  VerifyReport report;
  report.claims = claim_rows(bundle, verdicts);
  report.gates = std::move(gates);
  report.summary_json = derived_files(bundle, verdicts).at("summary.json");
  return report;
}

// Tables, gates, page, manifest: in this order, each from what is there.
VerifyReport close_bundle(const VerifyOptions& options) {
  std::error_code ignored;
  fs::remove_all(scratch_folder(options.out), ignored);
  const Bundle bundle = read_bundle(options.out);
  const BundleVerdicts verdicts = judge_bundle(bundle);
  make_folder(options.out / "csv");
  for (const auto& [path, text] : derived_files(bundle, verdicts)) write_file_atomically(options.out / path, text);
  write_manifest(options.out);
  const std::vector<VerifyGate> gates =
      check_gates(bundle, verdicts, {options.claims, options.allow_not_run, /*sealed=*/false});
  write_file_atomically(options.out / "gates.json", gates_json(gates));
  write_file_atomically(options.out / "index.html", bundle_page(bundle, verdicts, gates));
  write_manifest(options.out);
  return report_of(bundle, verdicts, gates);
}

}  // namespace

bool VerifyReport::passed() const noexcept {
  return std::all_of(gates.begin(), gates.end(), [](const VerifyGate& gate) { return gate.passed(); });
}

VerifyReport verify_with(const VerifyOptions& options, const TorchTracks& torch, std::span<const TrackRow> rows) {
  Run(options, torch, rows).all();
  return close_bundle(options);
}

VerifyReport verify(const VerifyOptions& options, LayerTunerFactory* tuners, TrainFunction train) {
  return verify_with(options, {tuners, train}, verify_tracks());
}

VerifyReport check_bundle(const fs::path& folder, const fs::path& claims, bool allow_not_run) {
  const Bundle bundle = read_bundle(folder);
  const BundleVerdicts verdicts = judge_bundle(bundle);
  try {
    return report_of(bundle, verdicts, check_gates(bundle, verdicts, {claims, allow_not_run, /*sealed=*/true}));
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::bad_file, folder.string() + " holds JSON of another shape: " + error.what(),
                "a bundle of kedge verify");
  }
}

}  // namespace kedge
