// SPDX-License-Identifier: Apache-2.0

#include "golden.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace golden {
namespace {

struct entry {
  std::string_view kind;
  runner run;
};

constexpr entry cpu_runners[] = {
    {"quant4", run_quant4},
    {"quant8_blockwise", run_quant8_blockwise},
    {"linear4bit", run_linear4bit},
    {"linear4bit_state", run_linear4bit_state},
    {"lora_linear", run_lora_linear},
    {"qlora_linear", run_qlora_linear},
    {"camelidae_moe", run_camelidae_moe},
    {"sparsetral_moe", run_sparsetral_moe},
    {"camelidae_model", run_camelidae_model},
    {"llama", run_llama},
    {"bnb_checkpoint", run_bnb_checkpoint},
    {"lora_model", run_lora_model},
    {"router_mixtral", run_router_top_k},
    {"router_qwen2_moe", run_router_top_k},
    {"router_olmoe", run_router_top_k},
    {"router_noisy_topk", run_router_noisy_topk},
    {"router_switch", run_router_switch},
    {"loss_mixtral_balance", run_loss_mixtral_balance},
    {"adamw", run_adamw},
    {"clip_grad_norm", run_clip_grad_norm},
    {"lr_schedule", run_lr_schedule},
    {"cross_entropy", run_cross_entropy},
};

struct json_entry {
  std::string_view kind;
  json_runner run;
};

constexpr json_entry json_runners[] = {
    {"tokenizer_sentencepiece", run_tokenizer_sentencepiece},
    {"tokenizer_gpt2", run_tokenizer_gpt2},
    {"smollm2", run_smollm2},
};

#if defined(PESC_GOLDEN_CUDA)
constexpr entry cuda_runners[] = {
    {"quant4", cuda::run_quant4},
    {"linear4bit", cuda::run_linear4bit},
    {"qlora_linear", cuda::run_qlora_linear},
    {"camelidae_moe", cuda::run_camelidae_moe},
    {"sparsetral_moe", cuda::run_sparsetral_moe},
    {"camelidae_model", cuda::run_camelidae_model},
    {"llama", cuda::run_llama},
    {"bnb_checkpoint", cuda::run_bnb_checkpoint},
    {"lora_model", cuda::run_lora_model},
    {"router_mixtral", cuda::run_router_top_k},
    {"router_qwen2_moe", cuda::run_router_top_k},
    {"router_olmoe", cuda::run_router_top_k},
    {"router_noisy_topk", cuda::run_router_noisy_topk},
    {"router_switch", cuda::run_router_switch},
};
#endif

/// \brief The runners of a device; none where the program lacks its backend.
std::span<const entry> runners_of(device where) {
  if (where == device::cpu) return cpu_runners;
#if defined(PESC_GOLDEN_CUDA)
  return cuda_runners;
#else
  return {};
#endif
}

constexpr std::string_view without_runner[] = {
    "router_deepseek_v3",
    "bnb_adamw",
};

[[noreturn]] void refuse(const golden_case& c, std::string_view key, const std::string& what) {
  throw pesc::format_error(c.file().name() + ": metadata " + pesc::in_quotes(key) + " " + what);
}

}  // namespace

runner find_runner(std::string_view kind, device where) {
  for (const entry& e : runners_of(where))
    if (e.kind == kind) return e.run;
  return nullptr;
}

json_runner find_json_runner(std::string_view kind) {
  for (const json_entry& e : json_runners)
    if (e.kind == kind) return e.run;
  return nullptr;
}

bool is_built(device where) { return !runners_of(where).empty(); }

bool is_known_without_runner(std::string_view kind) {
  for (const std::string_view name : without_runner)
    if (name == kind) return true;
  return false;
}

std::string golden_case::folder() const {
  const std::size_t slash = file_.name().rfind('/');
  return slash == std::string::npos ? "." : file_.name().substr(0, slash);
}

const std::string& golden_case::text(std::string_view key) const {
  const auto at = file_.metadata().find(key);
  if (at == file_.metadata().end()) refuse(*this, key, "is missing");
  return at->second;
}

index_t golden_case::integer(std::string_view key) const {
  const std::string& value = text(key);
  char* end = nullptr;
  errno = 0;
  const long long out = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end != '\0' || errno != 0)
    refuse(*this, key, "is " + pesc::in_quotes(value) + ", expected an integer");
  return out;
}

double golden_case::number(std::string_view key) const {
  const std::string& value = text(key);
  char* end = nullptr;
  const double out = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0')
    refuse(*this, key, "is " + pesc::in_quotes(value) + ", expected a number");
  return out;
}

bool golden_case::flag(std::string_view key) const {
  const std::string& value = text(key);
  if (value != "true" && value != "false")
    refuse(*this, key, "is " + pesc::in_quotes(value) + ", expected true or false");
  return value == "true";
}

std::vector<double> golden_case::doubles(std::string_view tensor) const {
  const pesc::tensor_info& info = file_.get(tensor);
  if (info.dtype == pesc::element_type::f64) return file_.read<double>(tensor);
  if (info.dtype == pesc::element_type::i64) {
    const std::vector<std::int64_t> values = integers(tensor);
    return std::vector<double>(values.begin(), values.end());
  }
  const std::vector<float> values = floats(tensor);
  return std::vector<double>(values.begin(), values.end());
}

bool outcome::same_size(const std::string& name, std::size_t actual, std::size_t expected) {
  if (actual == expected) return true;
  add(name + ": " + std::to_string(actual) + " values, expected " + std::to_string(expected), INFINITY, 0);
  return false;
}

void outcome::add(const std::string& name, double error, double tolerance) {
  ++comparisons_;
  const bool ok = error <= tolerance;  // false for NaN
  const double ratio = ok                                      ? (tolerance > 0 ? error / tolerance : 0)
                       : std::isfinite(error) && tolerance > 0 ? error / tolerance
                                                               : INFINITY;
  if (!ok) {
    char text[64];
    std::snprintf(text, sizeof text, " %.3g (%.3g)", error, tolerance);
    failures_.push_back(name + text);
  }
  if (ratio <= worst_ratio_) return;
  worst_ratio_ = ratio;
  worst_name_ = name;
  worst_error_ = ok || std::isfinite(error) ? error : INFINITY;
  worst_tolerance_ = tolerance;
}

std::string outcome::summary() const {
  if (comparisons_ == 0) return "nothing was compared";
  if (passed() && worst_ratio_ == 0) return "exact";
  char text[64];
  std::snprintf(text, sizeof text, " %.3g (%.3g)", worst_error_, worst_tolerance_);
  return worst_name_ + text;
}

}  // namespace golden
