// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "pesc/text/utf8.hpp"

namespace pesc {

/// \brief The printable code points that byte-level vocabularies write for bytes.
///
/// Printable bytes of Latin-1 stand for themselves; the other 68, in ascending order, for U+0100 and what follows.
class byte_alphabet {
 public:
  static constexpr std::size_t others = 68;

  /// \brief The code point that stands for a byte.
  [[nodiscard]] static constexpr char32_t code_point(std::uint8_t byte) { return forward()[byte]; }

  /// \brief The byte that a code point stands for; nothing for code points outside the alphabet.
  [[nodiscard]] static constexpr std::optional<std::uint8_t> byte(char32_t c) {
    if (c >= 0x100 + others) return {};
    const std::int16_t found = backward()[c];
    if (found < 0) return {};
    return static_cast<std::uint8_t>(found);
  }

  /// \brief Bytes as a vocabulary writes them.
  [[nodiscard]] static std::string write(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) append_utf8(out, code_point(static_cast<std::uint8_t>(c)));
    return out;
  }

  /// \brief The bytes of a written piece; nothing when one of its characters is outside the alphabet.
  [[nodiscard]] static std::optional<std::string> read(std::string_view piece) {
    std::string out;
    while (!piece.empty()) {
      const utf8_step step = utf8_first(piece);
      if (step.what != utf8_step::kind::character) return {};
      const auto found = byte(code_point_of(piece.substr(0, step.length)));
      if (!found) return {};
      out += static_cast<char>(*found);
      piece.remove_prefix(step.length);
    }
    return out;
  }

 private:
  [[nodiscard]] static constexpr bool stands_for_itself(unsigned b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  }

  [[nodiscard]] static constexpr std::array<char32_t, 256> make_forward() {
    std::array<char32_t, 256> out{};
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) out[b] = stands_for_itself(b) ? b : next++;
    return out;
  }
  [[nodiscard]] static constexpr std::array<std::int16_t, 0x100 + others> make_backward() {
    std::array<std::int16_t, 0x100 + others> out{};
    for (auto& value : out) value = -1;
    const auto all = make_forward();
    for (unsigned b = 0; b < 256; ++b) out[all[b]] = static_cast<std::int16_t>(b);
    return out;
  }

  [[nodiscard]] static constexpr const std::array<char32_t, 256>& forward();
  [[nodiscard]] static constexpr const std::array<std::int16_t, 0x100 + others>& backward();

  struct tables;
};

struct byte_alphabet::tables {
  static constexpr std::array<char32_t, 256> forward = make_forward();
  static constexpr std::array<std::int16_t, 0x100 + others> backward = make_backward();
};

constexpr const std::array<char32_t, 256>& byte_alphabet::forward() { return tables::forward; }
constexpr const std::array<std::int16_t, 0x100 + byte_alphabet::others>& byte_alphabet::backward() {
  return tables::backward;
}

}  // namespace pesc
