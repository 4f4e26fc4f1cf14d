// SPDX-License-Identifier: Apache-2.0
#include "tool/data_sets.hpp"

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

token_records to_tokens(const std::vector<text_record>& records, const tokenizer& text,
                        const llama_config& model, index_t length, token_summary& summary) {
  const token_options options{.begin = text.add_bos() ? model.bos : -1,
                              .end = model.eos.empty() ? -1 : model.eos.front(),
                              .max_tokens = length + 1};
  return tokenize_records(
      records, [&](std::string_view t) { return text.encode(t, {.bos = false}); }, options, summary);
}

data_set read_data_set(const std::string& path, const data_options& options, const tokenizer& text,
                       const llama_config& model, index_t length) {
  record_summary found;
  token_summary tokens;
  const std::vector<text_record> records = read_records(path, to_record_options(options), found);
  data_set out{path, to_tokens(records, text, model, length, tokens), {}};
  out.description = describe(path, found, tokens);
  return out;
}

}  // namespace pesc::tool
