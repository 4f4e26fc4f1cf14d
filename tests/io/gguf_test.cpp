// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/gguf.hpp"

#include <cstring>
#include <filesystem>

#include <doctest/doctest.h>

#include "support/gguf_builder.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

using pesc::gguf_file;
using support::contains;
using support::gguf_builder;

gguf_builder small() {
  gguf_builder out;
  out.string("general.architecture", "llama").u32("a", 7).f32("b", 0.5f).flag("c", true);
  out.key("d", 11, std::int64_t{-5}).key("e", 10, std::uint64_t{1} << 63);
  out.list<std::string>("tokens", 8, {"x", "", "zz"}).list<float>("scores", 6, {1.5f, -2.0f});
  out.list<std::int32_t>("types", 5, {1, 2, 3});
  out.floats("first", {3, 2}, {1, 2, 3, 4, 5, 6}).floats("second", {1}, {7});
  out.tensor("third", {32}, 2, std::vector<std::byte>(18));
  out.tensor("fourth", {256}, 12, std::vector<std::byte>(144));
  return out;
}

gguf_file open(const gguf_builder& from) { return gguf_file::from_bytes("m.gguf", from.bytes()); }

std::string refusal(std::vector<std::byte> bytes) {
  return support::message_of([&] { static_cast<void>(gguf_file::from_bytes("m.gguf", std::move(bytes))); });
}
std::string refusal(const gguf_builder& from) { return refusal(from.bytes()); }

}  // namespace

TEST_SUITE("io/gguf") {
  TEST_CASE("keys, lists and tensors come as they were written") {
    for (const std::uint32_t version : {2u, 3u}) {
      gguf_builder b = small();
      b.version = version;
      const gguf_file file = open(b);
      CHECK(file.version() == version);
      const auto f = file.fields();
      CHECK(f.get_string("general.architecture") == "llama");
      CHECK(f.get_int("a") == 7);
      CHECK(f.get_double("b") == 0.5);
      CHECK(f.get_bool("c"));
      CHECK(f.get_int("d") == -5);
      CHECK(file.keys().find("e")->to_uint() == std::uint64_t{1} << 63);
      CHECK(file.strings("tokens") == std::vector<std::string_view>{"x", "", "zz"});
      CHECK(file.floats("scores") == std::vector<float>{1.5f, -2.0f});
      CHECK(file.integers("types") == std::vector<std::int32_t>{1, 2, 3});
      CHECK(file.lists().at("tokens") == 3);
      REQUIRE(file.tensors().size() == 4);
      CHECK(file.find("first")->shape == std::vector<pesc::index_t>{2, 3});
      CHECK(pesc::to_floats(*file.find("first"), "m") == std::vector<float>{1, 2, 3, 4, 5, 6});
      CHECK(pesc::to_floats(*file.find("second"), "m") == std::vector<float>{7});
      CHECK(pesc::to_floats(*file.find("third"), "m") == std::vector<float>(32));
      CHECK(file.find("fourth")->dtype_name == "Q4_K");
      CHECK(file.find("fourth")->dtype == pesc::element_type::unknown);
      CHECK(file.find("no") == nullptr);
    }
  }

  TEST_CASE("from a disk at once, mapped and on demand are the same") {
    const support::temporary_folder folder;
    const std::string path = folder.write("m.gguf", pesc::as_text(small().bytes()));
    for (const pesc::open_options options :
         {pesc::open_options{}, pesc::open_options{.map = true}, pesc::open_options{.on_demand = true}}) {
      const gguf_file file = [](gguf_file f) { return f; }(gguf_file::open(path, options));
      const pesc::loaded_tensor first(*file.find("first"), path);
      CHECK(pesc::to_floats(*first, "m") == std::vector<float>{1, 2, 3, 4, 5, 6});
      CHECK(file.find("first")->bytes.empty() == options.on_demand);
      CHECK(file.strings("tokens").size() == 3);
    }
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 200);
    CHECK(contains(support::message_of([&] { static_cast<void>(gguf_file::open(path)); }), "cut short"));
  }

  TEST_CASE("a long front is fetched as it is read") {
    const support::temporary_folder folder;
    std::vector<std::string> texts;
    for (int i = 0; i < 40000; ++i) texts.push_back("token " + std::to_string(i));
    gguf_builder b = small();
    b.list<std::string>("many", 8, texts).u32("after", 5);
    const std::string path = folder.write("m.gguf", pesc::as_text(b.bytes()));
    const gguf_file file = gguf_file::open(path, {.on_demand = true});
    const auto found = file.strings("many");
    REQUIRE(found.size() == texts.size());
    for (std::size_t i = 0; i < texts.size(); ++i) REQUIRE(found[i] == texts[i]);
    CHECK(file.fields().get_int("after") == 5);
    CHECK(pesc::to_floats(*file.find("second"), "m") == std::vector<float>{7});
  }

  TEST_CASE("a tensor behind a cut after opening is an error, not silence") {
    const support::temporary_folder folder;
    const std::string path = folder.write("m.gguf", pesc::as_text(small().bytes()));
    const gguf_file file = gguf_file::open(path, {.on_demand = true});
    std::filesystem::resize_file(path, 100);
    CHECK(contains(support::message_of<pesc::io_error>(
                       [&] { static_cast<void>(pesc::loaded_tensor(*file.find("first"), path)); }),
                   "It was cut after it was opened"));
  }

  TEST_CASE("every prefix of a file is refused with a reason") {
    const auto whole = small().bytes();
    for (std::size_t n = 0; n < whole.size(); ++n) {
      const std::string text = refusal({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)});
      REQUIRE(text.starts_with("m.gguf: "));
    }
  }

  TEST_CASE("counts and lengths that cannot be cost nothing") {
    auto bytes = small().bytes();
    const auto with = [&](std::size_t at, std::uint64_t value) {
      auto copy = bytes;
      std::memcpy(copy.data() + at, &value, 8);
      return refusal(copy);
    };
    const std::uint64_t huge[] = {std::uint64_t{1} << 31, std::uint64_t{1} << 62, std::uint64_t{1} << 63,
                                  ~std::uint64_t{0}};
    for (const std::uint64_t n : huge) {
      CHECK(contains(with(8, n), "tensors, "));
      CHECK(contains(with(16, n), "keys, "));
      CHECK(contains(with(24, n), "the name of a key of "));
    }
    gguf_builder b;
    b.key("list", 9, std::uint32_t{8}).key("count", 4, std::uint32_t{0});
    CHECK(contains(refusal(b), "m.gguf: byte"));
  }

  TEST_CASE("versions, byte order and other files are told apart") {
    gguf_builder b = small();
    for (const std::uint32_t version : {0u, 1u, 4u}) {
      b.version = version;
      CHECK(contains(refusal(b), "expected 2 or 3. Convert"));
    }
    b.version = 3u << 24;
    CHECK(contains(refusal(b), "other byte order"));
    const auto text = pesc::as_bytes("<!doctype html><p>login</p>");
    CHECK(contains(refusal({text.begin(), text.end()}), "this is a web page"));
    CHECK(contains(refusal(std::vector<std::byte>(64)), "begins with \"GGUF\""));
  }

  TEST_CASE("a file is known by its first bytes, whatever its name") {
    const support::temporary_folder folder;
    CHECK(pesc::is_gguf(folder.write("model.bin", pesc::as_text(small().bytes()))));
    CHECK(pesc::is_gguf(folder.write("cut", "GGUF")));
    CHECK_FALSE(pesc::is_gguf(folder.write("model.gguf", "GGU")));
    CHECK_FALSE(pesc::is_gguf(folder.write("other.gguf", "GGML and more")));
    CHECK_THROWS_AS(static_cast<void>(pesc::is_gguf(folder.path("none"))), pesc::io_error);
  }

  TEST_CASE("keys and tensors that contradict the format are named") {
    CHECK(contains(refusal(small().u32("a", 1)), "key \"a\" appears twice"));
    CHECK(contains(refusal(small().key("f", 13, 0)), "key \"f\" has the type 13, expected 0 to 12"));
    CHECK(contains(refusal(small().key("f", 7, std::uint8_t{2})), "truth value 2"));
    CHECK(contains(refusal(small().list<std::uint32_t>("f", 9, {})), "holds lists"));
    CHECK(contains(refusal(small().list<std::uint32_t>("f", 77, {})), "elements of type 77"));
    for (const std::uint32_t bad : {0u, 3u, 4u, 1u << 31})
      CHECK(contains(refusal(small().u32("general.alignment", bad)), "a power of two from 8 to 65536"));
    CHECK(contains(refusal(small().key("general.alignment", 10, std::uint64_t{32})), "of type u32"));
    CHECK(contains(refusal(small().floats("first", {1}, {1})), "tensor \"first\" appears twice"));
    CHECK(contains(refusal(small().floats("t", {}, {})), "0 dimensions, expected 1 to 4"));
    CHECK(contains(refusal(small().floats("t", {1, 1, 1, 1, 1}, {1})), "5 dimensions"));
    CHECK(contains(refusal(small().floats("t", {0}, {})), "a dimension of 0"));
    CHECK(contains(refusal(small().floats("t", {std::uint64_t{1} << 32, std::uint64_t{1} << 32}, {1})),
                   "overflows"));
    CHECK(contains(refusal(small().floats("t", {std::uint64_t{1} << 61, 2}, {1})), "larger than the file"));
    CHECK(contains(refusal(small().floats("t", {1000}, {1})), "larger than the file"));
    CHECK(contains(refusal(small().tensor("t", {48}, 2, std::vector<std::byte>(36))),
                   "no whole number of blocks of 32"));
    CHECK(contains(refusal(small().tensor("t", {1}, 99, std::vector<std::byte>(4))),
                   "type 99, which is not known"));
    CHECK(contains(refusal(small().raw_tensor("t", {1}, 0, 4, std::vector<std::byte>(4))),
                   "tensors follow one another"));
  }

  TEST_CASE("an alignment of its own is honoured") {
    gguf_builder b;
    b.alignment = 64;
    b.u32("general.alignment", 64).floats("x", {1}, {3}).floats("y", {1}, {4});
    const gguf_file file = open(b);
    CHECK(file.alignment() == 64);
    CHECK(file.find("y")->offset == 64);
    CHECK(pesc::to_floats(*file.find("y"), "m") == std::vector<float>{4});
  }

  TEST_CASE("a list of another type or name is an error that says so") {
    const gguf_file file = open(small());
    CHECK(contains(support::message_of([&] { static_cast<void>(file.floats("tokens")); }),
                   "key \"tokens\" is a list of texts, expected 32-bit floats"));
    CHECK(contains(support::message_of([&] { static_cast<void>(file.strings("no")); }),
                   "key \"no\" is missing"));
  }
}
