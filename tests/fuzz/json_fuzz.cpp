// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "fuzz/mutation.hpp"
#include "pesc/io/json.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::json_mutator(data, size, max_size, seed);
}

// What is accepted reads back equal after it was written in each style.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  try {
    const pesc::json value = pesc::parse_json(text, "fuzz.json");
    const std::string styles[] = {to_string(value), to_string(value, 2), to_spaced_string(value)};
    for (const std::string& style : styles)
      if (!(pesc::parse_json(style, "written.json") == value)) std::abort();
  } catch (const pesc::error& e) {
    if (std::string_view{e.what()}.size() > 1000 || !std::string_view{e.what()}.starts_with("fuzz.json: "))
      std::abort();
  }
  return 0;
}
