// SPDX-License-Identifier: Apache-2.0
#pragma once

// The steps around the model of a tokenizer.json: normalizer, pre_tokenizer, decoder, post_processor. Every step is
// one of those that the tokenizer has; all others are refused by their names.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/split_pattern.hpp"
#include "pesc/text/tokenizer_parts.hpp"

namespace pesc::detail {

/// \brief What the steps say together.
struct json_steps {
  bool byte_level = false;
  bool byte_fallback = false;  ///< the decoder turns pieces such as <0x0A> into bytes
  bool late_prefix = false;
  split_pattern split = split_pattern::none;
  prefix_rule prefix = prefix_rule::none;
  strip_rule strip = strip_rule::none;
  std::string bos, eos;  ///< names of the marks that are put around a text
};

/// \brief Reads the steps of one file.
class json_steps_reader {
 public:
  explicit json_steps_reader(const json_fields& file) : file_{file} {}

  /// \throws format_error
  [[nodiscard]] json_steps read() {
    normalizer();
    pre_tokenizer();
    decoder();
    post_processor();
    return out_;
  }

 private:
  static constexpr std::string_view mark = "\xE2\x96\x81";

  /// \brief The steps under `key`: none, one, or those of a Sequence under `list`.
  [[nodiscard]] std::vector<json_fields> steps(std::string_view key, std::string_view list) const {
    std::vector<json_fields> out;
    if (!file_.has(key)) return out;
    const json_fields step = file_.get_object(key);
    if (step.get_string("type") != "Sequence") return {step};
    for (const json& item : step.get_list(list)) out.emplace_back(item, file_.file(), std::string{key} + '.');
    return out;
  }

  [[noreturn]] void unknown(std::string_view key, const std::vector<json_fields>& found,
                            std::string_view expected) const {
    std::string names;
    for (const json_fields& step : found) names += (names.empty() ? "" : " + ") + step.get_string("type");
    refuse(file_.file(), concat("unknown ", key), names.empty() ? "none" : one_line(names), expected,
           concat("key ", in_quotes(key)), "Tokenizers with other steps are not supported.");
  }

  void expect(const json_fields& step, std::string_view key, const std::string& found,
              std::string_view expected) const {
    if (found != expected)
      refuse(file_.file(), concat("unknown ", step.get_string("type")), in_quotes(found), in_quotes(expected),
             step.where(key).substr(file_.file().size() + 2));
  }
  void expect_flag(const json_fields& step, std::string_view key, bool otherwise, bool expected) const {
    if (step.get_bool(key, otherwise) != expected)
      refuse(file_.file(), concat("unknown ", step.get_string("type")), expected ? "false" : "true",
             expected ? "true" : "false", step.where(key).substr(file_.file().size() + 2));
  }

  /// \brief Checks a Replace step: one literal text by another.
  void expect_replace(const json_fields& step, std::string_view from, std::string_view to) const {
    const json_fields pattern = step.get_object("pattern");
    expect(step, "pattern", pattern.get_string("String", ""), from);
    expect(step, "content", step.get_string("content"), to);
  }

  void normalizer();
  void pre_tokenizer();
  void metaspace(const json_fields& step);
  void byte_level(const json_fields& step, bool with_expression);
  void decoder();
  void post_processor();
  void marks(const json_fields& step);

  const json_fields& file_;
  json_steps out_;
  bool replaces_ = false;  ///< the normalizer turns spaces into U+2581
};

inline void json_steps_reader::normalizer() {
  const auto found = steps("normalizer", "normalizers");
  for (const json_fields& step : found) {
    const std::string type = step.get_string("type");
    if (type == "Prepend" && out_.prefix == prefix_rule::none) {
      expect(step, "prepend", step.get_string("prepend"), mark);
      out_.prefix = prefix_rule::always;
    } else if (type == "Replace" && !replaces_) {
      expect_replace(step, " ", mark);
      replaces_ = true;
    } else {
      unknown("normalizer", found, "none, Prepend + Replace or Replace");
    }
  }
  if (out_.prefix != prefix_rule::none && !replaces_)
    unknown("normalizer", found, "none, Prepend + Replace or Replace");
}

inline void json_steps_reader::pre_tokenizer() {
  const auto found = steps("pre_tokenizer", "pretokenizers");
  constexpr std::string_view known =
      "none, Metaspace, ByteLevel, Digits + ByteLevel or Split + ByteLevel, without a normalizer where there "
      "is one";
  const auto type = [&](std::size_t i) { return found[i].get_string("type"); };
  if (found.empty() && replaces_) return;
  if (replaces_ || found.empty() || found.size() > 2) unknown("pre_tokenizer", found, known);
  if (found.size() == 1 && type(0) == "Metaspace") return metaspace(found[0]);
  if (type(found.size() - 1) != "ByteLevel") unknown("pre_tokenizer", found, known);
  if (found.size() == 1) {
    byte_level(found[0], found[0].get_bool("use_regex", true));
  } else if (type(0) == "Digits") {
    expect_flag(found[0], "individual_digits", false, true);
    byte_level(found[1], true);
    out_.split = split_pattern::smollm;
  } else if (type(0) == "Split") {
    byte_level(found[1], false);
    expect(found[0], "behavior", found[0].get_string("behavior"), "Isolated");
    expect_flag(found[0], "invert", false, false);
    const json_fields pattern = found[0].get_object("pattern");
    const std::string expression = pattern.get_string("Regex", "");
    const auto known_pattern = split_pattern_of_expression(expression);
    if (!known_pattern)
      refuse(file_.file(), "unknown splitting pattern", in_quotes(expression),
             "one of " + split_pattern_names(), "key \"pre_tokenizer.pattern\"",
             "Tokenizers with other patterns are not supported.");
    out_.split = *known_pattern;
  } else {
    unknown("pre_tokenizer", found, known);
  }
}

inline void json_steps_reader::metaspace(const json_fields& step) {
  expect(step, "replacement", step.get_string("replacement"), mark);
  const bool older = step.get_bool("add_prefix_space", true);
  const std::string scheme = step.get_string("prepend_scheme", older ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    refuse(file_.file(), "unknown Metaspace", in_quotes(scheme), "always, first or never",
           "key \"pre_tokenizer.prepend_scheme\"");
  out_.prefix = scheme == "always"  ? prefix_rule::unless_space
                : scheme == "first" ? prefix_rule::start_unless_space
                                    : prefix_rule::none;
  out_.late_prefix = true;
  if (step.get_bool("split", true)) out_.split = split_pattern::spaces;
}

inline void json_steps_reader::byte_level(const json_fields& step, bool with_expression) {
  expect_flag(step, "add_prefix_space", true, false);
  expect_flag(step, "use_regex", true, with_expression);
  out_.byte_level = true;
  if (with_expression) out_.split = split_pattern::gpt2;
}

inline void json_steps_reader::decoder() {
  const auto found = steps("decoder", "decoders");
  constexpr std::string_view spaced = "Replace + ByteFallback + Fuse + Strip, the last one optional";
  if (out_.byte_level) {
    if (found.size() != 1 || found[0].get_string("type") != "ByteLevel")
      unknown("decoder", found, "ByteLevel");
    return;
  }
  bool replaced = false, fused = false;
  for (const json_fields& step : found) {
    const std::string type = step.get_string("type");
    if (type == "Replace" && !fused) {
      expect_replace(step, mark, " ");
      replaced = true;
    } else if (type == "ByteFallback" && !fused) {
      out_.byte_fallback = true;
    } else if (type == "Fuse") {
      fused = true;
    } else if (type == "Strip" && fused && out_.strip == strip_rule::none) {
      expect(step, "content", step.get_string("content"), " ");
      if (step.get_int("start") != 1 || step.get_int("stop") != 0)
        refuse(file_.file(), "unknown Strip",
               concat("start ", step.get_int("start"), ", stop ", step.get_int("stop")), "start 1, stop 0",
               "key \"decoder\"");
      out_.strip = strip_rule::start;
    } else {
      unknown("decoder", found, spaced);
    }
  }
  if (!replaced || !fused) unknown("decoder", found, spaced);
}

inline void json_steps_reader::post_processor() {
  const auto found = steps("post_processor", "processors");
  for (const json_fields& step : found) {
    const std::string type = step.get_string("type");
    if (type == "TemplateProcessing")
      marks(step);
    else if (type != "ByteLevel")  // that one moves offsets only
      unknown("post_processor", found, "none, TemplateProcessing or ByteLevel");
  }
}

inline void json_steps_reader::marks(const json_fields& step) {
  bool text = false;
  for (const json& item : step.get_list("single")) {
    const json_fields part{item, file_.file(), "post_processor.single."};
    if (part.has("Sequence") && !text) {
      text = true;
      continue;
    }
    std::string& name = text ? out_.eos : out_.bos;
    if (!part.has("SpecialToken") || !name.empty())
      refuse(file_.file(), "unknown template", to_string(item).substr(0, 80),
             "at most one mark before and one behind the text", "key \"post_processor.single\"");
    name = part.get_object("SpecialToken").get_string("id");
  }
}

}  // namespace pesc::detail
