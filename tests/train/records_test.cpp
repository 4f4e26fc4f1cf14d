// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/records.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>
#include <unistd.h>

#include "support/data.hpp"

namespace {

/// A file that lives as long as the object.
struct scratch_file {
  std::filesystem::path path;
  scratch_file(const std::string& name, const std::string& content)
      : path{std::filesystem::temp_directory_path() /
             ("pesc_records_" + std::to_string(::getpid()) + "_" + name)} {
    std::ofstream{path, std::ios::binary} << content;
  }
  ~scratch_file() { std::filesystem::remove(path); }
};

std::vector<pesc::text_record> read(const std::string& content, const pesc::record_options& options = {},
                                    const std::string& name = "data.jsonl") {
  const scratch_file file{name, content};
  pesc::record_summary summary;
  return pesc::read_records(file.path.string(), options, summary);
}

/// What reading says, without the path of the file.
std::string complaint(const std::string& content, const pesc::record_options& options = {},
                      const std::string& name = "data.jsonl") {
  const scratch_file file{name, content};
  pesc::record_summary summary;
  try {
    static_cast<void>(pesc::read_records(file.path.string(), options, summary));
  } catch (const pesc::error& error) {
    std::string text = error.what();
    CHECK(text.find('\n') == std::string::npos);
    CHECK(text.starts_with(file.path.string()));
    return text.substr(file.path.string().size());
  }
  return "no complaint";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const std::string good = R"({"prompt":"p","response":"r"})"
                         "\n";

}  // namespace

TEST_SUITE("train/records") {
  TEST_CASE("fields known by name make prompt and target") {
    const auto one = [](const std::string& line) {
      const auto records = read(line);
      REQUIRE(records.size() == 1);
      return records[0].prompt + "|" + records[0].target;
    };
    CHECK(one(R"({"question":"1+1?","answer":"2"})") == "1+1?\n|2");
    CHECK(one(R"({"answer":"2","extra":[1,{"question":5}],"question":"1+1?"})") == "1+1?\n|2");
    CHECK(one(R"({"text":"Write f.","code":"def f():\r\n  pass\r\n","task_id":7})") ==
          "Write f.\n|def f():\n  pass\n");
    CHECK(one(R"({"prompt":"p","response":"r"})") == "p\n|r");
    CHECK(one(R"({"text":"all of it"})") == "|all of it");
    CHECK(one(R"({"instruction":"Add.","instances":[{"input":"1 2","output":"3"},{"output":"5"}]})") ==
          "Add.\n1 2\n|3");
    CHECK(one(R"({"instruction":"Sing.","instances":[{"output":"la","input":""}]})") == "Sing.\n|la");
    CHECK(one(R"({"instruction":"Sing.","instances":[{"output":"la"}],"output":"no"})") == "Sing.\n|la");
  }

  TEST_CASE("fields can be named, also as a target without a prompt") {
    pesc::record_options options;
    options.prompt_field = "q";
    options.target_field = "a";
    const auto records = read(R"({"q":"Q","a":"A","text":"T"})", options);
    CHECK(records[0].prompt == "Q\n");
    CHECK(records[0].target == "A");
    CHECK(contains(complaint(R"({"q":"Q"})", options), ":1: field \"a\" is missing"));
    options.prompt_field.clear();
    CHECK(read(R"({"q":"Q","a":"A"})", options)[0].prompt.empty());
  }

  TEST_CASE("escapes, blank lines, CRLF, a byte order mark and a missing last line end change nothing") {
    const auto records =
        read("\xEF\xBB\xBF{\"text\":\"a\\u00e9\\ud83d\\ude00\\n\"}\r\n\r\n  \n{\"text\":\"b\xC3\xA9\"}");
    REQUIRE(records.size() == 2);
    CHECK(records[0].target == "a\xC3\xA9\xF0\x9F\x98\x80\n");
    CHECK(records[1].target == "b\xC3\xA9");
    CHECK(records[1].line == 4);
  }

  TEST_CASE("a bad line is named with its number and what is wrong with it") {
    const struct {
      const char* line;
      const char* expected;
    } cases[] = {
        {R"({"question":"a","answer":5})", R"(field "answer" is a number, expected text)"},
        {R"({"question":"a","answer":null})", R"(field "answer" is null, expected text)"},
        {R"({"question":["a"],"answer":"b"})", R"(field "question" is a list, expected text)"},
        {R"({"prompt":{"a":"b"},"response":"b"})", R"(field "prompt" is an object, expected text)"},
        {R"({"text":true})", R"(field "text" is a boolean, expected text)"},
        {R"({"question":"a"})", R"(field "answer" is missing beside "question")"},
        {R"({"foo":"a","bar":1})", R"(no known fields (found "foo", "bar"; expected question/answer)"},
        {R"({})", "no known fields (found none;"},
        {R"({"instruction":"a","instances":[]})", R"(field "instances" has no first entry with an "output")"},
        {R"({"instruction":"a","instances":[{"output":3}]})", R"(field "instances[0].output" is a number)"},
        {R"({"instruction":"a","instances":[{"input":3,"output":""}]})",
         R"(field "instances[0].input" is a number)"},
        {R"({"instruction":1,"instances":[{"input":"","output":"b"}]})",
         R"(field "instruction" is a number)"},
        {R"({"text":"a","text":"b"})", R"(field "text" appears twice)"},
        {R"({"text":"a)", "not JSON at byte"},
        {R"({"text":"a"} x)", "not JSON at byte"},
        {R"(["text"])", "found a list, expected an object"},
        {R"("text")", "found text, expected an object"},
        {R"({"text":"\ud800"})", "not JSON at byte"},
        {R"({"text":"\x41"})", "not JSON at byte"},
        {"{\"text\":\"a\tb\"}", "not JSON at byte"},
        {"{\"text\":\"a\xE9\"}", R"(byte 10 is not UTF-8 (found "\xe9\"}"))"},
        {"{\"text\":\"\xED\xA0\x80\"}", "byte 9 is not UTF-8"},
        {"{\"text\":\"\xC0\xAF\"}", "byte 9 is not UTF-8"},
        {"{\"text\":\"\xF4\x90\x80\x80\"}", "byte 9 is not UTF-8"},
        {"hello", "not JSON at byte"},
    };
    for (const auto& c : cases) {
      CAPTURE(c.line);
      const std::string text = complaint(good + good + c.line + "\n" + good);
      CHECK_MESSAGE(contains(text, c.expected), text);
      CHECK_MESSAGE(text.starts_with(":3: "), text);
      CHECK_MESSAGE(contains(text, "--skip-bad"), text);
      CHECK(text.size() < 500);
    }
  }

  TEST_CASE("deep nesting, many fields and long lines are refused without being built up") {
    const std::string deep = "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
    CHECK(contains(complaint(deep), ":1: nested deeper than 64"));
    std::string wide = "{";
    for (int i = 0; i < 5000; ++i) wide += "\"k" + std::to_string(i) + "\":1,";
    CHECK(contains(complaint(wide + "\"text\":\"a\"}"), ":1: more than 256 fields"));
    const std::string long_line =
        good + "{\"text\":\"" + std::string(std::size_t{100} << 20, 'a') + "\"}\n" + good;
    CHECK(contains(complaint(long_line), ":2: line of 104857611 bytes, expected at most 16777216"));
  }

  TEST_CASE("a number of bad lines can be allowed and is counted") {
    const scratch_file file{"skip.jsonl", good + "x\n" + good + "{\"text\":7}\n" + good};
    pesc::record_options options;
    pesc::record_summary summary;
    options.skip_bad = 2;
    CHECK(pesc::read_records(file.path.string(), options, summary).size() == 3);
    CHECK(summary.lines == 5);
    CHECK(summary.records == 3);
    CHECK(summary.skipped == 2);
    CHECK(contains(summary.first_bad, "skip.jsonl:2: not JSON"));
    options.skip_bad = 1;
    std::string text;
    try {
      static_cast<void>(pesc::read_records(file.path.string(), options, summary));
    } catch (const pesc::format_error& error) {
      text = error.what();
    }
    CHECK(contains(text, "skip.jsonl:2: not JSON"));
    CHECK(contains(text, "Bad lines so far: 2, allowed: 1, the last is line 4"));
  }

  TEST_CASE("records without a target are left out and counted, a file without any record is refused") {
    const scratch_file file{"empty.jsonl", good +
                                               R"({"text":""})"
                                               "\n" +
                                               R"({"question":"a","answer":""})"};
    pesc::record_summary summary;
    CHECK(pesc::read_records(file.path.string(), {}, summary).size() == 1);
    CHECK(summary.empty_target == 2);
    CHECK(contains(complaint(""), ": no usable record (found 0 lines"));
    CHECK(contains(complaint(R"({"text":""})"),
                   "no usable record (found 1 lines, 0 of them bad, 1 with an empty target)"));
    pesc::record_options options;
    options.skip_bad = 5;
    CHECK(contains(complaint("x\ny\n", options), "2 of them bad, 0 with an empty target). First bad line: "));
    CHECK(contains(complaint("", {}, "empty.txt"), "no usable record"));
  }

  TEST_CASE("files of another kind and missing files are named") {
    CHECK(
        contains(complaint("a,b\n", {}, "data.csv"), "unknown kind of data file (expected .jsonl or .txt)"));
    CHECK(
        contains(complaint("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "Git LFS pointer"));
    pesc::record_summary summary;
    CHECK_THROWS_AS(static_cast<void>(pesc::read_records("/no/such/file.jsonl", {}, summary)),
                    pesc::io_error);
    const auto folder =
        std::filesystem::temp_directory_path() / ("pesc_folder_" + std::to_string(::getpid()) + ".jsonl");
    std::filesystem::create_directory(folder);
    CHECK_THROWS_AS(static_cast<void>(pesc::read_records(folder.string(), {}, summary)), pesc::io_error);
    std::filesystem::remove(folder);
  }

  TEST_CASE("plain text is cut between characters and only the last piece ends") {
    std::string text;
    for (int i = 0; i < 25; ++i) text += "\xC3\xA9\n";
    pesc::record_options options;
    options.piece_characters = 7;
    const auto records = read(text, options, "data.txt");
    REQUIRE(records.size() == 8);
    std::string joined;
    for (const auto& record : records) {
      joined += record.target;
      CHECK(record.prompt.empty());
      CHECK(pesc::is_valid_utf8(record.target));
      CHECK(record.ends == (&record == &records.back()));
    }
    CHECK(joined == text);
    CHECK(records[1].line == 4);
  }

  TEST_CASE("end-of-text marks part a text into records that are not cut") {
    const auto records = read("One.\nTwo.\n<|endoftext|>\n\nThree.<|endoftext|>Four.\n<|endoftext|>\n",
                              {"", "", 0, 3}, "marks.txt");
    REQUIRE(records.size() == 3);
    CHECK(records[0].target == "One.\nTwo.");
    CHECK(records[1].target == "Three.");
    CHECK(records[2].target == "Four.");
    CHECK(records[2].ends);
    CHECK(records[0].line == 1);
  }

  TEST_CASE("a text that is not UTF-8 is refused with the line, or the line is left out") {
    CHECK(contains(complaint("ok\nb\xFF"
                             "d\n",
                             {}, "bad.txt"),
                   ":2: byte 1 is not UTF-8"));
    pesc::record_options options;
    options.skip_bad = 1;
    CHECK(read("ok\nb\xFF"
               "d\nfine\n",
               options, "bad.txt")[0]
              .target == "ok\nfine\n");
  }

  TEST_CASE("the carried data sets are read whole") {
    const auto count = [](const char* name) {
      pesc::record_summary summary;
      const auto records = pesc::read_records(support::example_data(name).string(), {}, summary);
      for (const auto& record : records) CHECK(record.target.find('\r') == std::string::npos);
      CHECK(summary.empty_target == 0);
      return records.size();
    };
    CHECK(count("gsm8k_train.jsonl") == 1200);
    CHECK(count("gsm8k_test.jsonl") == 200);
    CHECK(count("mbpp.jsonl") == 974);
    CHECK(count("self_instruct_seed_tasks.jsonl") == 175);
    CHECK(count("self_instruct_user_oriented.jsonl") == 252);
    CHECK(count("tinyshakespeare.txt") == 1240);
    CHECK(count("tinystories_sample_5.txt") == 5);
  }

  TEST_CASE("records are chosen by their id and by their place") {
    pesc::record_summary summary;
    const auto all = pesc::read_records(support::example_data("mbpp.jsonl").string(), {}, summary);
    const auto held_out = pesc::select_records(
        all, [](const pesc::text_record& r) { return r.task_id >= 11 && r.task_id <= 510; });
    const auto trained = pesc::select_records(
        all, [](const pesc::text_record& r) { return r.task_id < 11 || r.task_id > 510; });
    CHECK(held_out.size() == 500);
    CHECK(trained.size() == 474);
    CHECK(pesc::take_records(all, 3).size() == 3);
    CHECK(pesc::take_records(all, -4).size() == 970);
    CHECK(pesc::drop_records(all, -4).size() == 4);
    CHECK(pesc::drop_records(all, 970)[0].target == pesc::drop_records(all, -4)[0].target);
    CHECK(pesc::take_records(all, 5000).size() == 974);
    CHECK(pesc::drop_records(all, 5000).empty());
    CHECK(pesc::take_records(all, -5000).empty());
  }
}
