// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "fuzz/mutation.hpp"
#include "pesc/io/safetensors.hpp"
#include "pesc/model/quantized_tensors.hpp"

namespace {

std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// What is accepted must say the same when it is written and read again.
void read_text(std::string_view text) {
  const pesc::quant_state state = pesc::parse_quant_state(text, "fuzz");
  const pesc::format_info format = state.format();
  if (state.elements() < 1 || format.blocks(state.elements()) < 1) std::abort();
  if (!(pesc::parse_quant_state(to_string(state), "again") == state)) std::abort();
}

/// A whole file of a weight: what is accepted must be written as a file that reads the same.
void read_file(const std::uint8_t* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  const auto file = pesc::safetensors_file::from_bytes("fuzz", std::vector<std::byte>(bytes, bytes + size));
  const auto stored = pesc::read_quantized(file, "w", "fuzz");
  pesc::safetensors_writer out;
  pesc::add_weight(out, "w", stored.weight, stored.form);
  const auto again = pesc::safetensors_file::from_bytes("again", out.to_bytes());
  for (const auto& tensor : again.tensors()) {
    const auto* before = file.find(tensor.name);
    if (before == nullptr) std::abort();
    // The text may be spaced otherwise; all numbers are the same bytes.
    const bool is_text = tensor.name.find("quant_state") != tensor.name.npos;
    if (!is_text && pesc::as_text(before->bytes) != pesc::as_text(tensor.bytes)) std::abort();
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  if (size > 0 && data[0] % 2 == 1) return fuzz::safetensors_mutator(data, size, max_size, seed, 1);
  return fuzz::json_mutator(data, size, max_size, seed);
}

// The first byte chooses: the JSON alone, or a safetensors file around it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    if (data[0] % 2 == 0)
      read_text(text_of(data + 1, size - 1));
    else
      read_file(data + 1, size - 1);
  } catch (const pesc::error& error) {
    if (std::string_view{error.what()}.find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
