// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

// Mutations that know the structure of a file, for LLVMFuzzerCustomMutator: the file stays well-formed up to the one
// thing that changed, so that what lies behind the first check is reached. Every second mutation is libFuzzer's own.

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace fuzz {

/// \brief Choices of one mutation, all from its seed.
class chooser {
 public:
  explicit chooser(unsigned seed) : state_{seed * 2654435761u + 1u} {}

  /// \brief One of 0 to count - 1.
  [[nodiscard]] std::size_t below(std::size_t count) {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return static_cast<std::size_t>(state_ >> 11) % count;
  }

 private:
  std::uint64_t state_;
};

/// \brief Puts a new input in the place of the old one; what does not fit is left to libFuzzer.
inline std::size_t replace_input(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                 const std::string& with) {
  if (with.empty() || with.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, with.data(), with.size());
  return with.size();
}

// ------------------------------------------------------------------------------------- numbers in binary files

/// \brief Place of a number that steers a reader: a count, length, type, dimension or offset.
struct field {
  std::size_t at, bytes;
};

/// \brief Sets one number to one at a border. At least one field; little-endian.
inline void set_to_border(std::uint8_t* data, const std::vector<field>& fields, chooser& choose) {
  const field& f = fields[choose.below(fields.size())];
  std::uint64_t old = 0;
  std::memcpy(&old, data + f.at, f.bytes);
  const std::uint64_t borders[] = {0,          1,          2,          3,       8,          9,
                                   32,         old + 1,    old - 1,    old * 2, 0x7FFFFFFF, 0x80000000,
                                   0xFFFFFFFF, 1ull << 62, 1ull << 63, ~0ull};
  const std::uint64_t value = borders[choose.below(std::size(borders))];
  std::memcpy(data + f.at, &value, f.bytes);
}

// -------------------------------------------------------------------------------------------------------- JSON

/// \brief Finds the values of a JSON text and where the member or element around each begins.
class json_places {
 public:
  struct place {
    std::size_t item, value, end;  ///< `item`: of the key, where there is one, else as `value`
  };

  /// \param begin  where a value stands
  json_places(std::string_view text, std::size_t begin) : text_{text}, at_{begin} { value(begin); }

  [[nodiscard]] const std::vector<place>& found() const { return found_; }

 private:
  void skip_space() {
    while (at_ < text_.size() && std::string_view{" \n\t\r"}.find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  [[nodiscard]] char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_)
      if (text_[at_] == '\\') ++at_;
    at_ = std::min(at_ + 1, text_.size());
  }

  void items(char close) {
    ++at_;
    for (skip_space(); at_ < text_.size() && next() != close; skip_space()) {
      const std::size_t before = at_;
      if (close == '}') {
        if (next() == '"') string();
        skip_space();
        if (next() == ':') ++at_;
      }
      value(before);
      skip_space();
      if (next() == ',') ++at_;
      if (at_ == before) ++at_;  // no JSON: any way on will do
    }
    at_ = std::min(at_ + 1, text_.size());
  }

  void value(std::size_t item) {
    skip_space();
    const std::size_t begin = at_;
    if (++depth_ < 100) {
      if (next() == '{')
        items('}');
      else if (next() == '[')
        items(']');
      else if (next() == '"')
        string();
      else
        while (at_ < text_.size() &&
               std::string_view{",]} \n\t\r"}.find(text_[at_]) == std::string_view::npos)
          ++at_;
    }
    --depth_;
    if (at_ > begin) found_.push_back({item, begin, at_});
  }

  std::string_view text_;
  std::size_t at_;
  int depth_ = 0;
  std::vector<place> found_;
};

/// \brief The text with one thing changed in the JSON value at `begin`: a value becomes another of the same text or one at
/// a border, or a member or element is doubled or dropped. Empty where no value stands there.
inline std::string mutate_json(std::string_view text, std::size_t begin, chooser& choose) {
  const auto places = json_places{text, begin}.found();
  if (places.empty()) return {};
  const auto& p = places[choose.below(places.size())];
  const auto part = [&](std::size_t from, std::size_t to) {
    return std::string{text.substr(from, to - from)};
  };
  const std::string before = part(0, p.item), key = part(p.item, p.value), old = part(p.value, p.end);
  const std::string behind{text.substr(p.end)};
  constexpr std::string_view borders[] = {"0",
                                          "1",
                                          "-1",
                                          "2",
                                          "0.5",
                                          "1e308",
                                          "1e-320",
                                          "2147483648",
                                          "4294967296",
                                          "9223372036854775807",
                                          "-9223372036854775808",
                                          "18446744073709551615",
                                          "1e999",
                                          "true",
                                          "false",
                                          "null",
                                          "\"\"",
                                          "[]",
                                          "{}",
                                          "[[]]"};
  switch (choose.below(5)) {
    case 0: {
      const auto& other = places[choose.below(places.size())];
      return before + key + part(other.value, other.end) + behind;
    }
    case 1:
    case 2:
      return before + key + std::string{borders[choose.below(std::size(borders))]} + behind;
    case 3:
      return before + key + old + ',' + key + old + behind;
    default: {
      const bool comma = behind.starts_with(',');
      return before + (comma ? behind.substr(1) : behind);
    }
  }
}

/// \brief Where one of the values that begin with a brace starts; the end of the text without one.
inline std::size_t some_brace(std::string_view text, chooser& choose) {
  std::vector<std::size_t> braces;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] == '{') braces.push_back(i);
  return braces.empty() ? text.size() : braces[choose.below(2) == 0 ? 0 : choose.below(braces.size())];
}

/// \brief The custom mutator of inputs that hold JSON text.
inline std::size_t json_mutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  chooser choose{seed};
  if (choose.below(2) == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  return replace_input(data, size, max_size, mutate_json(text, some_brace(text, choose), choose));
}

/// \brief The custom mutator of inputs that hold a safetensors file from byte `begin` on: changes its header and repairs the
/// length before it.
inline std::size_t safetensors_mutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                       unsigned seed, std::size_t begin = 0) {
  chooser choose{seed};
  std::uint64_t length = 0;
  if (size >= begin + 8) std::memcpy(&length, data + begin, 8);
  if (choose.below(2) == 0 || size < begin + 8 || length > size - begin - 8)
    return LLVMFuzzerMutate(data, size, max_size);
  const std::string_view all{reinterpret_cast<const char*>(data), size};
  const std::string_view old = all.substr(begin + 8, static_cast<std::size_t>(length));
  const std::string header = mutate_json(old, 0, choose);
  if (header.empty()) return LLVMFuzzerMutate(data, size, max_size);
  length = header.size();
  std::string out{all.substr(0, begin)};
  out.append(reinterpret_cast<const char*>(&length), 8);
  out += header;
  out += all.substr(begin + 8 + old.size());
  return replace_input(data, size, max_size, out);
}

// ---------------------------------------------------------------------------------------------------- protobuf

/// \brief The fields of a protobuf message, up to the first that is damaged.
class message_fields {
 public:
  struct part {
    std::size_t begin, value, end;
    unsigned type;  ///< 0 varint, 1 eight bytes, 2 with a length, 5 four bytes
  };

  message_fields(std::string_view text, std::size_t begin, std::size_t end) : text_{text} {
    for (std::size_t at = begin; at < end;) {
      part p{at, 0, 0, 0};
      const std::uint64_t tag = varint(at, end);
      p.type = static_cast<unsigned>(tag & 7u);
      p.value = at;
      std::uint64_t bytes = p.type == 1 ? 8 : 4;
      if (p.type == 0) {
        static_cast<void>(varint(at, end));
        bytes = 0;
      } else if (p.type == 2) {
        bytes = varint(at, end);
        p.value = at;
      }
      if (!whole_ || bytes > end - at || (p.type > 2 && p.type != 5)) return;
      p.end = at += static_cast<std::size_t>(bytes);
      found_.push_back(p);
    }
  }

  [[nodiscard]] const std::vector<part>& found() const { return found_; }

 private:
  std::uint64_t varint(std::size_t& at, std::size_t end) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && at < end; shift += 7) {
      const auto byte = static_cast<unsigned char>(text_[at++]);
      value |= std::uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    whole_ = false;
    return 0;
  }

  std::string_view text_;
  bool whole_ = true;
  std::vector<part> found_;
};

/// \brief The text with one field of the message from `begin` on changed: doubled, dropped, moved to the end, or a number of it
/// or of the message in it set to one at a border. Empty where no field stands there.
inline std::string mutate_message(std::string_view text, std::size_t begin, chooser& choose) {
  const auto fields = message_fields{text, begin, text.size()}.found();
  if (fields.empty()) return {};
  const auto& f = fields[choose.below(fields.size())];
  const std::string before{text.substr(0, f.begin)}, it{text.substr(f.begin, f.end - f.begin)},
      behind{text.substr(f.end)};
  switch (choose.below(5)) {
    case 0:
      return before + it + it + behind;
    case 1:
      return before + behind;
    case 2:
      return before + behind + it;
    default:
      break;
  }
  const auto inner = f.type == 2 ? message_fields{text, f.value, f.end}.found() : std::vector{f};
  std::string out{text};
  if (inner.empty()) return {};
  const auto& n = inner[choose.below(inner.size())];
  constexpr unsigned char bytes[] = {0, 1, 2, 3, 6, 7, 0x3F, 0x40, 0x7F};
  if (n.type == 0) {
    // The last byte of a varint stays its last.
    out[n.end - 1] = static_cast<char>(bytes[choose.below(std::size(bytes))]);
  } else if (n.type == 5) {
    constexpr std::uint32_t floats[] = {0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 1};
    std::memcpy(out.data() + n.value, &floats[choose.below(std::size(floats))], 4);
  } else if (n.end > n.value) {
    out[n.value + choose.below(n.end - n.value)] ^= static_cast<char>(1u << choose.below(8));
  }
  return out;
}

}  // namespace fuzz
