// kedge train: a small MoE language model from a config and a text, or a classifier of MNIST. In kedge-torch
// (libtorch); the installed library is without it.
//
// OUT while it trains: train.jsonl (docs/formats/training.md), checkpoint-<step>/ (a Hugging Face directory in fp32,
// with the optimizer's state). When it is finished: OUT itself is a Hugging Face directory, with training.json and
// training.html. The same call goes on with a run that was stopped, from its newest checkpoint; on a CPU with the same
// number of threads its losses are those of an undisturbed run to the bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kedge {

/// Of the kind "mnist" alone; of TrainOptions it reads out, batch_size, lr, balance_loss, reconstruction_loss, seed and
/// threads (0: one).
/// Adam; the learning rate falls by a cosine from lr to 0. A run takes a minute or less and has no checkpoints: one
/// that is stopped starts anew.
struct MnistTrainOptions {
  std::string network = "moe";  ///< "ffn", "moe", "mcqsmoe" (model/classifier.h)
  std::filesystem::path data;   ///< the folder with the four files of MNIST
  std::int64_t epochs = 6;
  std::int64_t top_k = 1;         ///< experts of an image: 1, 2, 4; ffn has none
  double capacity_factor = 1.25;  ///< times the mean load, the most that an expert computes of a step; 0: no limit
  bool noisy_gating = true;       ///< N(0, 1) on a learned router's logits
  double dropout = 0.1;
  std::int64_t max_shift = 1;  ///< images are moved by up to so many pixels each way
  bool progress = true;        ///< a line on stderr while it trains
};

struct TrainOptions {
  std::string kind = "lm";                   ///< "lm", a decoder language model; "mnist"; "subspaces"
  std::filesystem::path config;              ///< a config.json of a family; empty: init's
  std::filesystem::path init;                ///< a model directory to take the first weights from; empty: random
  std::vector<std::filesystem::path> texts;  ///< UTF-8 files, cut into sequences as kedge perplexity cuts them
  std::vector<std::filesystem::path> valid;  ///< texts to measure on and not to train on; may be empty
  std::filesystem::path tokenizer;           ///< a directory or a tokenizer.json; empty: init's
  std::filesystem::path out;
  /// "next-token"; "masked-diffusion": attention looks both ways, masked tokens are filled in, and the config gets a
  /// mask_token_id, one more token, where it has none; "auto": as the config says.
  std::string objective = "auto";

  std::int64_t steps = 1000;
  std::int64_t batch_size = 16;  ///< sequences of a step
  std::int64_t seqlen = 256;     ///< tokens of a sequence; all but the first are predicted
  bool shuffle = true;           ///< a new order in each pass over the text; else as they come

  std::string optimizer = "adamw";  ///< "adamw", "muon" (the layers' matrices; adamw for the rest)
  double lr = 1e-3;                 ///< the highest
  double min_lr_ratio = 0.1;        ///< the last one over the highest
  double warmup_ratio = 0.05;       ///< share of the steps in which it rises
  std::string schedule = "cosine";  ///< "cosine", "linear", "constant": how it falls
  double weight_decay = 0.1;        ///< of matrices and embeddings
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double momentum = 0.95;  ///< of muon
  double clip = 1.0;       ///< the gradient's norm at most; 0: no limit

  double balance_loss = 0.01;        ///< weight of Switch's balance loss; softmax routers, routing by error
  double z_loss = 0.001;             ///< weight of the router z-loss; softmax routers
  double bias_update_speed = 0.001;  ///< step of the selection bias; routers that have one
  double reconstruction_loss = 0.1;  ///< weight of the selected experts' errors; routing by reconstruction error
  double round_after = 0.25;  ///< share of the steps after which shared anchors and their deltas are rounded, and
                              ///< the finished model stored so; 1: never

  std::string dtype = "float32";    ///< of matrix products: "float32", "bfloat16"; the weights are fp32 all along
  std::string save_dtype = "auto";  ///< of the finished model: "float32", "bfloat16", "float16"; auto: the config's
  std::string device = "auto";      ///< "cpu", "cuda", "cuda:N", "auto"
  int threads = 0;                  ///< 0: one per CPU that this process may use
  std::uint64_t seed = 42;          ///< of the first weights, and where these are not given:
  std::optional<std::uint64_t> data_seed, routing_seed;  ///< of the order; of the first weights of routers
  std::int64_t save_every = 200;     ///< steps between checkpoints; 0: only at the end and when stopped
  std::int64_t eval_every = 200;     ///< steps between measurements on valid; 0: only at the end
  std::int64_t eval_sequences = 64;  ///< of valid at most; 0: all
  std::int64_t keep = 1;             ///< checkpoints to keep, the newest ones
  MnistTrainOptions mnist = {};
};

struct TrainReport {
  std::string model_type;
  std::int64_t parameters = 0, active_parameters = 0;  ///< active: those that one token meets
  std::int64_t steps = 0, resumed_from = 0;
  std::int64_t tokens = 0;          ///< trained on, over all runs
  double loss = 0;                  ///< nats per token, mean of the last tenth of the steps
  double valid_loss = 0;            ///< nats per token at the end; NaN without valid
  double seconds = 0;               ///< of this run
  double tokens_per_second = 0;     ///< of this run
  std::vector<double> expert_load;  ///< by MoE layer: busiest expert over the mean, in the last tenth of the steps
  int threads = 0;
  std::string device;
  // Of the kind "mnist", where tokens are images, loss is that of the last epoch, valid_loss that of the test images,
  // and expert_load by expert, its share of the last epoch's choices.
  double test_accuracy = 0;
  double over_capacity = 0;  ///< share of the last epoch's choices that were not computed
  // Of the kind "subspaces", where tokens are vectors, loss and valid_loss mean errors of the selected experts.
  double specialisation =
      0;  ///< share of the held-out vectors whose first expert is their owner's; chance: 1 / experts
};

/// Errors: usage (a value out of range, an empty or too short text), not_found, bad_file, unsupported (a family, a
/// device; a loss that is not finite: the message says where, the last checkpoint stays), mismatch (OUT holds a run
/// with other settings or of another architecture, a tokenizer with ids beyond the vocabulary), exists (OUT holds a
/// finished run, or another process trains there), io (disk full), interrupted (a checkpoint was written first).
/// ranks: share the sequences of each step; only rank 0 writes and has the report. null: one rank.
class Communicator;
TrainReport train(const TrainOptions& options, Communicator* ranks = nullptr);
/// train() itself, for those who are not linked to libtorch.
using TrainFunction = TrainReport (*)(const TrainOptions& options, Communicator* ranks);

}  // namespace kedge
