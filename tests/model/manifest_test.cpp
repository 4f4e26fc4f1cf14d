// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/manifest.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

const std::string text =
    "{\"format\": \"pesc checkpoint\", \"version\": 1, \"sequence\": 3, \"step\": 40, \"files\": {"
    "\"b.safetensors\": {\"bytes\": 5, \"xxh64\": \"0123456789abcdef\"}, \"a.json\": {\"bytes\": 0, "
    "\"xxh64\": \"ef46db3751d8e999\"}}}";

std::string refusal(const std::string& from, const std::string& to) {
  std::string changed = text;
  changed.replace(changed.find(from), from.size(), to);
  return support::message_of([&] { static_cast<void>(pesc::parse_manifest(changed, "m.json")); });
}

/// A folder of two files with its manifest.
struct checkpoint_folder {
  support::temporary_folder folder;
  checkpoint_folder() {
    pesc::checkpoint_manifest manifest{1, 0, {}};
    for (const char* name : {"a.bin", "b.bin"})
      manifest.files.push_back(
          {name, pesc::checksum_file(folder.write(name, std::string("content of ") + name))});
    folder.write("manifest.json", to_string(to_json(manifest)));
  }
  std::string problem(bool checksums = true) const {
    const auto reading = pesc::read_manifest(folder.path());
    return reading.manifest ? pesc::manifest_problem(folder.path(), *reading.manifest, checksums)
                            : reading.problem;
  }
};

}  // namespace

TEST_SUITE("model/manifest") {
  TEST_CASE("a manifest reads back as it was written, files sorted by name") {
    const auto manifest = pesc::parse_manifest(text, "m");
    CHECK(manifest.sequence == 3);
    CHECK(manifest.step == 40);
    REQUIRE(manifest.files.size() == 2);
    CHECK(manifest.files[0].name == "a.json");
    CHECK(manifest.files[1].content == pesc::file_checksum{5, 0x0123456789abcdefu});
    CHECK(manifest.find("b.safetensors") == &manifest.files[1]);
    CHECK(manifest.find("c") == nullptr);
    CHECK(pesc::parse_manifest(to_string(to_json(manifest)), "m") == manifest);
  }

  TEST_CASE("a manifest that was damaged or is from a newer program is refused") {
    using support::contains;
    CHECK(contains(refusal("pesc checkpoint", "other"),
                   "\"format\" is \"other\", expected \"pesc checkpoint\""));
    CHECK(contains(refusal("\"version\": 1", "\"version\": 2"),
                   "\"version\" is 2, expected 1 to 1. A newer program wrote it."));
    CHECK(contains(refusal("40", "-1"), "\"step\" is -1"));
    CHECK(contains(refusal("3", "1.5"), "\"sequence\""));
    CHECK(contains(refusal("a.json", "../a"), "holds \"../a\", expected names of files in this folder"));
    CHECK(contains(refusal("a.json", "manifest.json"), "holds \"manifest.json\""));
    CHECK(contains(refusal("0123456789abcdef", "0123456789ABCDEF"), "expected 16 hexadecimal digits"));
    CHECK(contains(refusal("0123456789abcdef", "123"), "\"files.b.safetensors.xxh64\" is \"123\""));
    CHECK(contains(refusal("\"bytes\": 5", "\"bytes\": -5"), "is -5, expected 0 or more"));
    CHECK(contains(refusal("\"files\"", "\"file\""), "\"files\" is missing"));
  }

  TEST_CASE("a complete folder has no problem") {
    const checkpoint_folder c;
    CHECK(c.problem() == "");
    CHECK(pesc::verify_manifest(c.folder.path()).files.size() == 2);
  }

  TEST_CASE("a folder without a manifest is incomplete") {
    const checkpoint_folder c;
    std::filesystem::remove(c.folder.path("manifest.json"));
    CHECK(c.problem() == c.folder.path() + " is incomplete (no manifest)");
    CHECK(support::message_of([&] { pesc::verify_manifest(c.folder.path()); }) == c.problem());
  }

  TEST_CASE("a file that is missing, has another size or other bytes is named") {
    const checkpoint_folder c;
    c.folder.write("b.bin", "content of B.bin");
    CHECK(support::contains(c.problem(), "b.bin: checksum"));
    CHECK(c.problem(false) == "");
    CHECK(support::contains(support::message_of([&] { pesc::verify_manifest(c.folder.path()); }),
                            "b.bin: checksum"));
    c.folder.write("b.bin", "short");
    CHECK(support::contains(c.problem(false), "b.bin: the file has 5 bytes, its manifest says 16"));
    std::filesystem::remove(c.folder.path("b.bin"));
    CHECK(support::contains(c.problem(false), "b.bin: the file is missing"));
  }

  TEST_CASE("a torn manifest is a problem, not an error") {
    const checkpoint_folder c;
    c.folder.write("manifest.json", "{\"format\": \"pe");
    CHECK(support::contains(c.problem(), "manifest.json: byte"));
  }
}
