// SPDX-License-Identifier: Apache-2.0
#include "tool/demo_data.hpp"

#include <cstdlib>
#include <filesystem>

#include "pesc/model/detail/folder.hpp"
#include "pesc/train/records.hpp"
#include "tool/writing.hpp"

namespace pesc::tool {
namespace {

std::vector<std::string> data_folders() {
  std::vector<std::string> out;
  if (const char* named = std::getenv("PESC_DATA"); named != nullptr && *named != '\0')
    out.emplace_back(named);
  out.emplace_back(PESC_EXAMPLE_DATA);
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) out.push_back((program.parent_path().parent_path() / "share/pesc/data").string());
  return out;
}

std::vector<text_record> records_of(const std::string& name) {
  record_summary ignored;
  return read_records(bundled_file(name), {}, ignored);
}

/// \brief One JSON object a line, prompt and response apart; a record without a prompt is all text.
std::string write_records(const std::string& path, const std::vector<text_record>& records) {
  std::string out;
  for (const text_record& record : records) {
    json line = json::object();
    if (record.prompt.empty())
      line.set("text", record.target);
    else
      line.set("prompt", record.prompt.substr(0, record.prompt.size() - 1)).set("response", record.target);
    out += to_string(line) + '\n';
  }
  write_file(path, out);
  return path;
}

/// \brief Pieces of one text, joined again: reading the file cuts it at the same places.
std::string write_pieces(const std::string& path, const std::vector<text_record>& pieces) {
  std::string out;
  for (const text_record& piece : pieces) out += piece.target;
  write_file(path, out);
  return path;
}

bool is_held_out_task(const text_record& r) { return r.task_id >= 11 && r.task_id <= 510; }

/// \brief The first speech of a piece of verse that begins in it, up to the end of a line behind `least` characters.
std::string beginning(std::string text, std::size_t least) {
  if (const std::size_t gap = text.find("\n\n"); gap != std::string::npos) text.erase(0, gap + 2);
  const std::size_t end = text.find('\n', std::min(least, text.size()));
  return text.substr(0, end == std::string::npos ? text.size() : end + 1);
}

}  // namespace

std::string bundled_file(const std::string& name) {
  std::string searched;
  for (const std::string& folder : data_folders()) {
    for (const char* below : {"", "/model", "/instruct", "/text"})
      if (const std::string path = folder + below + '/' + name; pesc::detail::exists(path)) return path;
    searched += (searched.empty() ? "" : ", ") + folder;
  }
  pesc::detail::raise<io_error>(name + ": there is no such file in " + searched +
                                ". Name the folder: PESC_DATA=DIR");
}

std::vector<demo_domain> write_demo_data(const std::string& folder) {
  pesc::detail::make_folders(folder);
  const auto file = [&](const char* name) { return folder + '/' + name; };
  const auto maths = records_of("gsm8k_test.jsonl");
  const auto tasks = records_of("mbpp.jsonl");
  const auto held_tasks = select_records(tasks, is_held_out_task);
  const auto instructions = records_of("self_instruct_user_oriented.jsonl");
  const auto verse = records_of("tinyshakespeare.txt");
  const auto held_verse = drop_records(verse, -60);
  return {
      {"maths", write_records(file("maths.jsonl"), records_of("gsm8k_train.jsonl")),
       write_records(file("maths_held_out.jsonl"), maths), maths[0].prompt},
      {"code",
       write_records(file("code.jsonl"),
                     select_records(tasks, [](const text_record& r) { return !is_held_out_task(r); })),
       write_records(file("code_held_out.jsonl"), held_tasks), held_tasks[0].prompt},
      {"instructions",
       write_records(file("instructions.jsonl"), records_of("self_instruct_seed_tasks.jsonl")),
       write_records(file("instructions_held_out.jsonl"), instructions), instructions[0].prompt},
      {"verse", write_pieces(file("verse.txt"), take_records(verse, -60)),
       write_pieces(file("verse_held_out.txt"), held_verse), beginning(held_verse[1].target, 60)},
      {"stories", "", write_records(file("stories_held_out.jsonl"), records_of("tinystories_sample_5.txt")),
       "Once upon a time"}};
}

std::string write_stories(session& model, const tokenizer& tokens, const std::string& folder, index_t count,
                          std::uint64_t seed) {
  std::vector<text_record> stories;
  for (index_t i = 0; i < count; ++i) {
    const sampling_options sampling{.temperature = 1.0,
                                    .seed = seed * 1000003 + static_cast<std::uint64_t>(i)};
    text_record story;
    story.target = continuation(model, tokens, "", 400, sampling);
    if (!story.target.empty()) stories.push_back(std::move(story));
  }
  return write_records(folder + "/stories.jsonl", stories);
}

}  // namespace pesc::tool
