// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "fuzz/mutation.hpp"
#include "pesc/io/safetensors.hpp"
#include "pesc/io/safetensors_writer.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

bool same(const pesc::tensor_info& a, const pesc::tensor_info& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.bytes.size() == b.bytes.size() &&
         (a.bytes.empty() || std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0);
}

void check(const pesc::safetensors_file& file, std::size_t data_size) {
  std::size_t sum = 0;
  unsigned touched = 0;
  bool known = true;
  pesc::safetensors_writer writer;
  for (const auto& [key, value] : file.metadata()) writer.set_metadata(key, value);
  for (const pesc::tensor_info& tensor : file.tensors()) {
    sum += tensor.bytes.size();
    for (const std::byte b : tensor.bytes) touched += std::to_integer<unsigned>(b);
    require(file.find(tensor.name) == &tensor);
    known = known && tensor.dtype != pesc::element_type::unknown;
    if (known) writer.add(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
    try {
      const auto count = file.read_floats(tensor.name).size();
      require(count == static_cast<std::size_t>(tensor.count()));
    } catch (const pesc::format_error&) {
    }
  }
  require(sum == data_size && touched + 1 > 0);
  if (!known) return;
  const auto again = pesc::safetensors_file::from_bytes("written", writer.to_bytes());
  require(again.metadata() == file.metadata() && again.tensors().size() == file.tensors().size());
  for (std::size_t i = 0; i < again.tensors().size(); ++i)
    require(same(again.tensors()[i], file.tensors()[i]));
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::safetensors_mutator(data, size, max_size, seed);
}

// What is accepted has tensors that fill the data exactly, and is the same after it was written again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* first = reinterpret_cast<const std::byte*>(data);
  try {
    const auto file = pesc::safetensors_file::from_bytes("fuzz", {first, first + size});
    check(file, size - 8 - static_cast<std::size_t>(pesc::load_unaligned<std::uint64_t>(first)));
  } catch (const pesc::error& e) {
    require(std::string_view{e.what()}.size() < 1000 && std::string_view{e.what()}.starts_with("fuzz: "));
  }
  return 0;
}
