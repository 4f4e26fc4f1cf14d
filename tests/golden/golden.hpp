// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "pesc/core/buffer.hpp"
#include "pesc/io/json.hpp"
#include "pesc/io/safetensors.hpp"
#include "pesc/moe/shape.hpp"
#include "pesc/text/tokenizer.hpp"

/// Reference results of other programs, one case a file, compared with what the library computes.
namespace golden {

using pesc::index_t;

/// \brief One case: a safetensors file whose metadata has `kind` and the configuration.
class golden_case {
 public:
  explicit golden_case(pesc::safetensors_file file) : file_{std::move(file)} {}

  [[nodiscard]] const pesc::safetensors_file& file() const { return file_; }
  [[nodiscard]] std::string folder() const;

  // Metadata values are texts; a missing or malformed one is a `format_error` that names the key.

  [[nodiscard]] bool has_text(std::string_view key) const { return file_.metadata().contains(key); }
  [[nodiscard]] const std::string& text(std::string_view key) const;
  [[nodiscard]] index_t integer(std::string_view key) const;
  [[nodiscard]] double number(std::string_view key) const;
  [[nodiscard]] bool flag(std::string_view key) const;
  [[nodiscard]] bool flag(std::string_view key, bool otherwise) const {
    return has_text(key) ? flag(key) : otherwise;
  }

  [[nodiscard]] bool has(std::string_view tensor) const { return file_.find(tensor) != nullptr; }
  [[nodiscard]] const std::vector<index_t>& shape(std::string_view tensor) const {
    return file_.get(tensor).shape;
  }
  [[nodiscard]] std::vector<float> floats(std::string_view tensor) const { return file_.read_floats(tensor); }
  [[nodiscard]] std::vector<double> doubles(std::string_view tensor) const;
  [[nodiscard]] std::vector<std::uint8_t> bytes(std::string_view tensor) const {
    return file_.read<std::uint8_t>(tensor);
  }
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view tensor) const {
    return file_.read<std::int64_t>(tensor);
  }

 private:
  pesc::safetensors_file file_;
};

/// \brief One case in JSON: an object with `kind` and the expected results.
struct json_case {
  std::string folder;
  pesc::json value;
};

/// \brief What the comparisons of one case found; keeps the worst, measured by its tolerance.
class outcome {
 public:
  /// \brief Compares by max |a - b| / max |b|; `smallest_scale` replaces a smaller max |b|. Equal infinities
  /// are equal.
  template <class A, class B>
  void near(const std::string& name, const A& actual, const B& expected, double tolerance,
            double smallest_scale = 0) {
    if (!same_size(name, size_of(actual), size_of(expected))) return;
    double largest = smallest_scale;
    double worst = 0;
    for (std::size_t i = 0; i < size_of(expected); ++i) {
      const double a = value_at(actual, i);
      const double b = value_at(expected, i);
      if (std::isfinite(b)) largest = std::fmax(largest, std::fabs(b));
      const double difference = a == b ? 0 : std::isnan(a - b) ? INFINITY : std::fabs(a - b);
      worst = std::fmax(worst, difference);
    }
    add(name, largest > 0 ? worst / largest : worst, tolerance);
  }

  /// \brief Compares row by row, |a - b| / |b| as lengths of vectors: the middle row by `tolerance`, the
  /// worst by `worst`.
  ///
  /// For references that round every tensor on their way: where that turns a close choice, one row is another
  /// result.
  template <class A, class B>
  void near_by_rows(const std::string& name, const A& actual, const B& expected, index_t rows,
                    double tolerance, double worst) {
    if (!same_size(name, size_of(actual), size_of(expected))) return;
    std::vector<double> errors;
    const std::size_t width = size_of(expected) / static_cast<std::size_t>(std::max<index_t>(rows, 1));
    for (index_t r = 0; r < rows; ++r) {
      const std::size_t begin = static_cast<std::size_t>(r) * width;
      double difference = 0;
      double total = 0;
      for (std::size_t i = begin; i < begin + width; ++i) {
        const double a = value_at(actual, i);
        const double b = value_at(expected, i);
        difference += (a - b) * (a - b);
        total += b * b;
      }
      const double error = std::sqrt(total > 0 ? difference / total : difference);
      errors.push_back(std::isnan(error) ? INFINITY : error);
    }
    std::sort(errors.begin(), errors.end());
    if (errors.empty()) return;
    add(name + ", middle row", errors[errors.size() / 2], tolerance);
    add(name + ", worst row", errors.back(), worst);
  }

  /// \brief Every value equal (zeros of either sign are); the error is the number of differing values.
  template <class A, class B>
  void exact(const std::string& name, const A& actual, const B& expected) {
    if (!same_size(name, size_of(actual), size_of(expected))) return;
    double differing = 0;
    for (std::size_t i = 0; i < size_of(expected); ++i)
      if (!(value_at(actual, i) == value_at(expected, i))) differing += 1;
    add(name, differing, 0);
  }

  /// \brief An error measured by the caller.
  void within(const std::string& name, double error, double tolerance) { add(name, error, tolerance); }

  /// \brief A number of deviations that must be zero.
  void none(const std::string& name, index_t deviations) { add(name, static_cast<double>(deviations), 0); }

  /// \brief Says why a case cannot run here; it then counts neither as passed nor as failed.
  void skip(const std::string& reason) { skipped_ = reason; }
  [[nodiscard]] const std::string& skipped() const { return skipped_; }

  [[nodiscard]] bool passed() const { return comparisons_ > 0 && failures_.empty(); }
  [[nodiscard]] std::string summary() const;
  [[nodiscard]] const std::vector<std::string>& failures() const { return failures_; }

 private:
  template <class List>
  static double value_at(const List& list, std::size_t i) {
    const auto value = *(std::begin(list) + static_cast<std::ptrdiff_t>(i));
    if constexpr (std::is_arithmetic_v<std::remove_cv_t<decltype(value)>>)
      return static_cast<double>(value);
    else
      return static_cast<double>(pesc::to_float(value));
  }

  template <class List>
  static std::size_t size_of(const List& list) {
    return static_cast<std::size_t>(std::end(list) - std::begin(list));
  }

  bool same_size(const std::string& name, std::size_t actual, std::size_t expected);
  void add(const std::string& name, double error, double tolerance);

  index_t comparisons_ = 0;
  std::string worst_name_;
  double worst_error_ = 0;
  double worst_tolerance_ = 0;
  double worst_ratio_ = -1;
  std::vector<std::string> failures_;
  std::string skipped_;
};

/// \brief Runs the library on a case and compares; may throw.
using runner = void (*)(const golden_case&, outcome&);
using json_runner = void (*)(const json_case&, outcome&);

/// \brief Where the library computes.
enum class device { cpu, cuda };

/// \brief The runner of a kind on a device, null where there is none.
[[nodiscard]] runner find_runner(std::string_view kind, device where);

/// \brief The runner of a kind of JSON cases, which need no backend; null where there is none.
[[nodiscard]] json_runner find_json_runner(std::string_view kind);

/// \brief Whether this program was built with the backend of a device.
[[nodiscard]] bool is_built(device where);

/// \brief Kinds of the reference set that no runner exists for.
[[nodiscard]] bool is_known_without_runner(std::string_view kind);

[[nodiscard]] inline pesc::matrix_view<const float> view(const std::vector<float>& v, index_t rows,
                                                         index_t cols) {
  PESC_EXPECTS(static_cast<index_t>(v.size()) == rows * cols, "tensor of ", v.size(), " values, expected ",
               rows, " x ", cols);
  return {v.data(), rows, cols};
}
[[nodiscard]] inline pesc::matrix_view<float> view(std::vector<float>& v, index_t rows, index_t cols) {
  PESC_EXPECTS(static_cast<index_t>(v.size()) == rows * cols, "tensor of ", v.size(), " values, expected ",
               rows, " x ", cols);
  return {v.data(), rows, cols};
}
template <class T>
[[nodiscard]] pesc::vector_view<T> view(std::vector<T>& v) {
  return {v.data(), static_cast<index_t>(v.size())};
}
template <class T>
[[nodiscard]] pesc::vector_view<const T> view(const std::vector<T>& v) {
  return {v.data(), static_cast<index_t>(v.size())};
}

[[nodiscard]] inline std::vector<float> zeros(index_t count) {
  return std::vector<float>(static_cast<std::size_t>(count));
}

// One file per family.
void run_quant4(const golden_case&, outcome&);
void run_quant8_blockwise(const golden_case&, outcome&);
void run_linear4bit(const golden_case&, outcome&);
void run_linear4bit_state(const golden_case&, outcome&);
void run_lora_linear(const golden_case&, outcome&);
void run_qlora_linear(const golden_case&, outcome&);
void run_camelidae_moe(const golden_case&, outcome&);
void run_sparsetral_moe(const golden_case&, outcome&);
void run_camelidae_model(const golden_case&, outcome&);
void run_llama(const golden_case&, outcome&);
void run_bnb_checkpoint(const golden_case&, outcome&);
void run_lora_model(const golden_case&, outcome&);
void run_router_top_k(const golden_case&, outcome&);
void run_router_noisy_topk(const golden_case&, outcome&);
void run_router_switch(const golden_case&, outcome&);
void run_loss_mixtral_balance(const golden_case&, outcome&);
void run_adamw(const golden_case&, outcome&);
void run_clip_grad_norm(const golden_case&, outcome&);
void run_lr_schedule(const golden_case&, outcome&);
void run_cross_entropy(const golden_case&, outcome&);
void run_tokenizer_sentencepiece(const json_case&, outcome&);
void run_tokenizer_gpt2(const json_case&, outcome&);
void run_smollm2(const json_case&, outcome&);

/// \brief The parts of a case of kind `smollm2` that need its tokenizer only: `tokenize`, and text and ids of `chat`.
void compare_smollm2_text(const pesc::tokenizer&, const json_case&, outcome&);

// The same on the CUDA backend, of kinds that have one.
namespace cuda {
void run_quant4(const golden_case&, outcome&);
void run_linear4bit(const golden_case&, outcome&);
void run_qlora_linear(const golden_case&, outcome&);
void run_camelidae_moe(const golden_case&, outcome&);
void run_sparsetral_moe(const golden_case&, outcome&);
void run_camelidae_model(const golden_case&, outcome&);
void run_llama(const golden_case&, outcome&);
void run_bnb_checkpoint(const golden_case&, outcome&);
void run_lora_model(const golden_case&, outcome&);
void run_router_top_k(const golden_case&, outcome&);
void run_router_noisy_topk(const golden_case&, outcome&);
void run_router_switch(const golden_case&, outcome&);
}  // namespace cuda

}  // namespace golden
