// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/quoted.hpp"
#include "pesc/text/character_class.hpp"
#include "pesc/text/detail/chat_jinja.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/tokenizer.hpp"

namespace pesc {

/// \brief One turn of a conversation.
struct chat_message {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

/// \brief A conversation as one text, and where the words of its messages stand in it.
struct chat_text {
  std::string text;
  std::vector<text_range> contents;  ///< in ascending order
};

/// \brief How a model wants conversations written. Made by `chat_template_named` or `chat_template_of`.
class chat_template {
 public:
  enum class form : std::uint8_t { chatml, smollm2, llama2, llama3, alpaca, plain };

  explicit constexpr chat_template(form f) : form_{f} {}

  static constexpr std::array<std::string_view, 6> names{"chatml", "smollm2", "llama2",
                                                         "llama3", "alpaca",  "plain"};

  [[nodiscard]] constexpr std::string_view name() const { return names[static_cast<std::size_t>(form_)]; }

  /// \brief The conversation as text.
  /// \param answer_next  end with what stands before the model's answer
  /// \throws format_error for an unknown role, and where the form wants the roles in another order
  [[nodiscard]] chat_text write(std::span<const chat_message> messages, bool answer_next = true) const;

  /// \brief The same without the places of the contents.
  [[nodiscard]] std::string render(std::span<const chat_message> messages, bool answer_next = true) const {
    return write(messages, answer_next).text;
  }

  /// \brief Marks and texts that end an answer; the end mark of the tokenizer does too.
  [[nodiscard]] std::vector<std::string_view> stop() const {
    switch (form_) {
      case form::chatml:
      case form::smollm2:
        return {"<|im_end|>"};
      case form::llama2:
        return {"</s>"};
      case form::llama3:
        return {"<|eot_id|>", "<|end_of_text|>"};
      case form::alpaca:
        return {"### Instruction:"};
      case form::plain:
        break;
    }
    return {};
  }

  /// \brief Marks that a tokenizer must have for this form.
  [[nodiscard]] std::vector<std::string_view> marks() const {
    switch (form_) {
      case form::chatml:
      case form::smollm2:
        return {"<|im_start|>", "<|im_end|>"};
      case form::llama2:
        return {"<s>", "</s>"};
      case form::llama3:
        return {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
      case form::alpaca:
      case form::plain:
        break;
    }
    return {};
  }

  /// \brief Ids that end an answer of a model with this tokenizer.
  [[nodiscard]] std::vector<std::int32_t> stop_ids(const tokenizer& t) const {
    std::vector<std::int32_t> out;
    const auto add = [&](std::int32_t id) {
      if (id >= 0 && std::find(out.begin(), out.end(), id) == out.end()) out.push_back(id);
    };
    for (const std::string_view text : stop()) add(t.find_mark(text));
    add(t.eos());
    return out;
  }

 private:
  class writer;

  form form_;
};

/// \brief Writes one conversation; what comes from messages goes through `content`.
class chat_template::writer {
 public:
  writer(std::span<const chat_message> messages, bool answer_next)
      : messages_{messages}, answer_next_{answer_next} {}

  void chatml(std::string_view default_system) {
    if (!messages_.empty() && messages_[0].role != "system" && !default_system.empty())
      text("<|im_start|>system\n").text(default_system).text("<|im_end|>\n");
    for (const chat_message& m : messages_)
      text("<|im_start|>").text(m.role).text("\n").content(m.content).text("<|im_end|>\n");
    if (answer_next_) text("<|im_start|>assistant\n");
  }

  void llama3() {
    text("<|begin_of_text|>");
    for (const chat_message& m : messages_)
      text("<|start_header_id|>")
          .text(m.role)
          .text("<|end_header_id|>\n\n")
          .content(trimmed(m.content))
          .text("<|eot_id|>");
    if (answer_next_) text("<|start_header_id|>assistant<|end_header_id|>\n\n");
  }

  void llama2() {
    const bool system = !messages_.empty() && messages_[0].role == "system";
    const auto turns = messages_.subspan(system ? 1 : 0);
    for (std::size_t i = 0; i < turns.size(); ++i) {
      const bool user = i % 2 == 0;
      if ((turns[i].role == "user") != user)
        detail::refuse("chat template llama2", "wrong order of roles", in_quotes(turns[i].role),
                       user ? "\"user\"" : "\"assistant\"", detail::concat("message ", i + (system ? 1 : 0)),
                       "After the system's message, user and assistant take turns.");
      if (user)
        llama2_question(i == 0 && system ? &messages_[0].content : nullptr, turns[i].content);
      else
        text(" ").content(trimmed(turns[i].content)).text(" </s>");
    }
  }

  void alpaca() {
    const bool system = !messages_.empty() && messages_[0].role == "system";
    if (system)
      content(messages_[0].content).text("\n\n");
    else
      text(
          "Below is an instruction that describes a task. Write a response that appropriately completes the "
          "request.\n\n");
    for (const chat_message& m : messages_.subspan(system ? 1 : 0))
      text(m.role == "assistant" ? "### Response:" : "### Instruction:\n").content(m.content).text("\n\n");
    if (answer_next_) text("### Response:");
  }

  void plain() {
    for (std::size_t i = 0; i < messages_.size(); ++i) text(i == 0 ? "" : "\n").content(messages_[i].content);
  }

  [[nodiscard]] chat_text take() { return std::move(out_); }

 private:
  writer& text(std::string_view part) {
    out_.text += part;
    return *this;
  }
  writer& content(std::string_view part) {
    const std::size_t begin = out_.text.size();
    out_.text += part;
    if (!part.empty()) out_.contents.push_back({begin, out_.text.size()});
    return *this;
  }

  [[nodiscard]] static std::string_view without_end(std::string_view part) {
    return part.substr(0, part.size() - trailing_space(part));
  }
  [[nodiscard]] static std::string_view trimmed(std::string_view part) {
    return without_end(part.substr(leading_space(part)));
  }

  /// \brief A question, the first one with the system's message in it; the whole without white space around it.
  void llama2_question(const std::string* system, std::string_view question) {
    text("<s>[INST] ");
    if (system == nullptr) {
      content(trimmed(question));
    } else {
      question = without_end(question);
      text("<<SYS>>\n")
          .content(*system)
          .text("\n<</SYS>>")
          .text(question.empty() ? "" : "\n\n")
          .content(question);
    }
    text(" [/INST]");
  }

  std::span<const chat_message> messages_;
  bool answer_next_;
  chat_text out_;
};

inline chat_text chat_template::write(std::span<const chat_message> messages, bool answer_next) const {
  // A role is written without a guard against marks, so it must be one of these.
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (const std::string& role = messages[i].role; role != "system" && role != "user" && role != "assistant")
      detail::refuse("chat template " + std::string{name()}, "unknown role", in_quotes(role),
                     "\"system\", \"user\" or \"assistant\"", detail::concat("message ", i));
  writer out{messages, answer_next};
  switch (form_) {
    case form::chatml:
      out.chatml("");
      break;
    case form::smollm2:
      out.chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face");
      break;
    case form::llama2:
      out.llama2();
      break;
    case form::llama3:
      out.llama3();
      break;
    case form::alpaca:
      out.alpaca();
      break;
    case form::plain:
      out.plain();
      break;
  }
  return out.take();
}

/// \brief Names of all chat templates, for messages: "chatml, smollm2, ...".
[[nodiscard]] inline std::string chat_template_names() {
  std::string out;
  for (const std::string_view name : chat_template::names)
    out += (out.empty() ? "" : ", ") + std::string{name};
  return out;
}

/// \brief The chat template that is called so.
/// \throws format_error with the known names
[[nodiscard]] inline chat_template chat_template_named(std::string_view name) {
  const auto& names = chat_template::names;
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    detail::raise<format_error>(
        detail::concat("there is no chat template ", in_quotes(name), "; known: ", chat_template_names()));
  return chat_template{static_cast<chat_template::form>(found - names.begin())};
}

/// \brief The chat template that the Jinja text of a published model stands for, found by comparison.
/// \param file  name for messages
/// \throws format_error with the known names for every other text
[[nodiscard]] inline chat_template chat_template_of(std::string_view jinja, const std::string& file) {
  const std::string form = detail::jinja_form::of(jinja);
  for (const detail::known_jinja& known : detail::known_jinjas)
    if (form == detail::jinja_form::of(known.text)) return chat_template_named(known.name);
  detail::refuse(file, "unknown chat template", in_quotes(jinja), "the template of a known model",
                 "the chat template",
                 "Name the form that the model was trained with: " + chat_template_names());
}

/// \brief Ids of a conversation. Marks of the template become their ids; marks that messages name stay text.
/// \throws format_error where the tokenizer lacks a mark of the template, and as `chat_template::write` does
[[nodiscard]] inline std::vector<std::int32_t> encode_chat(const tokenizer& t, const chat_template& form,
                                                           std::span<const chat_message> messages,
                                                           bool answer_next = true) {
  const std::vector<std::string_view> marks = form.marks();
  for (const std::string_view mark : marks)
    if (t.find_mark(mark) < 0)
      detail::refuse(t.name(), detail::concat("no mark for the chat template ", form.name()), "no piece",
                     in_quotes(mark), "the vocabulary",
                     "Take the chat template that the model was trained with.");
  const chat_text chat = form.write(messages, answer_next);
  // Templates with marks say themselves where a text starts.
  return t.encode(chat.text, chat.contents, {.bos = marks.empty(), .marks = mark_rule::ids});
}

}  // namespace pesc
