// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "json_case.hpp"
#include "pesc/text/chat_template.hpp"
#include "pesc/text/load_tokenizer.hpp"

namespace golden {
namespace {

using pesc::json;
using ids = token_ids;

std::string valid(std::string_view bytes) {
  pesc::utf8_stream stream;
  std::string out = stream.push(bytes);
  return out + stream.finish();
}

/// \brief Text of bytes as Hugging Face's ByteFallback makes it: a run of byte pieces that is not UTF-8 as a whole
/// is a U+FFFD for each byte.
std::string hf_text(const pesc::tokenizer& t, const ids& list, const pesc::decode_options& options) {
  std::string out, run;
  const auto flush = [&] {
    for (std::size_t i = 0; i < run.size() && !pesc::is_valid_utf8(run); ++i) out += "\xEF\xBF\xBD";
    if (pesc::is_valid_utf8(run)) out += run;
    run.clear();
  };
  // The space that is left out is the first character of all.
  for (const std::int32_t id : list) {
    const ids one{id};
    if (t.kind(id) == pesc::piece_kind::byte) {
      run += t.decode_piece(id);
      continue;
    }
    flush();
    out += t.decode(one, {options.skip_control, false});
  }
  flush();
  return out.starts_with(' ') ? out.substr(1) : out;
}

std::string piece_text(const pesc::tokenizer& t, std::int32_t id) {
  std::string out;
  for (const char c : t.piece(id)) out += c == ' ' ? std::string("\xE2\x96\x81") : std::string(1, c);
  return out;
}

}  // namespace

void run_tokenizer_sentencepiece(const json_case& c, outcome& out) {
  const auto load = [&](std::string_view key) {
    return pesc::load_tokenizer(c.folder + '/' + text_of(c.value, key));
  };
  // The cases of the source tree come without this file.
  const std::string model = c.folder + '/' + text_of(c.value, "model");
  const bool has_model = std::filesystem::exists(model);
  const pesc::tokenizer spm = has_model ? pesc::load_tokenizer(model) : pesc::tokenizer{};
  const pesc::tokenizer hf = load("tokenizer_json"), legacy = load("tokenizer_legacy_json");
  const pesc::encode_options bare{.bos = false};
  const pesc::decode_options all{.skip_control = false};
  out.none("pieces of hf", hf.size() - *c.value.find("vocab_size")->to_int());
  out.none("pieces of legacy", legacy.size() - *c.value.find("vocab_size")->to_int());

  differences spm_ids("spm_ids"), spm_pieces("spm_pieces"), spm_text("spm_decoded");
  differences hf_ids("hf_ids"), hf_decoded("hf_decoded"), legacy_ids("legacy_ids"),
      legacy_decoded("legacy_decoded");
  for (const json& item : c.value.find("cases")->items()) {
    const std::string& text = text_of(item, "text");
    if (has_model) {
      const ids found = spm.encode(text, bare);
      spm_ids.compare(found, ids_of(item, "spm_ids"), text);
      std::vector<std::string> pieces, expected;
      for (const std::int32_t id : found) pieces.push_back(piece_text(spm, id));
      for (const json& piece : item.find("spm_pieces")->items()) expected.push_back(*piece.if_string());
      spm_pieces.compare(pieces, expected, text);
      spm_text.compare(valid(spm.decode(found)), text_of(item, "spm_decoded"), text);
    }
    hf_ids.compare(hf.encode(text, bare), ids_of(item, "hf_ids"), text);
    hf_decoded.compare(hf.decode(ids_of(item, "hf_ids"), all), text_of(item, "hf_decoded"), text);
    legacy_ids.compare(legacy.encode(text, bare), ids_of(item, "legacy_ids"), text);
    legacy_decoded.compare(legacy.decode(ids_of(item, "legacy_ids"), all), text_of(item, "legacy_decoded"),
                           text);
  }
  differences decode_spm("decode, spm_decoded"), decode_hf("decode, hf_decoded"),
      decode_marks("decode, hf_decoded_skip_special");
  for (const json& item : c.value.find("decode")->items()) {
    const ids list = ids_of(item, "ids");
    const std::string where = to_string(*item.find("ids"));
    if (has_model) decode_spm.compare(valid(spm.decode(list)), text_of(item, "spm_decoded"), where);
    decode_hf.compare(hf_text(hf, list, all), text_of(item, "hf_decoded"), where);
    if (item.find("hf_decoded_skip_special") != nullptr)
      decode_marks.compare(hf_text(hf, list, {}), text_of(item, "hf_decoded_skip_special"), where);
  }
  for (const differences* d : {&spm_ids, &spm_pieces, &spm_text, &decode_spm})
    if (has_model) d->report(out);
  for (const differences* d : {&hf_ids, &hf_decoded, &legacy_ids, &legacy_decoded, &decode_hf, &decode_marks})
    d->report(out);
}

void run_tokenizer_gpt2(const json_case& c, outcome& out) {
  const std::string vocab = data_folder() + "/tokenizer/gpt2_vocab.json";
  if (!std::filesystem::exists(vocab)) return out.skip("no data file tokenizer/gpt2_vocab.json");
  const pesc::tokenizer t = pesc::load_tokenizer(vocab);
  differences encoded("ids"), decoded("decoded");
  for (const json& item : c.value.find("cases")->items()) {
    const std::string& text = text_of(item, "text");
    encoded.compare(t.encode(text), ids_of(item, "ids"), text);
    decoded.compare(valid(t.decode(ids_of(item, "ids"))), text_of(item, "decoded"), text);
  }
  encoded.report(out);
  decoded.report(out);
}

void compare_smollm2_text(const pesc::tokenizer& t, const json_case& c, outcome& out) {
  differences encoded("tokenize, ids"), decoded("tokenize, decoded");
  for (const json& item : c.value.find("tokenize")->items()) {
    const std::string& text = text_of(item, "text");
    encoded.compare(t.encode(text), ids_of(item, "ids"), text);
    decoded.compare(valid(t.decode(ids_of(item, "ids"), {.skip_control = false})), text_of(item, "decoded"),
                    text);
  }
  const pesc::chat_template form = t.chat_template().empty()
                                       ? pesc::chat_template_named("smollm2")
                                       : pesc::chat_template_of(t.chat_template(), t.name());
  differences chat_text("chat, text"), chat_ids("chat, ids"), greedy("chat, greedy_text");
  for (const json& item : c.value.find("chat")->items()) {
    const std::string& message = text_of(item, "message");
    const std::vector<pesc::chat_message> messages{{"user", message}};
    chat_text.compare(form.render(messages), text_of(item, "text"), message);
    chat_ids.compare(encode_chat(t, form, messages), ids_of(item, "ids"), message);
    greedy.compare(valid(t.decode(ids_of(item, "greedy_ids"), {.skip_control = false})),
                   text_of(item, "greedy_text"), message);
  }
  for (const differences* d : {&encoded, &decoded, &chat_text, &chat_ids, &greedy}) d->report(out);
}

}  // namespace golden
