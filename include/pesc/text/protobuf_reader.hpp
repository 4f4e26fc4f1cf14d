// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "pesc/core/error.hpp"

namespace pesc {

/// \brief Reads the fields of one protobuf message in their order; nested messages are read by readers of their own.
class protobuf_reader {
 public:
  /// \brief How a value is stored.
  enum class wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

  /// \param file    name for messages
  /// \param offset  bytes of the file before the message, so that positions are those of the file
  protobuf_reader(std::string_view message, std::string file, std::size_t offset = 0)
      : message_{message}, file_{std::move(file)}, offset_{offset} {}

  /// \brief Reads the next field; false at the end of the message.
  /// \throws format_error for what is no protobuf
  [[nodiscard]] bool next() {
    if (at_ == message_.size()) return false;
    begin_ = at_;
    const std::uint64_t key = varint();
    if (key >> 3 == 0 || key >> 3 >= std::uint64_t{1} << 29)
      fail(begin_, detail::concat("field number ", key >> 3, ", expected 1 to 2^29 - 1"));
    field_ = static_cast<std::uint32_t>(key >> 3);
    wire_ = static_cast<wire>(key & 7);
    switch (wire_) {
      case wire::varint:
        number_ = varint();
        break;
      case wire::fixed64:
        bytes_ = take(8);
        break;
      case wire::fixed32:
        bytes_ = take(4);
        break;
      case wire::bytes: {
        const std::uint64_t length = varint();
        bytes_ = take(length);
        break;
      }
      default:
        fail(begin_, detail::concat("wire type ", key & 7, ", expected 0, 1, 2 or 5"));
    }
    return true;
  }

  [[nodiscard]] std::uint32_t field() const { return field_; }

  /// \brief Place of the current field in the file.
  [[nodiscard]] std::size_t position() const { return offset_ + begin_; }

  /// \throws format_error when the field holds no integer
  [[nodiscard]] std::uint64_t number() const {
    expect(wire::varint, "an integer");
    return number_;
  }
  /// \brief An integer of 32 bits with a sign, which protobuf stores in 64.
  [[nodiscard]] std::int32_t int32() const {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(number()));
  }
  [[nodiscard]] bool flag() const { return number() != 0; }

  /// \throws format_error when the field holds no text or message
  [[nodiscard]] std::string_view text() const {
    expect(wire::bytes, "bytes with their length");
    return bytes_;
  }

  /// \throws format_error when the field holds no number of four bytes
  [[nodiscard]] float float32() const {
    expect(wire::fixed32, "four bytes");
    std::uint32_t bits = 0;
    for (unsigned i = 0; i < 4; ++i)
      bits |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes_[i])) << 8 * i;
    return std::bit_cast<float>(bits);
  }

  /// \brief A reader of the message in the current field.
  [[nodiscard]] protobuf_reader message() const {
    const std::string_view inside = text();
    return {inside, file_, offset_ + at_ - inside.size()};
  }

 private:
  [[noreturn]] void fail(std::size_t at, const std::string& what) const {
    detail::raise<format_error>(detail::concat(file_, ": byte ", offset_ + at, ": ", what));
  }

  void expect(wire wanted, const char* what) const {
    if (wire_ != wanted)
      fail(begin_, detail::concat("field ", field_, " has wire type ", static_cast<int>(wire_), ", expected ",
                                  static_cast<int>(wanted), " (", what, ")"));
  }

  [[nodiscard]] std::uint64_t varint() {
    std::uint64_t out = 0;
    for (unsigned shift = 0;; shift += 7) {
      if (at_ == message_.size()) fail(at_, "the message ends inside a number");
      const auto byte = static_cast<unsigned char>(message_[at_++]);
      // Ten bytes hold 70 bits; the last one may bring one.
      if (shift == 63 && byte > 1) fail(at_ - 1, "a number of more than 64 bits");
      out |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return out;
    }
  }

  [[nodiscard]] std::string_view take(std::uint64_t length) {
    if (length > message_.size() - at_)
      fail(begin_, detail::concat("a value of ", length, " bytes, ", message_.size() - at_,
                                  " are left. The download may be cut short."));
    const std::string_view out = message_.substr(at_, static_cast<std::size_t>(length));
    at_ += out.size();
    return out;
  }

  std::string_view message_;
  std::string file_;
  std::size_t offset_ = 0;
  std::size_t at_ = 0;
  std::size_t begin_ = 0;
  std::uint32_t field_ = 0;
  wire wire_ = wire::varint;
  std::uint64_t number_ = 0;
  std::string_view bytes_;
};

}  // namespace pesc
