// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/sharded_writer.hpp"

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/hf_directory.hpp"
#include "support/temporary_folder.hpp"

namespace {

using pesc::index_t;

/// Writes tensors of these byte counts, each a group of its own, and an empty configuration.
index_t write(const std::string& folder, index_t limit, const std::vector<index_t>& sizes) {
  const std::vector<std::uint8_t> zeros(1000);
  pesc::sharded_writer out(limit);
  for (std::size_t i = 0; i < sizes.size(); ++i)
    out.next(sizes[i]).add("t" + std::to_string(i), {sizes[i]},
                           std::span{zeros}.first(static_cast<std::size_t>(sizes[i])));
  out.write(folder);
  pesc::write_file(folder + "/config.json", "{}");
  return out.file_count();
}

}  // namespace

TEST_SUITE("io/sharded_writer") {
  TEST_CASE("what fits the limit is one file without an index") {
    const support::temporary_folder t;
    CHECK(write(t.path(), 30, {10, 20}) == 1);
    CHECK(t.entries() == 2);
    CHECK(pesc::hf_directory::open(t.path()).names() == std::vector<std::string>{"t0", "t1"});
  }

  TEST_CASE("more becomes several files, which the index names") {
    const support::temporary_folder t;
    CHECK(write(t.path(), 30, {10, 20, 1, 40, 5, 25}) == 4);
    for (const char* name : {"model-00001-of-00004.safetensors", "model-00004-of-00004.safetensors",
                             "model.safetensors.index.json"})
      CHECK(std::filesystem::exists(t.path(name)));
    const auto folder = pesc::hf_directory::open(t.path());
    CHECK(folder.names().size() == 6);
    CHECK(folder.warnings().empty());  // among them: a wrong total size
    CHECK(folder.files()[0].names() == std::vector<std::string>{"t0", "t1"});
    CHECK(folder.files()[2].names() == std::vector<std::string>{"t3"});
    CHECK(folder.files()[3].names() == std::vector<std::string>{"t4", "t5"});
  }

  TEST_CASE("tensors of a group stay together") {
    const support::temporary_folder t;
    const std::vector<std::uint8_t> zeros(100);
    pesc::sharded_writer out(30);
    out.next(10).add("a", {index_t{10}}, std::span{zeros}.first(10));
    auto& file = out.next(40);
    file.add("b", {index_t{20}}, std::span{zeros}.first(20));
    file.add("c", {index_t{20}}, std::span{zeros}.first(20));
    CHECK(out.file_count() == 2);
  }

  TEST_CASE("no tensors are a file without any") {
    const support::temporary_folder t;
    CHECK(write(t.path(), 1, {}) == 1);
    CHECK(pesc::hf_directory::open(t.path()).names().empty());
  }
}
