// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/text/utf8.hpp"
#include "pesc/train/line_reader.hpp"
#include "pesc/train/record_fields.hpp"

namespace pesc {

/// \brief One example: the model reads `prompt` and learns to write `target`.
struct text_record {
  std::string prompt;  ///< ends in a newline; empty for plain text
  std::string target;
  bool ends = true;      ///< the end token follows the target; false for a piece out of the middle of a text
  index_t task_id = -1;  ///< number that the file gives the record, -1 without one
  index_t line = 0;      ///< where it begins in its file, from 1
};

/// \brief How records are taken out of a file.
struct record_options {
  std::string prompt_field;  ///< both names empty: the fields known by name
  std::string target_field;
  index_t skip_bad = 0;            ///< this many bad lines are left out before one is an error
  index_t piece_characters = 900;  ///< length of the pieces of a plain text
};

/// \brief What was found in a file.
struct record_summary {
  index_t lines = 0;
  index_t records = 0;
  index_t skipped = 0;       ///< bad lines that `skip_bad` allowed
  index_t empty_target = 0;  ///< records without a target, left out
  std::string first_bad;     ///< what was wrong with the first skipped line
};

namespace detail {

/// \brief The text with LF line ends, and without a CR that is left of a cut CRLF at its end.
inline std::string with_unix_lines(std::string text) {
  std::size_t out = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || (i + 1 < text.size() && text[i + 1] != '\n')) text[out++] = text[i];
  text.resize(out);
  return text;
}

/// \brief Fields that make a record: where the prompt and where the target stands; an empty prompt name = no
/// prompt.
struct field_pair {
  std::string_view prompt;
  std::string_view target;
};

inline std::string wrong_kind(std::string_view key, json_kind kind) {
  return concat("field ", quoted_excerpt(key), " is ", name_of(kind), ", expected text");
}

/// \brief Fills `record` from the two fields; returns what is wrong, or an empty text.
inline std::string take_pair(const record_fields& fields, field_pair names, text_record& record) {
  const record_field* target = record_fields::find(fields.members, names.target);
  if (target->kind != json_kind::text) return wrong_kind(names.target, target->kind);
  if (!names.prompt.empty()) {
    const record_field* prompt = record_fields::find(fields.members, names.prompt);
    if (prompt->kind != json_kind::text) return wrong_kind(names.prompt, prompt->kind);
    record.prompt = with_unix_lines(prompt->text) + '\n';
  }
  record.target = with_unix_lines(target->text);
  return {};
}

/// \brief The form of instruction collections: an instruction and a list of instances, of which the first
/// counts.
inline std::string take_instance(const record_fields& fields, text_record& record) {
  const record_field* instruction = record_fields::find(fields.members, "instruction");
  const record_field* input = record_fields::find(fields.instance, "input");
  const record_field* output = record_fields::find(fields.instance, "output");
  if (instruction->kind != json_kind::text) return wrong_kind("instruction", instruction->kind);
  if (output == nullptr) return "field \"instances\" has no first entry with an \"output\"";
  if (output->kind != json_kind::text) return wrong_kind("instances[0].output", output->kind);
  if (input != nullptr && input->kind != json_kind::text)
    return wrong_kind("instances[0].input", input->kind);
  record.prompt = with_unix_lines(instruction->text) + '\n';
  if (input != nullptr && !input->text.empty()) record.prompt += with_unix_lines(input->text) + '\n';
  record.target = with_unix_lines(output->text);
  return {};
}

inline std::string unknown_fields(const record_fields& fields) {
  std::string found;
  for (std::size_t i = 0; i < fields.members.size() && i < 5; ++i)
    found += concat(i == 0 ? "" : ", ", quoted_excerpt(fields.members[i].key));
  return concat(
      "no known fields (found ", found.empty() ? "none" : found,
      "; expected question/answer, text/code, instruction/instances, prompt/response or text). Name the two"
      " fields: --fields PROMPT,TARGET");
}

/// \brief Makes a record of one line of JSON; returns what is wrong, or an empty text.
inline std::string parse_record(std::string_view line, const record_options& options, text_record& record) {
  record_fields fields{line};
  if (!fields.error.empty()) return concat(fields.error, " in ", quoted_excerpt(line));
  const auto has = [&](std::string_view key) { return record_fields::find(fields.members, key) != nullptr; };
  if (const record_field* id = record_fields::find(fields.members, "task_id")) record.task_id = id->integer;

  if (!options.target_field.empty()) {
    for (const std::string& key : {options.prompt_field, options.target_field})
      if (!key.empty() && !has(key)) return concat("field ", quoted_excerpt(key), " is missing");
    return take_pair(fields, {options.prompt_field, options.target_field}, record);
  }
  constexpr field_pair known[] = {{"question", "answer"}, {"text", "code"}, {"prompt", "response"}};
  for (const field_pair& pair : known)
    if (has(pair.prompt) && has(pair.target)) return take_pair(fields, pair, record);
  if (has("instruction") && has("instances")) return take_instance(fields, record);
  if (has("text")) return take_pair(fields, {{}, "text"}, record);
  for (const field_pair& pair : known) {
    if (has(pair.prompt))
      return concat("field \"", pair.target, "\" is missing beside \"", pair.prompt, "\"");
    if (has(pair.target))
      return concat("field \"", pair.prompt, "\" is missing beside \"", pair.target, "\"");
  }
  return unknown_fields(fields);
}

/// \brief Counts a bad line, or raises when no more of them are allowed.
inline void bad_line(const line_reader& reader, const std::string& what, const record_options& options,
                     record_summary& summary) {
  const std::string message = concat(reader.path(), ":", reader.number(), ": ", what);
  if (summary.skipped == 0) summary.first_bad = message;
  if (summary.skipped >= options.skip_bad) {
    const index_t bad = summary.skipped + 1;
    if (bad == 1) raise<format_error>(concat(message, ". To go on without such lines: --skip-bad N"));
    raise<format_error>(concat(summary.first_bad, ". Bad lines so far: ", bad,
                               ", allowed: ", options.skip_bad, ", the last is line ", reader.number()));
  }
  ++summary.skipped;
}

/// \brief What makes a line unusable whatever the format is, or an empty text.
inline std::string line_defect(const line_reader& reader) {
  if (reader.too_long())
    return concat("line of ", reader.length(), " bytes, expected at most ", line_reader::max_line);
  const std::string_view line = reader.line();
  if (reader.number() == 1 && line.starts_with("version https://git-lfs"))
    return "this is a Git LFS pointer, not the data. Run git lfs pull";
  const std::size_t bad = find_invalid_utf8(line);
  if (bad == line.size()) return {};
  return concat("byte ", bad, " is not UTF-8 (found ", quoted_excerpt(line.substr(bad, 4)), ")");
}

inline std::vector<text_record> read_json_lines(line_reader& reader, const record_options& options,
                                                record_summary& summary) {
  std::vector<text_record> records;
  while (reader.next()) {
    ++summary.lines;
    std::string what = line_defect(reader);
    if (what.empty() && reader.line().find_first_not_of(" \t\r") == std::string::npos) continue;
    text_record record;
    if (what.empty()) what = parse_record(reader.line(), options, record);
    if (!what.empty()) {
      bad_line(reader, what, options, summary);
    } else if (record.target.empty()) {
      ++summary.empty_target;
    } else {
      record.line = reader.number();
      records.push_back(std::move(record));
    }
  }
  return records;
}

/// \brief Cuts a text every `characters` code points; only the last piece is followed by the end token.
inline void cut_pieces(std::string_view text, index_t characters, std::vector<text_record>& records) {
  index_t line = 1;
  while (!text.empty()) {
    std::size_t end = 0;
    for (index_t count = 0; end < text.size(); ++end)
      if ((static_cast<unsigned char>(text[end]) & 0xC0u) != 0x80u && ++count > characters) break;
    text_record record;
    record.target = std::string{text.substr(0, end)};
    record.line = line;
    for (const char c : record.target) line += c == '\n' ? 1 : 0;
    text.remove_prefix(end);
    record.ends = text.empty();
    records.push_back(std::move(record));
  }
}

/// \brief Plain text: parts between end-of-text marks are records; without a mark the text is cut into
/// pieces.
inline std::vector<text_record> read_text(line_reader& reader, const record_options& options,
                                          record_summary& summary) {
  constexpr std::string_view mark = "<|endoftext|>";
  std::vector<text_record> records;
  text_record open;
  const auto finish = [&] {
    const std::size_t first = open.target.find_first_not_of(" \t\n");
    if (first != std::string::npos) {
      const std::size_t last = open.target.find_last_not_of(" \t\n");
      open.target = open.target.substr(first, last + 1 - first);
      records.push_back(std::move(open));
    }
    open = {};
  };
  bool marked = false;
  while (reader.next()) {
    ++summary.lines;
    if (const std::string what = line_defect(reader); !what.empty()) {
      bad_line(reader, what, options, summary);
      continue;
    }
    std::string_view line = reader.line();
    for (std::size_t at = line.find(mark); at != std::string_view::npos; at = line.find(mark)) {
      open.target += line.substr(0, at);
      line.remove_prefix(at + mark.size());
      finish();
      marked = true;
    }
    if (open.line == 0) open.line = reader.number();
    open.target += line;
    open.target += '\n';
  }
  if (marked)
    finish();
  else
    cut_pieces(open.target, options.piece_characters, records);
  return records;
}

}  // namespace detail

/// \brief Reads the records of a `.jsonl` file (one object per line) or the pieces of a `.txt` file.
///
/// Fields known by name: question/answer, text/code, prompt/response, instruction with
/// instances[0].input/output, and text alone, which is all target. A blank line is no record.
///
/// \throws io_error when the file cannot be read
/// \throws format_error naming the first bad line, or when no record is left
[[nodiscard]] inline std::vector<text_record> read_records(const std::string& path,
                                                           const record_options& options,
                                                           record_summary& summary) {
  PESC_EXPECTS(options.piece_characters >= 1, "pieces of ", options.piece_characters,
               " characters, expected 1 or more");
  PESC_EXPECTS(options.skip_bad >= 0, "skip-bad is ", options.skip_bad, ", expected 0 or more");
  summary = {};
  const std::string_view name = path;
  const bool json = name.ends_with(".jsonl");
  if (!json && !name.ends_with(".txt"))
    detail::raise<format_error>(
        detail::concat(path, ": unknown kind of data file (expected .jsonl or .txt)"));
  line_reader reader{path};
  std::vector<text_record> records =
      json ? detail::read_json_lines(reader, options, summary) : detail::read_text(reader, options, summary);
  summary.records = static_cast<index_t>(records.size());
  if (records.empty()) {
    std::string why =
        summary.first_bad.empty() ? std::string{} : detail::concat(". First bad line: ", summary.first_bad);
    detail::raise<format_error>(detail::concat(path, ": no usable record (found ", summary.lines, " lines, ",
                                               summary.skipped, " of them bad, ", summary.empty_target,
                                               " with an empty target)", why));
  }
  return records;
}

/// \brief The records that `wanted(record)` accepts, in their order.
template <class Predicate>
[[nodiscard]] std::vector<text_record> select_records(const std::vector<text_record>& records,
                                                      Predicate&& wanted) {
  std::vector<text_record> out;
  for (const text_record& record : records)
    if (wanted(record)) out.push_back(record);
  return out;
}

/// \brief The first `count` records, or all but the last `-count` when it is negative.
[[nodiscard]] inline std::vector<text_record> take_records(const std::vector<text_record>& records,
                                                           index_t count) {
  const index_t size = static_cast<index_t>(records.size());
  const index_t end = std::clamp<index_t>(count < 0 ? size + count : count, 0, size);
  return {records.begin(), records.begin() + end};
}

/// \brief What `take_records` with the same number leaves.
[[nodiscard]] inline std::vector<text_record> drop_records(const std::vector<text_record>& records,
                                                           index_t count) {
  const index_t size = static_cast<index_t>(records.size());
  const index_t begin = std::clamp<index_t>(count < 0 ? size + count : count, 0, size);
  return {records.begin() + begin, records.end()};
}

}  // namespace pesc
