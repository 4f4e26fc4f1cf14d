// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "tool/program.hpp"

using support::bundled;
using support::outcome;
using support::pesc_program;

namespace {

/// \brief One to three lines on stderr and the status that was promised.
void check_refused(const outcome& result, int status) {
  CHECK(result.status == status);
  CHECK(result.error_lines() >= 1);
  CHECK(result.error_lines() <= 3);
  CHECK(result.err.starts_with("pesc: "));
}

}  // namespace

TEST_SUITE("tool/bad input") {
  TEST_CASE("wrong usage is named, with what was meant") {
    check_refused(pesc_program({}), 2);
    const auto command = pesc_program({"tuna"});
    check_refused(command, 2);
    CHECK(command.says("Did you mean tune?"));
    const auto option = pesc_program({"generate", "--modle", "x"});
    check_refused(option, 2);
    CHECK(option.says("Did you mean --model?"));
    check_refused(pesc_program({"generate"}), 2);
    check_refused(pesc_program({"generate", "--model", "x", "--temperature", "-1"}), 2);
    check_refused(pesc_program({"generate", "--model", "x", "--temperature", "warm"}), 2);
    check_refused(pesc_program({"generate", "--model", "x", "--isa", "avx9"}), 2);
    check_refused(pesc_program({"tune", "--model", "x"}), 2);
  }

  TEST_CASE("damaged model files are refused by generate and by inspect alike") {
    const support::temporary_folder folder;
    const std::string whole = support::read_text(bundled("stories260K.bin"));
    std::string negative = whole;
    negative[0] = negative[1] = negative[2] = negative[3] = static_cast<char>(0xFF);
    const std::string files[] = {
        folder.write("cut.bin", whole.substr(0, 500000)),
        folder.write("long.bin", whole + whole),
        folder.write("empty.bin", ""),
        folder.write("negative.bin", negative),
        folder.write("pointer.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        folder.path("missing.bin")};
    for (const std::string& file : files) {
      CAPTURE(file);
      check_refused(pesc_program({"generate", "--model", file, "--tokenizer", bundled("tok512.bin")}), 1);
      check_refused(pesc_program({"inspect", file}), 1);
    }
  }

  TEST_CASE("damaged folders are refused by generate and by inspect alike") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    for (const char* victim :
         {"config.json", "model.safetensors", "adapter_model.safetensors", "manifest.json"}) {
      CAPTURE(victim);
      const std::string copy = folder.path("copy");
      std::filesystem::copy(model, copy);
      const std::string file = copy + '/' + victim;
      SUBCASE("missing") { std::filesystem::remove(file); }
      SUBCASE("cut") { std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2); }
      check_refused(pesc_program({"generate", "--model", copy}), 1);
      check_refused(pesc_program({"inspect", copy}), 1);
      std::filesystem::remove_all(copy);
    }
    check_refused(pesc_program({"generate", "--model", std::filesystem::temp_directory_path().string()}), 1);
  }

  TEST_CASE("a tokenizer must be there, whole, and of the model's size") {
    const support::temporary_folder folder;
    const std::string whole = support::read_text(bundled("tok512.bin"));
    std::filesystem::copy_file(bundled("stories260K.bin"), folder.path("m.bin"));
    check_refused(pesc_program({"generate", "--model", folder.path("m.bin")}), 1);
    const std::string model = bundled("stories260K.bin");
    check_refused(pesc_program({"generate", "--model", model, "--tokenizer",
                                folder.write("c.bin", whole.substr(0, 3001))}),
                  1);
    const auto small = pesc_program({"generate", "--model", model, "--tokenizer",
                                     folder.write("s.bin", whole.substr(0, 4 + 3 * 8 + 5 + 5 + 6))});
    check_refused(small, 1);
    CHECK(pesc_program({"generate", "--model", folder.path("m.bin"), "--tokenizer", bundled("tok512.bin"),
                        "--max-tokens", "2"})
              .status == 0);
  }

  TEST_CASE("data without a usable record is refused") {
    const support::temporary_folder folder;
    for (const char* text : {"", "\n\n", "not json\n", "[1,2]\n", "{\"question\":1,\"answer\":\"b\"}\n",
                             "{\"text\":\"\"}\n", "{\"text\":\"\xC3\"}\n"}) {
      CAPTURE(std::string{text});
      const std::string data = folder.write("d.jsonl", text);
      check_refused(
          pesc_program({"evaluate", "--quiet", "--model", bundled("stories260K.bin"), "--data", data}), 1);
    }
    check_refused(pesc_program({"evaluate", "--quiet", "--model", bundled("stories260K.bin"), "--data",
                                folder.path("none.jsonl")}),
                  1);
    check_refused(pesc_program({"evaluate", "--quiet", "--model", bundled("stories260K.bin"), "--data",
                                folder.path("none.csv")}),
                  1);
  }

  TEST_CASE("models that cannot be tuned or crafted say why") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    const auto again = pesc_program({"craft", "--model", model, "--out", folder.path("x")});
    check_refused(again, 1);
    CHECK(again.says("crafted already"));
    const auto dense = pesc_program({"tune", "--model", bundled("stories260K.bin"), "--data",
                                     bundled("mbpp.jsonl"), "--out", folder.path("x")});
    check_refused(dense, 1);
    CHECK(dense.says("pesc craft"));
    const auto no_run = pesc_program({"tune", "--resume", model});
    check_refused(no_run, 1);
    CHECK(no_run.says("nothing to resume"));
    CHECK(folder.entries() == 1);
  }
}
