// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/safetensors.hpp"
#include "pesc/model/config.hpp"
#include "pesc/model/peft.hpp"
#include "pesc/model/row_order.hpp"
#include "pesc/model/tensor_names.hpp"
#include "pesc/model/tensor_set.hpp"

// Low-rank updates of a PEFT file: read as they are stored, then either filled into a model that trains them (one
// rank and one scale for all, smaller ranks padded with zeros) or added to the weights that they update.

namespace pesc {
namespace detail {

/// \brief Rows and columns of the projection that a low-rank tensor updates; 0 when the model has none of
/// that name.
inline std::pair<index_t, index_t> projection_size(const llama_config& c, std::string_view name) {
  constexpr std::string_view start = "model.layers.";
  if (!name.starts_with(start)) return {0, 0};
  name.remove_prefix(start.size());
  index_t layer = -1;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (code != std::errc{} || layer < 0 || layer >= c.layers) return {0, 0};
  name.remove_prefix(static_cast<std::size_t>(end - name.data()));
  const index_t query = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  struct row {
    std::string_view path;
    index_t out, in;
  };
  const row all[] = {{".self_attn.q_proj", query, c.hidden},       {".self_attn.k_proj", kv, c.hidden},
                     {".self_attn.v_proj", kv, c.hidden},          {".self_attn.o_proj", c.hidden, query},
                     {".mlp.gate_proj", c.intermediate, c.hidden}, {".mlp.up_proj", c.intermediate, c.hidden},
                     {".mlp.down_proj", c.hidden, c.intermediate}};
  for (const row& r : all)
    if (name == r.path) return {r.out, r.in};
  return {0, 0};
}

/// \brief Model's rank and scale for the modules of a file: the largest rank, and the scale that most have.
inline lora_config common_config(const adapter_config& file,
                                 const std::map<std::string, lora_module>& found) {
  lora_config out;
  out.dropout = file.dropout;
  out.target_modules = file.target_modules;
  std::map<double, index_t> counts;
  out.rank = 0;
  for (const auto& [name, module] : found) {
    out.rank = std::max(out.rank, module.rank);
    ++counts[module.scale()];
  }
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  out.alpha = most->first * static_cast<double>(out.rank);
  for (const auto& [name, module] : found)
    if (module.rank == out.rank && module.scale() == most->first) out.alpha = module.alpha;
  for (const auto& [name, module] : found)
    if (module.rank != out.rank || module.scale() != most->first) out.modules.emplace(name, module);
  return out;
}

/// \brief The path of the projection that a low-rank tensor updates, and whether it is the first of the pair; the name
/// itself where it is no such tensor.
struct low_rank_name {
  std::string path;
  bool known = false;
  bool is_a = false;

  explicit low_rank_name(const std::string& name) : path{name} {
    for (const char* end : {".lora_A.weight", ".lora_B.weight"})
      if (name.ends_with(end)) {
        known = true;
        is_a = end[6] == 'A';
        path.resize(name.size() - 14);
      }
  }
};

/// \brief Adds a tensor to the set, of queries and keys with its rows in the order of the model.
inline void take_low_rank(const tensor_info& tensor, const std::string& name, const std::string& file,
                          const row_order& order, tensor_set& out) {
  if (!order.changes() || !has_head_rows(name) || tensor.shape[0] == 0) return out.add(tensor, name, file);
  const loaded_tensor values(tensor, file);
  out.add(tensor, name,
          order.apply(values->bytes, values->bytes.size() / static_cast<std::size_t>(tensor.shape[0])));
}

}  // namespace detail

/// \brief Takes the low-rank pairs of an open PEFT file into `out` as they are stored, under names without its prefix.
/// \param order  from the rows of the file's queries and keys to those of the model
/// \returns what a model computes with: the largest rank, and the scale that most modules have
/// \throws format_error for modules that the model lacks, half pairs and sizes that do not fit
inline lora_config read_adapter(const safetensors_file& file, const adapter_config& adapter,
                                const llama_config& config, tensor_set& out, const row_order& order = {}) {
  std::map<std::string, lora_module> matched;
  std::map<std::string, int> halves;
  std::string unknown;
  for (const tensor_info& tensor : file.tensors()) {
    const std::string name = name_without_peft(tensor.name);
    const detail::low_rank_name part(name);
    const auto [rows, cols] =
        part.known ? detail::projection_size(config, part.path) : std::pair<index_t, index_t>{0, 0};
    ++halves[part.path];
    if (rows == 0) {
      if (unknown.empty()) unknown = tensor.name;
      continue;
    }
    const lora_module module = adapter.of(part.path);
    matched.emplace(part.path, module);
    const std::vector<index_t> wanted =
        part.is_a ? std::vector{module.rank, cols} : std::vector{rows, module.rank};
    if (tensor.shape != wanted)
      detail::raise<format_error>(detail::concat(file.name(), ": tensor ", in_quotes(tensor.name), " is ",
                                                 shape_text(tensor.shape), ", expected ", shape_text(wanted),
                                                 " for r = ", module.rank));
    detail::take_low_rank(tensor, name, file.name(), order, out);
  }
  if (!unknown.empty() || halves.empty())
    detail::raise<format_error>(detail::concat(file.name(), ": adapter matched ", matched.size(), " of ",
                                               halves.size(), " modules", unknown.empty() ? "" : ", not ",
                                               unknown.empty() ? std::string{} : in_quotes(unknown)));
  for (const auto& [module, count] : halves)
    if (count != 2)
      detail::raise<format_error>(
          detail::concat(file.name(), ": module ", in_quotes(module), " has only one of lora_A and lora_B"));
  return detail::common_config(adapter, matched);
}

/// \brief Fills one of a pair in a model from the tensor of a file: a smaller rank is padded with zeros, which stay zero
/// in training; another scale is folded into the second matrix.
/// \param name  of the tensor, without the prefix of PEFT
/// \param file  name for messages
/// \throws format_error where a scale cannot be folded in exactly
inline void fill_low_rank(const tensor_info& from, const std::string& name, const lora_config& lora,
                          matrix_view<float> to, const std::string& file) {
  const detail::low_rank_name part(name);
  const lora_module module = lora.of(part.path);
  const index_t rows = part.is_a ? module.rank : to.rows, cols = part.is_a ? to.cols : module.rank;
  if (from.shape != std::vector{rows, cols} || rows > to.rows || cols > to.cols)
    detail::raise<format_error>(detail::concat(file, ": tensor ", in_quotes(name), " is ",
                                               shape_text(from.shape), ", expected [", rows, ", ", cols,
                                               "]"));
  const double ratio = part.is_a ? 1.0 : module.scale() / lora_module{lora.rank, lora.alpha}.scale();
  // Scales of rank-stabilised updates are quotients of roots, rounded.
  const double power = std::exp2(std::round(std::log2(std::fabs(ratio))));
  const double factor = std::copysign(power, ratio);
  const std::vector<float> values = to_floats(*loaded_tensor(from, file), file);
  bool exact = std::fabs(ratio - factor) <= 1e-12 * power;
  for (index_t r = 0; r < to.rows; ++r)
    for (index_t c = 0; c < to.cols; ++c) {
      const float x = r < rows && c < cols ? values[static_cast<std::size_t>(r * cols + c)] : 0.0f;
      to(r, c) = static_cast<float>(static_cast<double>(x) * factor);
      exact = exact && static_cast<double>(to(r, c)) == static_cast<double>(x) * factor;
    }
  if (!exact)
    detail::raise<format_error>(detail::concat(
        file, ": the update of ", in_quotes(part.path), " is scaled by ", module.scale(), ", others by ",
        lora_module{lora.rank, lora.alpha}.scale(),
        ": these cannot be trained with one scale without a change of values. Merge the updates instead."));
}

/// \brief Whether the set has an update of this projection.
[[nodiscard]] inline bool has_update(const tensor_set& updates, const std::string& module) {
  return updates.find(module + ".lora_B.weight") != nullptr;
}

/// \brief Adds the update of one projection to its weight: W + scale * B A, in float.
/// \param file  name for messages
inline void add_update(const tensor_set& updates, const lora_config& lora, const std::string& module,
                       matrix_view<float> weight, const std::string& file) {
  const lora_module about = lora.of(module);
  const std::vector<float> a = to_floats(*updates.find(module + ".lora_A.weight"), file);
  const std::vector<float> b = to_floats(*updates.find(module + ".lora_B.weight"), file);
  const auto scale = static_cast<float>(about.scale());
  std::vector<float> row(static_cast<std::size_t>(weight.cols));
  for (index_t r = 0; r < weight.rows; ++r) {
    std::fill(row.begin(), row.end(), 0.0f);
    for (index_t j = 0; j < about.rank; ++j) {
      const float factor = b[static_cast<std::size_t>(r * about.rank + j)];
      const float* source = a.data() + j * weight.cols;
      for (index_t c = 0; c < weight.cols; ++c) row[static_cast<std::size_t>(c)] += factor * source[c];
    }
    for (index_t c = 0; c < weight.cols; ++c) weight(r, c) += scale * row[static_cast<std::size_t>(c)];
  }
}

}  // namespace pesc
