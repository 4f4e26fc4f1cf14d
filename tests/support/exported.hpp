// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pesc/io/hf_directory.hpp"

namespace support {

/// \brief Type and bytes of every tensor of a model folder, by name.
inline std::map<std::string, std::pair<std::string, std::vector<std::byte>>> tensors_in(
    const std::string& folder) {
  std::map<std::string, std::pair<std::string, std::vector<std::byte>>> out;
  const auto opened = pesc::hf_directory::open(folder);
  for (const auto& file : opened.files())
    for (const auto& tensor : file.tensors())
      out[tensor.name] = {tensor.dtype_name + pesc::shape_text(tensor.shape),
                          {tensor.bytes.begin(), tensor.bytes.end()}};
  return out;
}

}  // namespace support
