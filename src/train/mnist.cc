#include "train/mnist.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <fmt/format.h>

#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "io/folder.h"
#include "io/idx.h"
#include "kedge/error.h"
#include "model/classify.h"
#include "record/envelope.h"
#include "train/log.h"
#include "train/mnist_network.h"
#include "train/record.h"

namespace kedge::training {
namespace {

namespace fs = std::filesystem;

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;  // torch.optim.Adam's

void check_range(const char* name, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return;
  throw Error(ErrorCode::usage, fmt::format("{} is {}", name, value), fmt::format("from {} to {}", low, high));
}

void check(const TrainOptions& o) {
  parse_network(o.mnist.network);
  check_range("epochs", static_cast<double>(o.mnist.epochs), 1, 1e6);
  check_range("batch_size", static_cast<double>(o.batch_size), 1, 1e6);
  check_range("lr", o.lr, 0, 1e12);
  check_range("balance_loss", o.balance_loss, 0, 1e6);
  check_range("reconstruction_loss", o.reconstruction_loss, 0, 1e6);
  check_range("top_k", static_cast<double>(o.mnist.top_k), 1, 4);
  check_range("capacity_factor", o.mnist.capacity_factor, 0, 1e6);
  check_range("dropout", o.mnist.dropout, 0, 0.99);
  check_range("max_shift", static_cast<double>(o.mnist.max_shift), 0, 27);
  if (o.mnist.data.empty())
    throw Error(ErrorCode::usage, "the images are not given", "--data DIR, the four files of MNIST");
  if (o.out.empty()) throw Error(ErrorCode::usage, "there is no place for the result", "--out DIR");
}

/// All that the weights depend on.
Json settings_json(const TrainOptions& o, const ClassifierSpec& spec, const std::string& train_hash, int threads) {
  Json settings = {{"kind", "mnist"},
                   {"network", network_name(spec.network)},
                   {"train_images", train_hash},
                   {"epochs", o.mnist.epochs},
                   {"batch_size", o.batch_size},
                   {"lr", o.lr},
                   {"dropout", o.mnist.dropout},
                   {"max_shift", o.mnist.max_shift},
                   {"seed", o.seed},
                   {"threads", threads}};
  if (spec.has_moe()) {
    settings["top_k"] = o.mnist.top_k;
    settings["balance_loss"] = o.balance_loss;
    settings["capacity_factor"] = o.mnist.capacity_factor;
    settings["noisy_gating"] = o.mnist.noisy_gating && !spec.routes_by_error();
  }
  if (spec.routes_by_error()) settings["reconstruction_loss"] = o.reconstruction_loss;
  return settings;
}

/// What an epoch adds up.
struct EpochSums {
  double loss = 0, balance = 0, reconstruction = 0;
  std::int64_t images = 0, right = 0, steps = 0, choices = 0, over_capacity = 0;
  std::vector<std::int64_t> load;
};

class MnistRun {
 public:
  explicit MnistRun(const TrainOptions& options);
  TrainReport run();

 private:
  void open_out();
  void one_step(const std::int64_t* images, std::int64_t step, EpochSums& sums);
  void fill(const std::int64_t* images, at::Tensor& x, at::Tensor& labels);
  void write_epoch(std::int64_t epoch, const EpochSums& sums, double seconds);
  void test();
  void write_record();

  TrainOptions options_;
  ClassifierSpec spec_;
  ImageSet train_, test_;
  std::optional<Folder> lock_;
  std::optional<MnistNetwork> network_;
  std::optional<Log> log_;
  at::Tensor first_moment_, second_moment_;
  Rng order_, shifts_, noise_;
  std::vector<float> grey_;  ///< by level, normalised
  std::int64_t steps_per_epoch_ = 0;
  TrainReport report_;
};

/// Streams of one seed that have nothing to do with each other.
std::uint64_t stream(std::uint64_t seed, std::uint64_t number) { return seed * 0x9E3779B97F4A7C15ull + number; }

MnistRun::MnistRun(const TrainOptions& options)
    : options_(options),
      order_(stream(options.seed, 1)),
      shifts_(stream(options.seed, 2)),
      noise_(stream(options.seed, 3)) {
  check(options_);
  // A network this small gains nothing from more threads, and its sums depend on their number.
  report_.threads = std::max(1, options_.threads);
  at::set_num_threads(report_.threads);
  spec_ = mnist_spec(parse_network(options_.mnist.network), options_.mnist.top_k);
  train_ = read_mnist(options_.mnist.data, MnistPart::train);
  test_ = read_mnist(options_.mnist.data, MnistPart::test);
  check_images(spec_, train_);
  check_images(spec_, test_);
  steps_per_epoch_ = train_.count / options_.batch_size;
  if (steps_per_epoch_ == 0) {
    throw Error(ErrorCode::usage, fmt::format("a batch of {} of {} training images", options_.batch_size, train_.count),
                "no more than there are", "choose a smaller --batch-size");
  }
  open_out();
  network_.emplace(spec_, options_.seed);
  first_moment_ = at::zeros_like(network_->flat_values());
  second_moment_ = at::zeros_like(network_->flat_values());
  unsigned char levels[256];
  std::iota(std::begin(levels), std::end(levels), static_cast<unsigned char>(0));
  grey_.resize(256);
  ClassifierSpec pixel = spec_;
  pixel.image_size = 16;
  normalize_images(pixel, levels, 1, grey_.data());
}

void MnistRun::open_out() {
  std::error_code error;
  fs::create_directories(options_.out, error);
  if (error) throw Error(ErrorCode::io, "cannot create " + options_.out.string() + ": " + error.message());
  lock_.emplace(options_.out);
  if (!lock_->lock(std::chrono::seconds(20))) {
    throw Error(ErrorCode::exists, "another process trains in " + options_.out.string(), "", "wait for it to end");
  }
  for (const char* name : {kRecordFile, "config.json", "model.safetensors"}) {
    if (!fs::exists(options_.out / name)) continue;
    throw Error(ErrorCode::exists, options_.out.string() + " holds " + name, "", "choose another --out or remove it");
  }
  log_.emplace(options_.out / kLogFile, 0);
}

void MnistRun::fill(const std::int64_t* images, at::Tensor& x, at::Tensor& labels) {
  const std::int64_t size = spec_.image_size, reach = options_.mnist.max_shift;
  auto* pixel = x.mutable_data_ptr<float>();
  auto* label = labels.mutable_data_ptr<std::int64_t>();
  for (std::int64_t b = 0; b < options_.batch_size; ++b) {
    const unsigned char* image = train_.image(images[b]);
    label[b] = train_.label(images[b]);
    const auto draw = [&] {
      return static_cast<std::int64_t>(shifts_.below(static_cast<std::uint64_t>(2 * reach + 1))) - reach;
    };
    const std::int64_t down = reach > 0 ? draw() : 0, right = reach > 0 ? draw() : 0;
    for (std::int64_t r = 0; r < size; ++r) {
      for (std::int64_t c = 0; c < size; ++c) {
        const std::int64_t from_r = r - down, from_c = c - right;
        const bool inside = from_r >= 0 && from_r < size && from_c >= 0 && from_c < size;
        *pixel++ = grey_[inside ? image[from_r * size + from_c] : 0];
      }
    }
  }
}

void MnistRun::one_step(const std::int64_t* images, std::int64_t step, EpochSums& sums) {
  at::Tensor x = at::empty({options_.batch_size, spec_.num_inputs()}, at::kFloat);
  at::Tensor labels = at::empty({options_.batch_size}, at::kLong);
  fill(images, x, labels);
  network_->flat_gradients().zero_();
  const MnistNetworkSettings settings{options_.mnist.dropout, options_.mnist.capacity_factor,
                                      options_.mnist.noisy_gating};
  const MnistOutput out = network_->forward(x, settings, noise_);
  const at::Tensor loss = at::cross_entropy_loss(out.logits, labels);
  at::Tensor total = out.balance.defined() ? loss + out.balance * options_.balance_loss : loss;
  if (out.reconstruction.defined()) total = total + out.reconstruction * options_.reconstruction_loss;
  total.backward();
  if (!std::isfinite(total.item<double>())) {
    throw Error(ErrorCode::unsupported,
                fmt::format("training diverged in step {}: the loss is {}", step, total.item<double>()),
                "finite losses", "choose a smaller --lr");
  }
  const std::int64_t steps = steps_per_epoch_ * options_.mnist.epochs;
  const double done = static_cast<double>(step - 1) / static_cast<double>(steps);
  const double lr = options_.lr * 0.5 * (1 + std::cos(std::numbers::pi * done));
  {
    const at::NoGradGuard no_gradients;
    const at::Tensor count = at::full({}, static_cast<double>(step), at::kFloat);
    at::_fused_adamw_({network_->flat_values()}, {network_->flat_gradients()}, {first_moment_}, {second_moment_}, {},
                      {count}, lr, kBeta1, kBeta2, /*weight_decay=*/0.0, kEps, /*amsgrad=*/false, /*maximize=*/false);
  }
  ++sums.steps;
  sums.loss += loss.item<double>();
  sums.images += options_.batch_size;
  sums.right += (out.logits.detach().argmax(1) == labels).sum().item<std::int64_t>();
  if (!out.balance.defined()) return;
  sums.balance += out.balance.item<double>();
  if (out.reconstruction.defined()) sums.reconstruction += out.reconstruction.item<double>();
  sums.over_capacity += out.over_capacity;
  sums.load.resize(out.load.size());
  for (std::size_t e = 0; e < out.load.size(); ++e) {
    sums.load[e] += out.load[e];
    sums.choices += out.load[e];
  }
}

void MnistRun::write_epoch(std::int64_t epoch, const EpochSums& sums, double seconds) {
  const auto steps = static_cast<double>(sums.steps), images = static_cast<double>(sums.images);
  report_.loss = sums.loss / steps;
  Json line = {{"step", epoch * steps_per_epoch_},
               {"epoch", epoch},
               {"loss", report_.loss},
               {"train_accuracy", static_cast<double>(sums.right) / images}};
  if (spec_.has_moe()) {
    report_.over_capacity = static_cast<double>(sums.over_capacity) / static_cast<double>(sums.choices);
    report_.expert_load.clear();
    for (const std::int64_t load : sums.load) {
      report_.expert_load.push_back(static_cast<double>(load) / static_cast<double>(sums.choices));
    }
    line["balance_loss"] = sums.balance / steps;
    if (spec_.routes_by_error()) line["reconstruction_error"] = sums.reconstruction / steps;
    line["expert_load"] = report_.expert_load;
    line["over_capacity"] = report_.over_capacity;
  }
  line["seconds"] = seconds;
  log_->write(line);
}

TrainReport MnistRun::run() {
  const auto start = std::chrono::steady_clock::now();
  const auto seconds_since = [](std::chrono::steady_clock::time_point from) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
  };
  const std::int64_t epochs = options_.mnist.epochs, batch = options_.batch_size;
  std::optional<Progress> progress;
  if (options_.mnist.progress) {
    progress.emplace("train " + options_.mnist.network, epochs * steps_per_epoch_ * batch, "images");
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(train_.count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    const auto begin = std::chrono::steady_clock::now();
    EpochSums sums;
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[order_.below(i)]);
    for (std::int64_t s = 0; s < steps_per_epoch_; ++s) {
      throw_if_interrupted();
      const std::int64_t step = epoch * steps_per_epoch_ + s + 1;
      one_step(order.data() + s * batch, step, sums);
      if (progress && step % 50 == 0)
        progress->update(step * batch, fmt::format("loss {:.4f}", sums.loss / static_cast<double>(s + 1)));
    }
    write_epoch(epoch + 1, sums, seconds_since(begin));
  }
  if (progress) progress->finish();
  report_.steps = epochs * steps_per_epoch_;
  report_.tokens = report_.steps * batch;
  report_.seconds = seconds_since(start);
  report_.tokens_per_second = static_cast<double>(report_.tokens) / report_.seconds;
  write_mnist_model(*network_, options_.out);
  test();
  write_record();
  return report_;
}

void MnistRun::test() {
  ThreadPool threads(report_.threads);
  Arena arena;
  const Classifier classifier = Classifier::open(options_.out, {.isa = detect_isa()});
  const Answers answers = classify({threads, arena}, classifier, test_);
  report_.valid_loss = answers.loss;
  report_.test_accuracy = answers.accuracy;
}

void MnistRun::write_record() {
  report_.model_type = kClassifierModelType;
  report_.parameters = count_parameters(spec_);
  report_.active_parameters = count_active_parameters(spec_);
  report_.device = "cpu";
  Provenance provenance = make_provenance({.isa = detect_isa()}, report_.threads);
  provenance.seeds = {options_.seed};
  provenance.inputs.push_back({"train", options_.mnist.data.string(), train_.content_hash});
  provenance.inputs.push_back({"test", options_.mnist.data.string(), test_.content_hash});
  Json results = {{"model_type", report_.model_type},
                  {"parameters", report_.parameters},
                  {"active_parameters", report_.active_parameters},
                  {"steps", report_.steps},
                  {"images", report_.tokens},
                  {"loss", report_.loss},
                  {"test_loss", report_.valid_loss},
                  {"test_accuracy", report_.test_accuracy},
                  {"expert_load", report_.expert_load},
                  {"over_capacity", spec_.has_moe() ? Json(report_.over_capacity) : Json()},
                  {"seconds", report_.seconds},
                  {"images_per_second", report_.tokens_per_second},
                  {"device", report_.device}};
  write_envelope(
      options_.out / kRecordFile,
      make_envelope("kedge.train/1", provenance, settings_json(options_, spec_, train_.content_hash, report_.threads),
                    std::move(results), Json::array()));
}

}  // namespace

TrainReport train_mnist(const TrainOptions& options, Communicator* ranks) {
  if (ranks != nullptr && ranks->size() > 1) {
    throw Error(ErrorCode::usage, "a classifier of MNIST is not trained by several ranks", "",
                "start it once, without mpirun");
  }
  return MnistRun(options).run();
}

}  // namespace kedge::training
