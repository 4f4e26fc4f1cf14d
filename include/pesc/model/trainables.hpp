// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/low_rank.hpp"
#include "pesc/model/missing_tensors.hpp"
#include "pesc/model/peft.hpp"
#include "pesc/model/tensor_names.hpp"

namespace pesc {

/// \brief How many trainable matrices of each kind a source filled.
struct trainables_filled {
  index_t expert_path = 0;
  index_t low_rank = 0;
};

/// \brief Adds the trainable tensors of one kind to a file, as floats; they must stay until it is written.
/// \param layers  a model's `parameters()`
template <class Layers>
void store_trainables(const Layers& layers, trainable_kind wanted, safetensors_writer& out) {
  for_each_trainable(layers, [&](const std::string& name, trainable_kind kind, auto m) {
    if (kind != wanted) return;
    const std::span<const float> values{m.data, static_cast<std::size_t>(m.size())};
    out.add(kind == trainable_kind::low_rank ? peft_name(name) : name, std::vector{m.rows, m.cols}, values);
  });
}

namespace detail {

/// \brief Copies a tensor of any float type into a matrix of exactly its shape.
inline void fill_matrix(const tensor_info& from, matrix_view<float> to, const std::string& file) {
  if (from.shape != std::vector{to.rows, to.cols})
    raise<format_error>(concat(file, ": tensor ", in_quotes(from.name), " is ", shape_text(from.shape),
                               ", expected [", to.rows, ", ", to.cols, "]"));
  to_floats(from, file, vector_view<float>{to.data, to.rows * to.cols});
}

}  // namespace detail

/// \brief Fills the trainable tensors of a model from a source of tensors, anything with `find(name)`.
///
/// What the source does not speak of keeps its values: the whole sparse part of a dense model, or the
/// low-rank updates of projections that an adapter leaves out (initialise the model first). A half of either
/// is an error.
/// \param layers  a model's `parameters()`
/// \param file  name for messages
/// \param lora  tells which modules have another rank or scale than the model; null: none
/// \throws format_error
template <class Layers, class Source>
trainables_filled load_trainables(const Layers& layers, const Source& source, const std::string& file,
                                  const lora_config* lora = nullptr) {
  std::vector<std::string> missing;
  index_t experts = 0;
  trainables_filled out;
  for_each_trainable(layers, [&](const std::string& name, trainable_kind kind, auto m) {
    const tensor_info* tensor = source.find(name);
    if (kind == trainable_kind::expert_path) {
      ++experts;
      if (tensor == nullptr) missing.push_back(name);
    }
    if (tensor == nullptr) return;
    ++(kind == trainable_kind::expert_path ? out.expert_path : out.low_rank);
    if (kind == trainable_kind::low_rank && lora != nullptr && !lora->modules.empty())
      fill_low_rank(*tensor, name, *lora, m, file);
    else
      detail::fill_matrix(*tensor, m, file);
  });
  if (out.expert_path > 0 && !missing.empty())
    detail::raise<format_error>(
        detail::concat(file, ": missing ", missing.size(), " of ", experts,
                       " tensors of routers and adapters: ", detail::first_names(missing)));
  return out;
}

}  // namespace pesc
