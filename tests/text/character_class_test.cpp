// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/character_class.hpp"

#include <string>
#include <string_view>

#include <doctest/doctest.h>

using pesc::class_of;
using enum pesc::character_class;

TEST_SUITE("text/character_class") {
  TEST_CASE("letters, numbers and white space are those of Unicode") {
    for (const char32_t c : {U'a', U'Z', U'é', U'ß', U'ж', U'中', U'ア', U'한', U'ﬁ', U'ª', U'ʰ', U'𐍈', U'ا'})
      CHECK(class_of(c) == letter);
    for (const char32_t c : {U'0', U'9', U'²', U'½', U'٣', U'४', U'Ⅷ', U'①', U'〇', U'𝟘'})
      CHECK(class_of(c) == number);
    for (const char32_t c : {U'\t', U'\n', U'\v', U'\f', U'\r', U' ', U'\u0085', U'\u00A0', U'\u1680',
                             U'\u2000', U'\u200A', U'\u2028', U'\u2029', U'\u202F', U'\u205F', U'\u3000'})
      CHECK(class_of(c) == space);
    for (const char32_t c : {U'\0', U'_', U'\'', U'\x7F', U'\u0301', U'\u0489', U'\u200B', U'\u200D',
                             U'\u180E', U'\uFEFF', U'\u2581', U'。', U'😀', U'\uFFFD', U'\U0010FFFF'})
      CHECK(class_of(c) == other);
    CHECK(class_of(0x110000) == other);
    CHECK(class_of(0xD800) == other);
  }

  TEST_CASE("the short cut for ASCII agrees with Unicode") {
    for (char32_t c = 0; c < 0x80; ++c) {
      const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
      const bool is_letter = category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL;
      CHECK((class_of(c) == letter) == is_letter);
      CHECK((class_of(c) == number) == (category == UTF8PROC_CATEGORY_ND));
    }
  }

  TEST_CASE("bytes that are no character are one of another kind each") {
    CHECK(pesc::first_class("\xE4\xBD").length == 1);
    CHECK(pesc::first_class("\xE4\xBD").what == other);
    CHECK(pesc::first_class("\xC3\xA9x").length == 2);
    CHECK(pesc::first_class("\xC3\xA9x").what == letter);
  }

  TEST_CASE("white space is measured at both ends, in bytes") {
    CHECK(pesc::leading_space(" \t\xC2\xA0\xE3\x80\x80x ") == 7);
    CHECK(pesc::trailing_space(" x \t\xC2\xA0\xE3\x80\x80") == 7);
    CHECK(pesc::leading_space("") == 0);
    CHECK(pesc::trailing_space("") == 0);
    CHECK(pesc::trailing_space("\xE2\x80\x8B") == 0);
    CHECK(pesc::trailing_space(" \x80\x80\x80\x80\x80") == 0);
    CHECK(pesc::trailing_space("   ") == 3);
  }
}
