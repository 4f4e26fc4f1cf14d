// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "fuzz/mutation.hpp"
#include "pesc/model/manifest.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::json_mutator(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto manifest = pesc::parse_manifest({reinterpret_cast<const char*>(data), size}, "fuzz");
    if (!(pesc::parse_manifest(to_string(to_json(manifest)), "again") == manifest)) std::abort();
    for (const auto& entry : manifest.files)
      if (entry.content.bytes < 0 || entry.name.find('/') != entry.name.npos ||
          manifest.find(entry.name) == nullptr)
        std::abort();
  } catch (const pesc::error& error) {
    if (std::string_view{error.what()}.find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
