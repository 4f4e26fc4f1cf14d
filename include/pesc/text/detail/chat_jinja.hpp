// SPDX-License-Identifier: Apache-2.0
#pragma once

// The templates of published models as their files have them (Jinja), to be compared with that of a file.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace pesc::detail {

struct known_jinja {
  std::string_view name;  ///< of the chat template
  std::string_view text;
};

// clang-format off
inline constexpr known_jinja known_jinjas[] = {
    {"chatml", R"({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})"},
    {"chatml", R"({% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})"},
    {"smollm2", R"({% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})"},
    {"llama2", R"({% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %})"},
    {"llama2", R"({% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'system' %}{{ '<<SYS>>\n' + content.strip() + '\n<</SYS>>\n\n' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %})"},
    {"llama2", R"({% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %})"},
    {"llama3", R"({% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})"},
    {"llama3", R"({% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% else %}{{ eos_token }}{% endif %})"},
};
// clang-format on

/// \brief A template in one form: no white space that has no meaning, single quotes, line ends as \n, neighbouring
/// texts joined, `x | trim` as `x.strip()`.
class jinja_form {
 public:
  [[nodiscard]] static std::string of(std::string_view jinja) {
    jinja_form form{jinja};
    form.run();
    replace_all(form.out_, "|trim", ".strip()");
    replace_all(form.out_, "'+'", "");
    return std::move(form.out_);
  }

 private:
  explicit jinja_form(std::string_view text) : text_{text} {}

  static void replace_all(std::string& text, std::string_view from, std::string_view to) {
    std::string out;
    for (std::size_t i = 0;;) {
      const std::size_t found = std::min(text.find(from, i), text.size());
      out.append(text, i, found - i);
      if (found == text.size()) break;
      out += to;
      i = found + from.size();
    }
    text = std::move(out);
  }

  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

  void run() {
    while (!text_.empty()) {
      outside();
      if (!text_.empty()) inside();
    }
  }

  /// \brief Text between tags: white space goes where Jinja drops it, behind a block and where a tag has a minus.
  void outside() {
    std::size_t end = 0;
    while (end < text_.size() &&
           !(text_[end] == '{' && end + 1 < text_.size() && (text_[end + 1] == '{' || text_[end + 1] == '%')))
      ++end;
    const std::string_view between = text_.substr(0, end);
    const bool blank = std::all_of(between.begin(), between.end(), is_space);
    const bool minus = text_.substr(end).size() > 2 && text_[end + 2] == '-';
    const bool dropped =
        blank && (end == text_.size() || minus || trims_ || (block_ && between.starts_with('\n')));
    if (!dropped) out_ += between;
    text_.remove_prefix(end);
  }

  /// \brief One tag with its braces.
  void inside() {
    block_ = text_[1] == '%';
    const char close = block_ ? '%' : '}';
    out_ += text_.substr(0, 2);
    text_.remove_prefix(2);
    if (text_.starts_with('-')) text_.remove_prefix(1);
    char quote = 0;
    while (!text_.empty()) {
      const char c = text_[0];
      if (quote == 0 &&
          (text_.starts_with(block_ ? "%}" : "}}") || text_.starts_with(block_ ? "-%}" : "-}}"))) {
        trims_ = c == '-';
        text_.remove_prefix(trims_ ? 3 : 2);
        (out_ += close) += '}';
        return;
      }
      text_.remove_prefix(1);
      if (quote == 0 && is_space(c)) continue;
      if (c == quote || (quote == 0 && (c == '\'' || c == '"'))) {
        quote = quote == 0 ? c : '\0';
        out_ += '\'';
      } else if (c == '\n') {
        out_ += "\\n";
      } else {
        out_ += c;
      }
    }
  }

  std::string_view text_;
  std::string out_;
  bool block_ = false;
  bool trims_ = false;
};

}  // namespace pesc::detail
