// kedge-mpi.so: ranks that mpirun started. The only unit that knows MPI (Open MPI 4; any MPI 3 will do).
#include <mpi.h>

#include <algorithm>
#include <cstdint>

#include "comm/communicator.h"

namespace kedge {
namespace {

// MPI counts are int.
constexpr std::size_t kChunk = std::size_t{1} << 30;

template <class F>
void in_chunks(std::size_t bytes, F f) {
  for (std::size_t begin = 0; begin < bytes; begin += kChunk) f(begin, static_cast<int>(std::min(kChunk, bytes - begin)));
}

class MpiRanks final : public Communicator {
 public:
  MpiRanks() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~MpiRanks() override { MPI_Finalize(); }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  std::vector<std::string> gather(std::string_view bytes) override {
    if (rank_ != 0) {
      const std::uint64_t size = bytes.size();
      MPI_Send(&size, 1, MPI_UINT64_T, 0, kSizeTag, MPI_COMM_WORLD);
      in_chunks(bytes.size(), [&](std::size_t begin, int count) {
        MPI_Send(bytes.data() + begin, count, MPI_BYTE, 0, kBytesTag, MPI_COMM_WORLD);
      });
      return {};
    }
    std::vector<std::string> all = {std::string(bytes)};
    for (int other = 1; other < size_; ++other) {
      std::uint64_t size = 0;
      MPI_Recv(&size, 1, MPI_UINT64_T, other, kSizeTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      std::string& to = all.emplace_back(size, '\0');
      in_chunks(to.size(), [&](std::size_t begin, int count) {
        MPI_Recv(to.data() + begin, count, MPI_BYTE, other, kBytesTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      });
    }
    return all;
  }

  std::string broadcast(std::string_view bytes) override {
    std::uint64_t size = bytes.size();
    MPI_Bcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
    std::string out = rank_ == 0 ? std::string(bytes) : std::string(size, '\0');
    in_chunks(out.size(),
              [&](std::size_t begin, int count) { MPI_Bcast(out.data() + begin, count, MPI_BYTE, 0, MPI_COMM_WORLD); });
    return out;
  }

  void abort(int code) noexcept override { MPI_Abort(MPI_COMM_WORLD, code); }

 private:
  static constexpr int kSizeTag = 1, kBytesTag = 2;
  int rank_ = 0, size_ = 1;
};

}  // namespace
}  // namespace kedge

extern "C" kedge::Communicator* kedge_open_mpi() { return new kedge::MpiRanks; }
