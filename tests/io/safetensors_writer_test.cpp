// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/safetensors_writer.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors.hpp"
#include "support/crc32.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using pesc::bf16;
using pesc::element_type;
using pesc::safetensors_file;
using pesc::safetensors_writer;
using support::message_of;

TEST_SUITE("io/safetensors_writer") {
  TEST_CASE("three small tensors give the reference file to the byte") {
    const float a[] = {1.0f, -2.5f};
    const bf16 b[] = {pesc::to_bf16(1.0f), pesc::to_bf16(-2.0f), {}};
    const std::uint8_t c[] = {0x7B, 0x34};
    safetensors_writer writer;
    writer.set_metadata("format", "pt");
    writer.add("c", {2, 1}, std::span{c});
    writer.add("b", {3}, std::span{b});
    writer.add("a", {2}, std::span{a});
    const auto bytes = writer.to_bytes();
    CHECK(bytes.size() == 224);
    CHECK(support::crc32(bytes) == 0xE0E4B6CEu);
    CHECK(writer.data_bytes() == 16);

    const support::temporary_folder folder;
    writer.write(folder.path("x"));
    CHECK(pesc::read_file(folder.path("x")) == bytes);
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("tensors are sorted by type, largest first, then by name") {
    safetensors_writer writer;
    const std::vector<std::uint8_t> eight(8);
    const auto bytes = std::as_bytes(std::span{eight});
    writer.add("u", element_type::u8, {8}, bytes);
    writer.add("b", element_type::f32, {2}, bytes);
    writer.add("a", element_type::f32, {2, 1}, bytes);
    writer.add("i", element_type::i64, {}, bytes);
    writer.add("h", element_type::f16, {4}, bytes);
    writer.add("g", element_type::bf16, {4}, bytes);
    const auto file = safetensors_file::from_bytes("m", writer.to_bytes());
    const char* order[] = {"i", "a", "b", "g", "h", "u"};
    for (int i = 0; i < 6; ++i) CHECK(file.get(order[i]).offset == 8 * i);
    CHECK((reinterpret_cast<std::uintptr_t>(file.get("i").bytes.data()) -
           reinterpret_cast<std::uintptr_t>(file.get("u").bytes.data())) %
              8 ==
          0);
  }

  TEST_CASE("names, metadata and values of any kind come back") {
    safetensors_writer writer;
    const std::string odd("a\"\\/\n\x01é", 8);
    const std::vector<double> numbers{1e300, -0.0};
    writer.set_metadata(odd, odd);
    writer.add(odd, {2}, std::span{numbers});
    writer.add("", element_type::f4, {2, 0}, {});
    writer.add("made", element_type::i32, {3}, [](pesc::byte_sink sink) {
      for (std::int32_t i = 0; i < 3; ++i) sink(std::as_bytes(std::span{&i, 1}));
    });
    const auto file = safetensors_file::from_bytes("m", writer.to_bytes());
    CHECK(file.metadata().at(odd) == odd);
    CHECK(file.read<double>(odd) == numbers);
    CHECK(file.read<std::int32_t>("made") == std::vector<std::int32_t>{0, 1, 2});
    CHECK(file.get("").shape == std::vector<pesc::index_t>{2, 0});
    CHECK(safetensors_file::from_bytes("m", safetensors_writer{}.to_bytes()).tensors().empty());
  }

  TEST_CASE("what could not be read back is not written") {
    const std::vector<float> two(2);
    const auto adding = [&](std::string name, std::vector<pesc::index_t> shape) {
      return message_of([&] { safetensors_writer{}.add(std::move(name), std::move(shape), std::span{two}); });
    };
    CHECK(adding("w", {3}) == "safetensors: tensor \"w\" has 8 bytes but [3] F32 needs 12");
    CHECK(adding("w", {-2}) == "safetensors: tensor \"w\" cannot be written as [-2] F32");
    CHECK(support::contains(adding("__metadata__", {2}), "cannot be written"));
    CHECK(support::contains(adding("w", {1, 1, 1, 1, 1, 1, 1, 1, 2}), "cannot be written"));

    safetensors_writer twice;
    twice.add("w", {2}, std::span{two});
    twice.add("w", {1, 2}, std::span{two});
    CHECK(message_of([&] { static_cast<void>(twice.to_bytes()); }) ==
          "safetensors: tensor \"w\" was added twice");
    CHECK(message_of([&] {
            twice.set_metadata("k", "1");
            twice.set_metadata("k", "2");
          }) == "safetensors: a metadata key was set twice");
  }

  TEST_CASE("a provider that makes too little leaves no file") {
    const support::temporary_folder folder;
    safetensors_writer writer;
    writer.add("w", element_type::u8, {3}, [](pesc::byte_sink sink) {
      const std::uint8_t one = 1;
      sink(std::as_bytes(std::span{&one, 1}));
    });
    CHECK(message_of([&] { writer.write(folder.path("x")); }) ==
          "safetensors: tensor \"w\": 1 bytes were made, expected 3");
    CHECK(folder.entries() == 0);
  }
}
