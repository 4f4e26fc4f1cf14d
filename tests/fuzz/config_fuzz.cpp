// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "fuzz/mutation.hpp"
#include "pesc/model/config.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::json_mutator(data, size, max_size, seed);
}

// What is accepted has sizes that fit together and is the same after it was written again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  try {
    const auto config = pesc::parse_config(pesc::parse_json(text, "fuzz"), "fuzz");
    const auto& c = config.llama;
    if (c.heads < 1 || c.kv_heads < 1 || c.heads % c.kv_heads != 0 || c.head_dim < 2 || c.head_dim % 2 != 0)
      std::abort();
    for (const std::int32_t id : c.eos)
      if (id < 0 || id >= c.vocab) std::abort();
    if (config.pesc && (config.pesc->top_k < 1 || config.pesc->top_k > config.pesc->experts)) std::abort();
    const auto written = to_json(config);
    const auto again = pesc::parse_config(pesc::parse_json(to_string(written, 2), "fuzz"), "fuzz");
    if (!(to_json(again) == written)) std::abort();
  } catch (const pesc::format_error& e) {
    if (!std::string_view{e.what()}.starts_with("fuzz: ")) std::abort();
  }
  return 0;
}
