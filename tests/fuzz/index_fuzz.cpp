// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "fuzz/mutation.hpp"
#include "pesc/io/hf_directory.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::json_mutator(data, size, max_size, seed);
}

// What is accepted names files of the same folder only.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  try {
    const auto index = pesc::shard_index::parse(text, "fuzz");
    if (index.files.empty() || index.shards.empty() || index.shards.size() > index.files.size()) std::abort();
    for (const auto& shard : index.shards)
      if (shard.find('/') != shard.npos || shard == ".." || shard.empty()) std::abort();
  } catch (const pesc::format_error& e) {
    if (!std::string_view{e.what()}.starts_with("fuzz: ")) std::abort();
  }
  return 0;
}
