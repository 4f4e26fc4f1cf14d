// SPDX-License-Identifier: Apache-2.0
#include "tool/writing.hpp"

#include "pesc/text/utf8.hpp"

namespace pesc::tool {
namespace {

/// \brief Ids of a prompt. A model starts with its mark where the tokenizer has that rule, or where there is no text;
/// without a mark it needs text.
std::vector<std::int32_t> prompt_ids(const loaded_model<>& model, const tokenizer& tokens,
                                     const std::string& prompt) {
  std::vector<std::int32_t> ids;
  const std::vector<std::int32_t> text = tokens.encode(prompt, {.bos = false});
  if (model.config.llama.bos >= 0 && (tokens.add_bos() || text.empty()))
    ids.push_back(model.config.llama.bos);
  ids.insert(ids.end(), text.begin(), text.end());
  const index_t most = model.config.llama.max_positions;
  if (ids.empty())
    pesc::detail::raise<format_error>(model.name + ": this model has no start mark, so it needs a prompt");
  if (static_cast<index_t>(ids.size()) > most)
    pesc::detail::raise<format_error>(pesc::detail::concat("the prompt has ", ids.size(), " tokens, ",
                                                           model.name, " holds at most ", most));
  return ids;
}

}  // namespace

writing_result write_text(session& model, const tokenizer& tokens, const std::string& prompt,
                          index_t max_tokens, const sampling_options& sampling,
                          function_ref<void(std::string_view)> show) {
  const llama_config& config = model.source().config.llama;
  const std::vector<std::int32_t> ids = prompt_ids(model.source(), tokens, prompt);
  utf8_stream stream;
  bool at_start = prompt.empty();
  const auto emit = [&](std::int32_t id) {
    show(stream.push(tokens.decode_piece(id, at_start)));
    at_start = false;
    return true;
  };
  const index_t made = model.generate(ids, max_tokens, sampling, config.eos, emit);
  show(stream.finish());
  return {made, made<max_tokens&& static_cast<index_t>(ids.size()) + made> config.max_positions};
}

std::string continuation(session& model, const tokenizer& tokens, const std::string& prompt,
                         index_t max_tokens, const sampling_options& sampling) {
  std::string out;
  static_cast<void>(
      write_text(model, tokens, prompt, max_tokens, sampling, [&](std::string_view text) { out += text; }));
  return out;
}

}  // namespace pesc::tool
