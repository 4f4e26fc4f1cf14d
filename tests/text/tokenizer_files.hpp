// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/text/byte_alphabet.hpp"
#include "pesc/text/gguf_vocabulary.hpp"

/// Small tokenizer files that tests write and change.
namespace support {

/// \brief Name of the piece of a byte: <0x0A>.
inline std::string byte_piece(unsigned b) {
  constexpr char digits[] = "0123456789ABCDEF";
  return std::string("<0x") + digits[b >> 4] + digits[b & 15] + ">";
}

inline std::string proto_varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(static_cast<unsigned char>(value | 0x80));
  return out + static_cast<char>(value);
}
inline std::string proto_number(unsigned field, std::uint64_t value) {
  return proto_varint(field << 3) + proto_varint(value);
}
inline std::string proto_text(unsigned field, std::string_view text) {
  return proto_varint(field << 3 | 2) + proto_varint(text.size()) + std::string{text};
}
inline std::string proto_float(unsigned field, float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  std::string out = proto_varint(field << 3 | 5);
  for (unsigned i = 0; i < 4; ++i) out += static_cast<char>(static_cast<unsigned char>(bits >> 8 * i));
  return out;
}

/// \brief One piece of a tokenizer.model.
inline std::string model_piece(std::string_view text, float score, unsigned type = 1) {
  return proto_text(1,
                    proto_text(1, text) + proto_float(2, score) + (type == 1 ? "" : proto_number(3, type)));
}

/// \brief Pieces of a tokenizer.model: unknown, start, end, all bytes.
inline std::string model_start() {
  std::string out = model_piece("<unk>", 0, 2) + model_piece("<s>", 0, 3) + model_piece("</s>", 0, 3);
  for (unsigned b = 0; b < 256; ++b) out += model_piece(byte_piece(b), 0, 6);
  return out;
}

/// \brief The specs of a tokenizer.model as Llama has them: BPE, nothing normalised.
inline std::string model_specs() {
  return proto_text(2, proto_number(3, 2) + proto_number(35, 1)) +
         proto_text(3, proto_text(1, "identity") + proto_number(3, 1) + proto_number(4, 0));
}

/// \brief A list of JSON values from their text.
inline pesc::json from_text(std::string_view text) { return pesc::parse_json(text, "test"); }

/// \brief A byte-level tokenizer.json: ids 0 to 255 the bytes, then these pieces, with these merges.
inline pesc::json byte_level_json(const std::vector<std::string>& pieces,
                                  const std::vector<std::string>& merges) {
  pesc::json vocab = pesc::json::object();
  std::int32_t id = 0;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(static_cast<unsigned char>(b));
    vocab.set(pesc::byte_alphabet::write({&byte, 1}), id++);
  }
  for (const std::string& piece : pieces) vocab.set(piece, id++);
  pesc::json pairs = pesc::json::array();
  for (const std::string& merge : merges) pairs.push_back(merge);
  pesc::json model = pesc::json::object();
  model.set("type", "BPE").set("vocab", vocab).set("merges", pairs);
  pesc::json out = pesc::json::object();
  return out.set("added_tokens", pesc::json::array())
      .set("normalizer", pesc::json{})
      .set("pre_tokenizer", from_text(R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})"))
      .set("post_processor", pesc::json{})
      .set("decoder", from_text(R"({"type":"ByteLevel"})"))
      .set("model", model);
}

/// \brief Steps of a SentencePiece-style tokenizer.json.
enum class json_layout { first, always, never, older };

/// \brief A SentencePiece-style tokenizer.json: ids 0, 1, 2 unknown, start and end, then the 256 bytes, then these
/// pieces.
inline pesc::json spaced_json(const std::vector<std::string>& pieces, const std::vector<std::string>& merges,
                              json_layout layout) {
  pesc::json vocab = pesc::json::object();
  std::int32_t id = 0;
  for (const char* mark : {"<unk>", "<s>", "</s>"}) vocab.set(mark, id++);
  for (unsigned b = 0; b < 256; ++b) vocab.set(byte_piece(b), id++);
  for (const std::string& piece : pieces) vocab.set(piece, id++);
  pesc::json pairs = pesc::json::array();
  for (const std::string& merge : merges) pairs.push_back(merge);
  pesc::json model = pesc::json::object();
  model.set("type", "BPE").set("unk_token", "<unk>").set("fuse_unk", true).set("byte_fallback", true);
  model.set("vocab", vocab).set("merges", pairs);
  const auto added = [](const char* id_and_text) {
    return std::string(R"({"id":)") + id_and_text + R"(","special":true,"normalized":false,"lstrip":false})";
  };
  const char* scheme = layout == json_layout::first    ? "first"
                       : layout == json_layout::always ? "always"
                                                       : "never";
  pesc::json out = pesc::json::object();
  const bool older = layout == json_layout::older;
  return out
      .set("added_tokens",
           from_text('[' + added(R"(0,"content":"<unk>)") + ',' + added(R"(1,"content":"<s>)") + ',' +
                     added(R"(2,"content":"</s>)") + ']'))
      .set("normalizer",
           older ? from_text(R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
                                              {"type":"Replace","pattern":{"String":" "},"content":"▁"}]})")
                 : pesc::json{})
      .set("pre_tokenizer",
           older ? pesc::json{}
                 : from_text(std::string(R"({"type":"Metaspace","replacement":"▁","prepend_scheme":")") +
                             scheme + R"(","split":false})"))
      .set("post_processor", from_text(R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>",
                                           "type_id":0}},{"Sequence":{"id":"A","type_id":0}}]})"))
      .set("decoder", from_text(R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},
                                    "content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
                                    {"type":"Strip","content":" ","start":1,"stop":0}]})"))
      .set("model", model);
}

/// \brief A byte-level vocabulary as a GGUF file has it: ids 0, 1, 2 control, then the bytes, then these pieces.
inline pesc::gguf_vocabulary byte_level_gguf(const std::vector<std::string>& pieces,
                                             const std::vector<std::string>& merges) {
  pesc::gguf_vocabulary out{
      .model = "gpt2", .pre = "smollm", .tokens = {}, .scores = {}, .token_type = {}, .merges = merges};
  for (const char* mark : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    out.tokens.emplace_back(mark);
    out.token_type.push_back(3);
  }
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(static_cast<unsigned char>(b));
    out.tokens.push_back(pesc::byte_alphabet::write({&byte, 1}));
  }
  for (const std::string& piece : pieces) out.tokens.push_back(piece);
  out.token_type.resize(out.tokens.size(), 1);
  return out;
}

}  // namespace support
