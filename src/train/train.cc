// The table of what can be trained. A new kind: a file and a row here.
#include "kedge/train.h"

#include "kedge/error.h"
#include "train/language.h"
#include "train/mnist.h"
#include "train/subspaces.h"

namespace kedge {
namespace {

struct TrainKind {
  const char* name;
  TrainReport (*train)(const TrainOptions& options, Communicator* ranks);
};

constexpr TrainKind kKinds[] = {
    {"lm", training::train_language_model},
    {"mnist", training::train_mnist},
    {"subspaces", training::train_subspaces},
};

}  // namespace

TrainReport train(const TrainOptions& options, Communicator* ranks) {
  std::string known;
  for (const TrainKind& kind : kKinds) {
    if (options.kind == kind.name) return kind.train(options, ranks);
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  throw Error(ErrorCode::usage, "\"" + options.kind + "\" is nothing to train", "one of " + known);
}

}  // namespace kedge
