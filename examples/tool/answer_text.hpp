// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pesc::tool {

/// \brief An answer as it grows, up to the first of some texts that end it. What may be the beginning of one is held back.
class answer_text {
 public:
  explicit answer_text(std::vector<std::string> stops) : stops_{std::move(stops)} {}

  /// \brief Adds text and returns what can be shown now.
  [[nodiscard]] std::string_view push(std::string_view text) {
    if (ended_) return {};
    text_ += text;
    const std::size_t shown = shown_;
    for (const std::string& stop : stops_) {
      // A stop may begin in what was held back.
      const std::size_t at = text_.find(stop, shown);
      if (at == text_.npos) continue;
      text_.resize(at);
      ended_ = true;
    }
    shown_ = ended_ ? text_.size() : text_.size() - held_back();
    return std::string_view{text_}.substr(shown, shown_ - shown);
  }

  /// \brief What was held back, for no more text will come.
  [[nodiscard]] std::string_view finish() {
    return std::string_view{text_}.substr(std::exchange(shown_, text_.size()));
  }

  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  /// \brief Length of the longest end of the text that a stop begins with.
  [[nodiscard]] std::size_t held_back() const {
    std::size_t out = 0;
    for (const std::string& stop : stops_)
      for (std::size_t n = std::min(stop.size(), text_.size() - shown_); n > out; --n)
        if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) out = n;
    return out;
  }

  std::vector<std::string> stops_;
  std::string text_;
  std::size_t shown_ = 0;
  bool ended_ = false;
};

}  // namespace pesc::tool
