// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/io/quoted.hpp"
#include "pesc/text/character_class.hpp"

namespace pesc {

/// \brief A piece that is cut out of a text as it stands there, before the rest is split and joined.
struct added_token {
  std::string text;
  std::int32_t id = -1;
  bool special = false;      ///< a mark: never comes from a text that is not to be trusted
  bool strip_left = false;   ///< takes the white space before it along
  bool strip_right = false;  ///< takes the white space behind it along
};

/// \brief Added tokens, found at a place of a text by longest match.
class added_tokens {
 public:
  // Bounds the time of a search to this times the length of a text.
  static constexpr std::size_t longest_text = 512;

  added_tokens() = default;

  /// \param file  name for messages
  /// \throws format_error for a token without text or with more than `longest_text` bytes
  added_tokens(std::vector<added_token> tokens, const std::string& file) : tokens_{std::move(tokens)} {
    for (const added_token& t : tokens_)
      if (t.text.empty() || t.text.size() > longest_text)
        detail::raise<format_error>(detail::concat(file, ": added token ", in_quotes(t.text), " of id ", t.id,
                                                   " has the wrong length (found ", t.text.size(),
                                                   " bytes, expected 1 to ", longest_text, ")"));
    std::stable_sort(tokens_.begin(), tokens_.end(),
                     [](const added_token& a, const added_token& b) { return a.text < b.text; });
    std::size_t i = 0;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      starts_[byte] = i;
      while (i < tokens_.size() && at(i, 0) == byte) ++i;
    }
    starts_[256] = i;
  }

  [[nodiscard]] bool empty() const { return tokens_.empty(); }
  [[nodiscard]] const std::vector<added_token>& list() const { return tokens_; }

  /// \brief The token with exactly this text, null when there is none.
  [[nodiscard]] const added_token* find(std::string_view text) const {
    const auto found = std::lower_bound(tokens_.begin(), tokens_.end(), text,
                                        [](const added_token& t, std::string_view s) { return t.text < s; });
    return found != tokens_.end() && found->text == text ? &*found : nullptr;
  }

  /// \brief The longest token that stands at `at` and that `accept` takes; null when there is none.
  template <class Accept>
  [[nodiscard]] const added_token* longest_at(std::string_view text, std::size_t at, Accept&& accept) const;

  /// \brief Cuts a text: calls `use_text(begin, end)` and `use_token(token)` in the order of the text.
  /// \param accept  called with a token and the place where it stands
  template <class Accept, class UseText, class UseToken>
  void cut(std::string_view text, Accept&& accept, UseText&& use_text, UseToken&& use_token) const;

 private:
  [[nodiscard]] std::size_t at(std::size_t token, std::size_t place) const {
    return static_cast<unsigned char>(tokens_[token].text[place]);
  }

  std::vector<added_token> tokens_;
  std::array<std::size_t, 257> starts_{};  ///< first token of each first byte
};

template <class Accept>
const added_token* added_tokens::longest_at(std::string_view text, std::size_t place, Accept&& accept) const {
  const auto first = static_cast<unsigned char>(text[place]);
  const added_token* best = nullptr;
  auto low = tokens_.begin() + static_cast<std::ptrdiff_t>(starts_[first]);
  auto high = tokens_.begin() + static_cast<std::ptrdiff_t>(starts_[first + std::size_t{1}]);
  // All tokens from low to high start with the same `length` bytes as the text; the shortest stands first.
  for (std::size_t length = 1; low != high; ++length) {
    if (low->text.size() == length) {
      if (accept(*low)) best = &*low;
      while (low != high && low->text.size() == length) ++low;
    }
    if (place + length == text.size()) break;
    const auto next = static_cast<unsigned char>(text[place + length]);
    const auto byte = [&](const added_token& t) { return static_cast<unsigned char>(t.text[length]); };
    low =
        std::lower_bound(low, high, next, [&](const added_token& t, unsigned char c) { return byte(t) < c; });
    high =
        std::upper_bound(low, high, next, [&](unsigned char c, const added_token& t) { return c < byte(t); });
  }
  return best;
}

template <class Accept, class UseText, class UseToken>
void added_tokens::cut(std::string_view text, Accept&& accept, UseText&& use_text,
                       UseToken&& use_token) const {
  std::size_t begin = 0;
  for (std::size_t i = 0; !tokens_.empty() && i < text.size();) {
    const added_token* token = longest_at(text, i, [&](const added_token& t) { return accept(t, i); });
    if (token == nullptr) {
      ++i;
      continue;
    }
    std::size_t end = i;
    if (token->strip_left) end -= trailing_space(text.substr(begin, i - begin));
    if (end > begin) use_text(begin, end);
    use_token(*token);
    i += token->text.size();
    if (token->strip_right) i += leading_space(text.substr(i));
    begin = i;
  }
  if (begin < text.size()) use_text(begin, text.size());
}

}  // namespace pesc
