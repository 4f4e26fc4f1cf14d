// SPDX-License-Identifier: Apache-2.0
#include "tool/data_sets.hpp"

#include <optional>

#include "pesc/text/chat_template.hpp"

namespace pesc::tool {

record_options to_record_options(const data_options& options) {
  record_options out;
  out.skip_bad = options.skip_bad;
  out.piece_characters = options.pieces;
  if (options.fields.empty()) return out;
  const std::size_t comma = options.fields.find(',');
  if (comma == std::string::npos || comma + 1 == options.fields.size() ||
      options.fields.find(',', comma + 1) != std::string::npos)
    refuse_usage("--fields ", in_quotes(options.fields),
                 ": expected PROMPT,TARGET, two names with a comma between them");
  out.prompt_field = options.fields.substr(0, comma);
  out.target_field = options.fields.substr(comma + 1);
  return out;
}

std::vector<std::string> chat_form_choices() {
  std::vector<std::string> out{"auto", "none"};
  out.insert(out.end(), chat_template::names.begin(), chat_template::names.end());
  return out;
}

namespace {

std::optional<chat_template> form_of(const data_options& options, const tokenizer& text) {
  if (options.form == "none") return {};
  if (options.form != "auto") return chat_template_named(options.form);
  if (text.chat_template().empty()) return {};
  return chat_template_of(text.chat_template(), text.name());
}

/// \brief Start mark, text, end mark of the model.
token_records plain_tokens(const std::vector<text_record>& records, const tokenizer& text,
                           const llama_config& model, index_t max_tokens, token_summary& summary) {
  const token_options options{.begin = text.add_bos() ? model.bos : -1,
                              .end = model.eos.empty() ? -1 : model.eos.front(),
                              .max_tokens = max_tokens};
  return tokenize_records(
      records, [&](std::string_view t) { return text.encode(t, {.bos = false}); }, options, summary);
}

/// \brief The prompt as a question and the target as its answer, up to the mark that ends an answer.
token_records chat_tokens(const std::vector<text_record>& records, const tokenizer& text,
                          const chat_template& form, const llama_config& model, index_t max_tokens,
                          token_summary& summary) {
  const std::vector<std::int32_t> stops = form.stop_ids(text);
  const std::int32_t end = !stops.empty() ? stops.front() : model.eos.empty() ? -1 : model.eos.front();
  const auto encode = [&](const text_record& record, std::vector<std::int32_t>& ids) {
    if (!record.prompt.empty()) {
      std::string question = record.prompt;
      if (question.ends_with('\n')) question.pop_back();
      const chat_message user{"user", std::move(question)};
      ids = encode_chat(text, form, {&user, 1});
    } else if (text.add_bos() && model.bos >= 0) {
      ids.push_back(model.bos);
    }
    const std::size_t begin = ids.size();
    const std::vector<std::int32_t> answer = text.encode(
        record.target, {.bos = false, .dummy_prefix = record.prompt.empty(), .marks = mark_rule::text});
    ids.insert(ids.end(), answer.begin(), answer.end());
    if (record.ends && end >= 0) ids.push_back(end);
    return begin;
  };
  return tokenize_records(records, encode, max_tokens, summary);
}

}  // namespace

data_set read_data_set(const std::string& path, const data_options& options, const tokenizer& text,
                       const llama_config& model, index_t length) {
  record_summary found;
  token_summary tokens;
  const std::vector<text_record> records = read_records(path, to_record_options(options), found);
  const std::optional<chat_template> form = form_of(options, text);
  data_set out{path,
               form ? chat_tokens(records, text, *form, model, length + 1, tokens)
                    : plain_tokens(records, text, model, length + 1, tokens),
               {}};
  out.description = describe(path, found, tokens);
  return out;
}

}  // namespace pesc::tool
