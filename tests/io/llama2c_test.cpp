// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/llama2c.hpp"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using pesc::llama2c_file;
using support::contains;
using support::message_of;

namespace {

/// A file with this header whose float number i has the value i.
std::vector<std::byte> numbered(const std::vector<std::int32_t>& header, std::size_t floats) {
  std::vector<std::byte> out(28 + 4 * floats);
  std::memcpy(out.data(), header.data(), 28);
  for (std::size_t i = 0; i < floats; ++i) {
    const auto value = static_cast<float>(i);
    std::memcpy(out.data() + 28 + 4 * i, &value, 4);
  }
  return out;
}

// dim 4, hidden 6, 2 layers, 2 heads, 1 kv head, 5 words, 3 positions
const std::vector<std::int32_t> tied{4, 6, 2, 2, 1, 5, 3};
const std::vector<std::int32_t> untied{4, 6, 2, 2, 1, -5, 3};
constexpr std::size_t tied_floats =
    5 * 4 + 2 * 4 + 2 * 16 + 2 * 2 * (2 * 4) + 2 * 16 + 2 * 4 + 3 * 2 * 6 * 4 + 4 + 2 * 3 * 1;

/// The numbers of a whole part.
std::vector<float> values(const llama2c_file& file, const pesc::llama2c_part& part) {
  return pesc::to_floats(file.tensor("t", part, 0, 1, {part.count}), "m.bin");
}

std::string refusal(const std::vector<std::byte>& bytes) {
  return message_of([&] { static_cast<void>(llama2c_file::from_bytes("m.bin", bytes)); });
}

}  // namespace

TEST_SUITE("io/llama2c") {
  TEST_CASE("the arrays lie one behind the other in the order of the format") {
    const auto file = llama2c_file::from_bytes("m.bin", numbered(tied, tied_floats));
    CHECK(file.header.hidden == 4);
    CHECK(file.header.intermediate == 6);
    CHECK(file.header.vocab == 5);
    CHECK(file.header.tied);
    CHECK(file.header.head_dim() == 2);
    CHECK(file.header.kv_width() == 2);
    struct row {
      const pesc::llama2c_part& part;
      std::size_t size;
    };
    const row rows[] = {{file.embedding, 20}, {file.attention_norm, 8}, {file.query, 32},
                        {file.key, 16},       {file.value, 16},         {file.output, 32},
                        {file.ffn_norm, 8},   {file.gate, 48},          {file.down, 48},
                        {file.up, 48},        {file.final_norm, 4}};
    float first = 0;
    for (const row& r : rows) {
      const std::vector<float> array = values(file, r.part);
      REQUIRE(array.size() == r.size);
      CHECK(array.front() == first);
      CHECK(array.back() == first + static_cast<float>(r.size) - 1);
      first += static_cast<float>(r.size);
    }
    CHECK(file.head.first == file.embedding.first);
  }

  TEST_CASE("a layer of a run is a tensor of its own") {
    const auto file = llama2c_file::from_bytes("m.bin", numbered(tied, tied_floats));
    const pesc::tensor_info second = file.tensor("k", file.key, 1, 2, {2, 4});
    CHECK(second.count() == 8);
    CHECK(pesc::to_floats(second, "m.bin").front() == 28 + 32 + 8);
  }

  TEST_CASE("a negative vocabulary size means an output matrix of its own, behind the rotary tables") {
    const auto file = llama2c_file::from_bytes("m.bin", numbered(untied, tied_floats + 20));
    CHECK_FALSE(file.header.tied);
    CHECK(file.header.vocab == 5);
    const std::vector<float> head = values(file, file.head);
    REQUIRE(head.size() == 20);
    CHECK(head.front() == static_cast<float>(tied_floats));
  }

  TEST_CASE("opened, moved and from bytes are the same") {
    const support::temporary_folder folder;
    const auto bytes = numbered(untied, tied_floats + 20);
    const std::string path = folder.write("m.bin", pesc::as_text(bytes));
    const auto file = [](llama2c_file f) { return f; }(llama2c_file::open(path));
    const auto other = llama2c_file::from_bytes("m.bin", bytes);
    CHECK(values(file, file.up) == values(other, other.up));
    CHECK(values(file, file.head) == values(other, other.head));
  }

  TEST_CASE("headers that cannot be are refused with the number") {
    const auto with = [&](std::size_t at, std::int32_t value) {
      auto header = tied;
      header[at] = value;
      return refusal(numbered(header, tied_floats));
    };
    CHECK(contains(with(0, 0), "m.bin: byte 0: dim is 0, expected at least 1"));
    CHECK(contains(with(1, -6), "byte 4: hidden_dim is -6"));
    CHECK(contains(with(2, std::numeric_limits<std::int32_t>::min()), "n_layers is -2147483648"));
    CHECK(contains(with(5, 0), "vocab_size is 0"));
    CHECK(contains(with(3, 3), "do not divide into heads of even size"));
    CHECK(contains(with(3, 4), "do not divide into heads of even size"));
    CHECK(contains(with(4, 2).substr(0, 40), "m.bin: the file has"));
    CHECK(contains(with(4, 3), "dim 4, n_heads 2, n_kv_heads 3 do not divide"));
    CHECK(contains(with(5, std::numeric_limits<std::int32_t>::min()), "its header asks for"));
    const std::vector<std::int32_t> huge{1 << 30, 1 << 30, 1 << 30, 1, 1, 1 << 30, 1 << 30};
    CHECK(contains(refusal(numbered(huge, 9)), "the sizes in the header overflow"));
  }

  TEST_CASE("a file of the wrong size is refused with both sizes") {
    CHECK(contains(refusal(numbered(tied, tied_floats - 1)),
                   "m.bin: the file has " + std::to_string(28 + 4 * tied_floats - 4) +
                       " bytes, its header asks for " + std::to_string(28 + 4 * tied_floats) +
                       ". The download may be cut short."));
    CHECK(contains(refusal(numbered(tied, tied_floats + 1)), "newer llama2.c version"));
    CHECK(contains(refusal(numbered(untied, tied_floats)), "its header asks for"));
    auto odd = numbered(tied, tied_floats);
    odd.push_back(std::byte{0});
    CHECK(contains(refusal(odd), "its header asks for"));
    CHECK(contains(refusal({}), "the file has 0 bytes, expected at least 28"));
    const auto lfs = pesc::as_bytes("version https://git-lfs.github.com/spec/v1\noid sha256:12345\n");
    CHECK(contains(refusal({lfs.begin(), lfs.end()}), "Git LFS pointer"));
  }

  TEST_CASE("a file on disk is judged by its header before it is read") {
    const support::temporary_folder folder;
    const std::string path = folder.write("m.bin", pesc::as_text(numbered(tied, tied_floats)));
    std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
    CHECK(contains(message_of([&] { static_cast<void>(llama2c_file::open(path)); }),
                   "the file has 1099511627776 bytes"));
    const std::string cut = folder.write("short.bin", "1234");
    CHECK(contains(message_of([&] { static_cast<void>(llama2c_file::open(cut)); }), "the file has 4 bytes"));
  }

  TEST_CASE("the bundled model opens") {
    PESC_REQUIRE_DATA(path, "stories260K.bin");
    const auto file = llama2c_file::open(path.string());
    CHECK(file.header.hidden == 64);
    CHECK(file.header.intermediate == 172);
    CHECK(file.header.layers == 5);
    CHECK(file.header.heads == 8);
    CHECK(file.header.kv_heads == 4);
    CHECK(file.header.vocab == 512);
    CHECK(file.header.max_positions == 512);
    CHECK(file.header.tied);
    CHECK(file.key.count == 5 * 32 * 64);
    for (const float gain : values(file, file.final_norm)) CHECK((gain > 0.1f && gain < 100.0f));
  }
}
