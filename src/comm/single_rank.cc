#include "comm/communicator.h"

namespace kedge {
namespace {

class SingleRank final : public Communicator {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  std::vector<std::string> gather(std::string_view bytes) override { return {std::string(bytes)}; }
  std::string broadcast(std::string_view bytes) override { return std::string(bytes); }
  void abort(int) noexcept override {}
};

}  // namespace

std::unique_ptr<Communicator> single_rank() { return std::make_unique<SingleRank>(); }

}  // namespace kedge
