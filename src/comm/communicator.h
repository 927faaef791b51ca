// Ranks: processes (Open MPI) or threads (tests) that share the work of one trip. Rank 0 has the result.
//
// A trip cuts its work into parts that do not depend on the number of ranks, and rank 0 takes the parts in their order:
// so the number of ranks changes no bit of a result under consistent numerics.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kedge {

/// gather() and broadcast() are called by all ranks, in the same order. Error(io): another rank has failed.
class Communicator {
 public:
  Communicator() = default;
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  /// At rank 0 the bytes of all ranks in their order; elsewhere nothing.
  virtual std::vector<std::string> gather(std::string_view bytes) = 0;
  /// Rank 0's bytes, at all ranks.
  virtual std::string broadcast(std::string_view bytes) = 0;
  /// This rank has failed: the others end instead of waiting for it. With processes this one ends with `code` too.
  virtual void abort(int code) noexcept = 0;

  bool is_root() const noexcept { return rank() == 0; }
  /// Returns once all ranks are there.
  void barrier() {
    gather({});
    broadcast({});
  }
};

/// A single rank.
std::unique_ptr<Communicator> single_rank();
/// Ranks of one process: each is to be used by a thread of its own.
std::vector<std::unique_ptr<Communicator>> thread_ranks(int size);
/// The ranks that mpirun started, through the plugin kedge-mpi.so, which is looked for in `folders`. Error(not_found).
std::unique_ptr<Communicator> mpi_ranks(const std::vector<std::filesystem::path>& folders);

}  // namespace kedge
