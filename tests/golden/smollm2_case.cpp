// SPDX-License-Identifier: Apache-2.0

// A published language model in a GGUF file, named by PESC_SMOLLM2: ids of texts, logits, greedy answers, losses on
// instruction records.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "json_case.hpp"
#include "model_case.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/file_kind.hpp"
#include "pesc/pesc.hpp"
#include "pesc/text/chat_template.hpp"
#include "pesc/text/load_tokenizer.hpp"

namespace golden {
namespace {

using pesc::json;
using layer = pesc::dense_layer<pesc::moe_dynamic<>, pesc::cpu_backend>;
using model_type = decoder<layer>;

constexpr double logit_tolerance = 2e-3;  // absolute, as the reference tells its own rounding

/// \brief Logits of one sequence, those of the last `count` tokens.
std::vector<float> last_logits(pesc::cpu_backend& ctx, const model_type& d, const token_ids& tokens,
                               index_t count) {
  const index_t vocabulary = d.model().shape().vocabulary;
  const auto n = static_cast<index_t>(tokens.size());
  std::vector<std::int32_t> positions(tokens.size());
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
  const std::vector<pesc::attention_span> span{{0, n, 0, 0}};
  std::vector<float> out(static_cast<std::size_t>(count * vocabulary));
  with_workspace(ctx, [&](pesc::workspace<>& ws) {
    auto state = d.model().carve_state(ws, n, false);
    d.model().forward(ctx, {view(tokens), view(std::as_const(positions)), view(span)}, state, {}, nullptr,
                      nullptr, ws);
    const pesc::matrix_view<const float> hidden = pesc::as_const(state.hidden);
    d.model().logits(ctx,
                     {ws.counting() ? nullptr : hidden.row(n - count), count, hidden.cols, hidden.stride},
                     {out.data(), count, vocabulary}, ws);
  });
  return out;
}

double log_sum_exp(const float* logits, index_t n) {
  const double largest = *std::max_element(logits, logits + n);
  double sum = 0;
  for (index_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return largest + std::log(sum);
}

void compare_chat(const json& cases, const pesc::tokenizer& text, const model_type& d, outcome& out) {
  const pesc::chat_template format = pesc::chat_template_of(text.chat_template(), text.name());
  differences greedy("greedy ids");
  pesc::cpu_backend ctx;
  double worst = 0;
  for (const json& c : cases.items()) {
    const std::string& message = text_of(c, "message");
    const pesc::chat_message user{"user", message};
    const token_ids prompt = pesc::encode_chat(text, format, std::span<const pesc::chat_message>{&user, 1});

    const index_t vocabulary = d.model().shape().vocabulary;
    const auto logits = last_logits(ctx, d, prompt, 1);
    const token_ids top = ids_of(c, "top_ids");
    for (std::size_t i = 0; i < top.size(); ++i)
      worst = std::fmax(worst, std::fabs(static_cast<double>(logits[static_cast<std::size_t>(top[i])]) -
                                         *c.find("top_logits")->items()[i].to_double()));
    worst = std::fmax(worst,
                      std::fabs(log_sum_exp(logits.data(), vocabulary) - *c.find("logsumexp")->to_double()));

    const token_ids expected = ids_of(c, "greedy_ids");
    const std::vector<std::int64_t> start(prompt.begin(), prompt.end());
    const continuation made(ctx, d, start, static_cast<index_t>(start.size() + expected.size()), {});
    const token_ids answer(made.ids.begin() + static_cast<std::ptrdiff_t>(start.size()), made.ids.end());
    greedy.compare(answer, expected, message);
  }
  greedy.report(out);
  out.within("chat logits", worst, logit_tolerance);
}

/// \brief Summed loss of the answer to a question, by the tokens of both.
double answer_loss(pesc::cpu_backend& ctx, const model_type& d, token_ids prompt, const token_ids& answer) {
  const index_t vocabulary = d.model().shape().vocabulary;
  const auto count = static_cast<index_t>(answer.size());
  prompt.insert(prompt.end(), answer.begin(), answer.end() - 1);
  const auto logits = last_logits(ctx, d, prompt, count);
  double sum = 0;
  for (index_t i = 0; i < count; ++i) {
    const float* row = logits.data() + i * vocabulary;
    sum += log_sum_exp(row, vocabulary) - static_cast<double>(row[answer[static_cast<std::size_t>(i)]]);
  }
  return sum;
}

void compare_losses(const json& loss, const pesc::tokenizer& text, const model_type& d, outcome& out) {
  struct set {
    const char *name, *file, *question, *answer;
  };
  const set sets[] = {{"gsm8k_test", "gsm8k_test.jsonl", "question", "answer"},
                      {"mbpp", "mbpp.jsonl", "text", "code"}};
  const pesc::chat_template format = pesc::chat_template_of(text.chat_template(), text.name());
  const auto first = static_cast<std::size_t>(*loss.find("slice")->items()[0].to_int());
  pesc::cpu_backend ctx;
  for (const set& s : sets) {
    const std::string path = data_folder() + "/instruct/" + s.file;
    const auto bytes = pesc::read_file(path);  // missing data beside a present model is a failure
    std::vector<std::string_view> lines;
    for (std::string_view rest = pesc::as_text(bytes); !rest.empty();) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      if (rest.substr(0, end).find_first_not_of(" \r\t") != rest.npos) lines.push_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    const json& expected = *loss.find("sets")->find(s.name);
    double sum = 0, tokens = 0, worst = 0;
    index_t other_counts = 0;
    for (std::size_t i = 0; i < expected.find("records")->items().size(); ++i) {
      const json record = pesc::parse_json(lines.at(first + i), path);
      std::string answer = text_of(record, s.answer);
      std::erase(answer, '\r');
      const pesc::chat_message user{"user", text_of(record, s.question)};
      const token_ids prompt = pesc::encode_chat(text, format, std::span<const pesc::chat_message>{&user, 1});
      const token_ids target = text.encode(answer + "<|im_end|>");
      const auto& wanted = expected.find("records")->items()[i].items();
      other_counts += *wanted[0].to_int() != static_cast<index_t>(prompt.size()) ||
                      *wanted[1].to_int() != static_cast<index_t>(target.size());
      const double found = answer_loss(ctx, d, prompt, target);
      worst =
          std::fmax(worst, std::fabs(found - *wanted[2].to_double()) / static_cast<double>(target.size()));
      sum += found;
      tokens += static_cast<double>(target.size());
    }
    out.none(std::string{"token counts of "} + s.name, other_counts);
    out.within(std::string{"loss of records of "} + s.name, worst, 1e-3);
    out.within(std::string{"mean loss of "} + s.name,
               std::fabs(sum / tokens - *expected.find("mean")->to_double()), 1e-3);
  }
}

}  // namespace

void run_smollm2(const json_case& c, outcome& out) {
  const char* path = std::getenv("PESC_SMOLLM2");
  if (path == nullptr || *path == '\0') return out.skip("PESC_SMOLLM2 names no file");
  const pesc::tokenizer text = pesc::load_tokenizer(path);
  const auto loaded = pesc::load_model({.path = path}, {pesc::unquantized<float>::info()});
  text.expect_vocabulary(loaded.config.llama.vocab);
  pesc::cpu_backend ctx;
  const model_type d(ctx, loaded);
  compare_smollm2_text(text, c, out);
  compare_chat(*c.value.find("chat"), text, d, out);
  compare_losses(*c.value.find("loss"), text, d, out);
}

}  // namespace golden
