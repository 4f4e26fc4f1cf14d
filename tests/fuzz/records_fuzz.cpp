// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "fuzz/mutation.hpp"
#include "pesc/train/mixture.hpp"
#include "pesc/train/records.hpp"
#include "pesc/train/token_records.hpp"

namespace {

/// A file in memory where the system has such a folder, with the given ending.
std::string file_with(const std::uint8_t* data, std::size_t size, const char* ending) {
  static const std::string folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  const std::string path = folder + "/pesc_fuzz_" + std::to_string(getpid()) + ending;
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) std::abort();
  if (size != 0) std::fwrite(data, 1, size, file);
  std::fclose(file);
  return path;
}

std::vector<std::int32_t> bytes_as_ids(std::string_view text) { return {text.begin(), text.end()}; }

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::json_mutator(data, size, max_size, seed);
}

// The first byte chooses format and options, the rest is the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  pesc::record_options options;
  options.skip_bad = data[0] >> 4;
  options.piece_characters = 1 + (data[0] & 4) * 3;
  if ((data[0] & 2) != 0) {
    options.prompt_field = "q";
    options.target_field = "a";
  }
  const std::string path = file_with(data + 1, size - 1, (data[0] & 1) != 0 ? ".txt" : ".jsonl");
  try {
    pesc::record_summary summary;
    const auto records = pesc::read_records(path, options, summary);
    for (const pesc::text_record& record : records)
      if (record.target.empty() || !pesc::is_valid_utf8(record.prompt + record.target)) std::abort();
    pesc::token_summary tokens;
    const auto tokenized = pesc::tokenize_records(records, bytes_as_ids, {1, 2, 64}, tokens);
    if (tokenized.empty() || tokens.target_tokens < tokens.records) std::abort();
  } catch (const pesc::error& error) {
    if (std::string_view{error.what()}.find('\n') != std::string_view::npos) std::abort();
  }
  try {
    const auto part = pesc::parse_weighted_path({reinterpret_cast<const char*>(data), size});
    if (part.path.empty() || !(part.weight > 0.0)) std::abort();
  } catch (const pesc::error&) {
  }
  return 0;
}
