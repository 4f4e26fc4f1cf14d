// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "pesc/io/safetensors.hpp"
#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/missing_tensors.hpp"

namespace pesc {

namespace detail {

/// \brief Shape under which a stack of matrices is stored: experts keep their dimension, a stack of one loses
/// it.
template <class Batch>
std::vector<index_t> parameter_shape(const Batch& b) {
  return b.count == 1 ? std::vector{b.rows, b.cols} : std::vector{b.count, b.rows, b.cols};
}

}  // namespace detail

/// \brief Writes the trainable tensors of one layer as a safetensors file, under the names of `for_each`.
/// \param parameters  anything with `for_each(f(name, batch_view))`, such as `moe_trainables`
/// \throws io_error; an older file is then unchanged
template <class Parameters>
void save_parameters(const std::string& path, const Parameters& parameters) {
  safetensors_writer out;
  parameters.for_each([&](const std::string& name, const auto& b) {
    out.add(name, detail::parameter_shape(b),
            std::span<const float>{b.data, static_cast<std::size_t>(b.size())});
  });
  out.write(path);
}

/// \brief Reads them back into views of the same names and shapes; all are checked before any is changed.
/// \throws io_error, format_error
template <class Parameters>
void load_parameters(const std::string& path, const Parameters& parameters) {
  const auto file = safetensors_file::open(path);
  std::vector<std::string> known, missing, extra;
  parameters.for_each([&](const std::string& name, const auto& b) {
    known.push_back(name);
    const tensor_info* tensor = file.find(name);
    if (tensor == nullptr) return missing.push_back(name);
    if (tensor->shape != detail::parameter_shape(b))
      detail::raise<format_error>(detail::concat(path, ": tensor ", in_quotes(name), " is ",
                                                 shape_text(tensor->shape), ", expected ",
                                                 shape_text(detail::parameter_shape(b))));
    static_cast<void>(to_floats(*tensor, path));
  });
  for (const tensor_info& tensor : file.tensors())
    if (std::find(known.begin(), known.end(), tensor.name) == known.end()) extra.push_back(tensor.name);
  if (!missing.empty())
    detail::raise<format_error>(detail::concat(path, ": missing ", missing.size(), " of ", known.size(),
                                               " tensors: ", detail::first_names(missing)));
  if (!extra.empty())
    detail::raise<format_error>(detail::concat(
        path, ": ", extra.size(), " tensors are not of this layer: ", detail::first_names(extra)));
  parameters.for_each([&](const std::string& name, const auto& b) {
    const std::vector<float> values = file.read_floats(name);
    std::copy(values.begin(), values.end(), b.data);
  });
}

}  // namespace pesc
