// SPDX-License-Identifier: Apache-2.0

// One table of damaged and foreign files: each class of damage, the file, and the words that the error has to say. Errors come
// fast and cost little memory, whatever sizes the file claims.

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/model/load_model.hpp"
#include "pesc/text/load_tokenizer.hpp"
#include "pesc/train/records.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_gguf.hpp"

namespace {

using pesc::index_t;

/// Opens what lies in a folder; ends with an error.
using action = std::function<void(const std::string& folder)>;

struct row {
  const char* damage;                            ///< the class and what is wrong
  std::function<void(const std::string&)> make;  ///< fills the folder
  action open;
  std::vector<const char*> words;
};

void put(const std::string& path, std::string_view text) { pesc::write_file(path, text); }
std::string text_of(std::span<const std::byte> bytes) { return std::string{pesc::as_text(bytes)}; }

// ------------------------------------------------------------------------------------------ safetensors

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + rest;
}

/// A safetensors file of this header and so many bytes of data.
std::string safetensors(const std::string& header, std::size_t data = 16) {
  return with_length(header.size(), header) + std::string(data, '\0');
}

const action open_tensors = [](const std::string& f) {
  static_cast<void>(pesc::safetensors_file::open(f + "/m.safetensors"));
};

row tensors(const char* damage, const std::string& bytes, std::vector<const char*> words) {
  return {damage, [bytes](const std::string& f) { put(f + "/m.safetensors", bytes); }, open_tensors,
          std::move(words)};
}

std::vector<row> safetensors_rows() {
  const auto one = [](const char* inner) { return safetensors(std::string{"{\"w\":{"} + inner + "}}"); };
  return {
      tensors("empty", "", {"0 bytes"}),
      tensors("seven bytes", "1234567", {"7 bytes"}),
      tensors("length past the end", with_length(8388608, std::string(512, ' ')),
              {"header claims 8388608 bytes", "512", "cut short"}),
      tensors("length above the limit", with_length(200'000'000, std::string(64, ' ')), {"200000000"}),
      tensors("length of 2^63", with_length(std::uint64_t{1} << 63, std::string(64, ' ')),
              {"9223372036854775808"}),
      tensors("not an object", safetensors("[]"), {"expected"}),
      tensors("bad escape", safetensors("{\"a\\q\":1}"), {"byte"}),
      tensors("bad UTF-8", safetensors("{\"a\xFF\":1}"), {"UTF-8"}),
      tensors("control character", safetensors(std::string("{\"a\x01\":1}")), {"byte"}),
      tensors("trailing text", safetensors("{} x"), {"byte"}),
      tensors("missing colon", safetensors("{\"a\" 1}"), {"byte", "expected ':'"}),
      tensors("Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
              {"Git LFS pointer", "git lfs pull"}),
      tensors("web page", "<!DOCTYPE html><html>login</html>", {"web page"}),
      tensors("pickle", "\x80\x02}q\x00." + std::string(32, 'x'), {"pickle", "not read"}),
      tensors("zip", std::string("PK\x03\x04", 4) + std::string(60, 'x'), {"zip archive"}),
      tensors("gzip", std::string("\x1F\x8B\x08\x00", 4) + std::string(60, 'x'), {"gzip"}),
      tensors("duplicate tensor",
              safetensors("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                          "\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}"),
              {"tensor \"w\" appears twice"}),
      tensors("duplicate key",
              one("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]"), {"dtype"}),
      tensors("missing shape", one("\"dtype\":\"F32\",\"data_offsets\":[0,16]"), {"has no \"shape\""}),
      tensors("unknown key", one("\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],\"x\":1"),
              {"unknown key \"x\""}),
      tensors("overlap",
              safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                          "\"b\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[4,16]}}"),
              {"tensors \"a\" and \"b\" overlap at data byte 4"}),
      tensors("hole",
              safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                          "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}"),
              {"\"b\""}),
      tensors("begin after end", one("\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]"), {"\"w\""}),
      tensors("past the end", one("\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]"), {"16"}),
      tensors("uncovered tail", one("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"), {"16"}),
      tensors("product wraps to 0",
              one("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]"),
              {"shape [4294967296, 4294967296] of F32 overflows"}),
      tensors("product wraps to small",
              one("\"dtype\":\"U8\",\"shape\":[4294967297,4294967296],\"data_offsets\":[0,16]"),
              {"overflows"}),
      tensors("negative dimension", one("\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]"),
              {"holds a negative number"}),
      tensors("fractional dimension", one("\"dtype\":\"F32\",\"shape\":[4.0],\"data_offsets\":[0,16]"),
              {"\"w\""}),
      tensors("dimension of 2^64",
              one("\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,16]"), {"\"w\""}),
      tensors("rank of 9", one("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,16]"),
              {"\"w\""}),
      tensors("size against shape", one("\"dtype\":\"BF16\",\"shape\":[64,64],\"data_offsets\":[0,16]"),
              {"16 bytes", "8192"}),
      tensors("sub-byte not whole", one("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,16]"), {"\"w\""}),
  };
}

// --------------------------------------------------------------------------------------- folders of models

pesc::model_config tiny() {
  pesc::model_config c;
  c.llama = support::tiny_llama();
  return c;
}

const action load = [](const std::string& f) { static_cast<void>(pesc::load_model({.path = f})); };

/// A model folder whose config.json is changed.
row config(const char* damage, const char* key, const char* value, std::vector<const char*> words) {
  const std::string k = key, v = value;
  return {damage,
          [k, v](const std::string& f) {
            support::write_folder(f, tiny(), support::make_tensors(tiny()));
            pesc::json text = pesc::read_json(f + "/config.json");
            text.set(k, pesc::parse_json(v, "value"));
            put(f + "/config.json", pesc::to_string(text));
          },
          load, std::move(words)};
}

/// A model folder whose tensors are changed.
row model(const char* damage, std::function<void(pesc::model_config&, support::tiny_tensors&)> change,
          std::vector<const char*> words) {
  return {damage,
          [change](const std::string& f) {
            pesc::model_config c = tiny();
            auto tensors = support::make_tensors(c);
            change(c, tensors);
            support::write_folder(f, c, tensors);
          },
          load, std::move(words)};
}

row index(const char* damage, const char* text, std::vector<const char*> words) {
  const std::string t = text;
  return {damage,
          [t](const std::string& f) {
            put(f + "/config.json", pesc::to_string(pesc::to_json(tiny())));
            put(f + "/model.safetensors.index.json", t);
          },
          load, std::move(words)};
}

std::vector<row> folder_rows() {
  return {
      {"no config.json", [](const std::string& f) { put(f + "/x", ""); }, load, {"there is no config.json"}},
      {"only pickles",
       [](const std::string& f) {
         put(f + "/config.json", pesc::to_string(pesc::to_json(tiny())));
         put(f + "/pytorch_model.bin", "x");
       },
       load,
       {"pickled weights", "safe_serialization=True"}},
      config("unsupported rope", "rope_parameters",
             "{\"rope_type\":\"yarn\",\"rope_theta\":10000.0,\"factor\":2.0}",
             {"rope_parameters.rope_type",
              "\"yarn\" is not supported; results would be wrong. Supported: default, linear"}),
      config("sliding window", "sliding_window", "16", {"sliding_window", "a window of 16"}),
      config("activation", "hidden_act", "\"gelu\"", {"hidden_act", "\"gelu\"", "Supported: silu"}),
      config("wrong type", "hidden_size", "\"24\"", {"hidden_size", "a string, expected an integer"}),
      config("zero", "num_hidden_layers", "0", {"num_hidden_layers", "is 0, expected 1 to"}),
      config("heads do not divide", "num_key_value_heads", "3", {"num_key_value_heads", "a divisor of"}),
      config("other sizes than the tensors", "intermediate_size", "37", {"[36, 24], expected [37, 24]"}),
      config("other architecture", "model_type", "\"gpt2\"", {"model_type", "\"gpt2\" is not supported"}),
      config("fewer experts than top-k", "adapter_dim", "4", {"missing"}),
      model("missing tensors",
            [](auto&, auto& t) {
              for (auto at = t.begin(); at != t.end();)
                at = at->first.find("k_proj") != at->first.npos ? t.erase(at) : std::next(at);
            },
            {"missing 2 of 21 tensors: \"model.layers.0.self_attn.k_proj.weight\""}),
      model("misspelt tensor",
            [](auto&, auto& t) {
              auto node = t.extract("model.norm.weight");
              node.key() = "model.norm.weigth";
              t.insert(std::move(node));
            },
            {"missing 1 of 21", "The nearest to the first that is there: \"model.norm.weigth\""}),
      model("extra tensors",
            [](auto&, auto& t) {
              t["model.layers.0.mlp.extra.weight"] = {{2}, {1, 2}};
            },
            {"1 tensors are not part of the model", "extra"}),
      model("dense files under a sparse config", [](auto& c, auto&) { c.pesc = support::tiny_experts(); },
            {"moe_adapter", "This looks like a dense model"}),
      index("shard outside the folder", "{\"weight_map\":{\"a\":\"../x.safetensors\"}}",
            {"shard \"../x.safetensors\" leaves the model folder"}),
      index("shard missing", "{\"weight_map\":{\"a\":\"x.safetensors\"}}",
            {"shard \"x.safetensors\" is missing"}),
      index("shard name is no text", "{\"weight_map\":{\"a\":{}}}", {"expected a file name"}),
      {"a file where a folder is meant",
       [](const std::string& f) { put(f + "/m.safetensors", safetensors("{}", 0)); },
       [](const std::string& f) { static_cast<void>(pesc::load_model({.path = f + "/m.safetensors"})); },
       {"name the folder that holds it"}},
      {"nothing there",
       [](const std::string&) {},
       [](const std::string& f) { static_cast<void>(pesc::load_model({.path = f + "/no"})); },
       {"there is no such file or folder"}},
  };
}

// ------------------------------------------------------------------------------------------------ GGUF

row gguf(const char* damage, const support::gguf_builder& file, std::vector<const char*> words) {
  const std::string bytes = text_of(file.bytes());
  return {damage, [bytes](const std::string& f) { put(f + "/m.gguf", bytes); },
          [](const std::string& f) { static_cast<void>(pesc::load_model({.path = f + "/m.gguf"})); },
          std::move(words)};
}

std::vector<row> gguf_rows() {
  const auto keys = [] { return support::gguf_keys(support::tiny_llama()); };
  const auto with_version = [&](std::uint32_t v) {
    auto b = keys();
    b.version = v;
    return b;
  };
  std::string counts =
      text_of(support::gguf_builder{}.bytes()).substr(0, 8) + std::string(8, '\xFF') + std::string(27, '\0');
  return {
      gguf("version 1", with_version(1), {"version 1, expected 2 or 3"}),
      gguf("version 4", with_version(4), {"version 4, expected 2 or 3"}),
      gguf("other byte order", with_version(0x03000000), {"other byte order"}),
      gguf("alignment 0", keys().u32("general.alignment", 0), {"general.alignment", "power of two"}),
      gguf("alignment 3", keys().u32("general.alignment", 3), {"general.alignment"}),
      gguf("alignment 2^31", keys().u32("general.alignment", 1u << 31), {"general.alignment"}),
      gguf("type out of range", keys().key("x", 13, 0), {"key \"x\" has the type 13"}),
      gguf("nested lists", keys().list<std::uint32_t>("x", 9, {}), {"list \"x\" holds lists"}),
      gguf("unaligned offset", keys().raw_tensor("t", {1}, 0, 4, std::vector<std::byte>(4)),
           {"tensor \"t\" begins at data byte 4"}),
      gguf("element type", keys().u32("tokenizer.ggml.eos_token_id", 1u << 31),
           {"tokenizer.ggml.eos_token_id"}),
      gguf("architecture", support::gguf_builder{}.string("general.architecture", "mamba"),
           {"\"mamba\" is not supported"}),
      gguf("no tensors", keys(), {"missing 20 of 20 tensors"}),
      gguf("unread type", keys().tensor("output.weight", {256}, 14, std::vector<std::byte>(210)),
           {"Q6_K, which is not read"}),
      {"43 bytes with huge counts",
       [counts](const std::string& f) { put(f + "/m.gguf", counts); },
       [](const std::string& f) { static_cast<void>(pesc::load_model({.path = f + "/m.gguf"})); },
       {"m.gguf: byte"}},
  };
}

// ------------------------------------------------------------------------------ tokenizers, adapters, records

row tokenizer(const char* damage, const std::string& text, std::vector<const char*> words) {
  return {damage, [text](const std::string& f) { put(f + "/tokenizer.json", text); },
          [](const std::string& f) { static_cast<void>(pesc::load_tokenizer(f + "/tokenizer.json", 3)); },
          std::move(words)};
}

std::string bpe(const std::string& vocab, const std::string& merges) {
  return "{\"model\":{\"type\":\"BPE\",\"vocab\":{" + vocab + "},\"merges\":[" + merges +
         "]},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
         "\"decoder\":{\"type\":\"ByteLevel\"}}";
}

row adapter(const char* damage, const std::string& config_text, const std::string& name,
            std::vector<const char*> words) {
  return {
      damage,
      [=](const std::string& f) {
        support::write_folder(f + "/base", tiny(), support::make_tensors(tiny()));
        put(f + "/adapter_config.json", config_text);
        pesc::safetensors_writer out;
        const std::vector<float> values(2 * 24);
        out.add(name + ".lora_A.weight", {2, 24}, std::span{values});
        out.add(name + ".lora_B.weight", {24, 2}, std::span{values});
        out.write(f + "/adapter_model.safetensors");
      },
      [](const std::string& f) { static_cast<void>(pesc::load_model({.path = f + "/base", .adapter = f})); },
      std::move(words)};
}

row records(const char* damage, const std::string& line, std::vector<const char*> words) {
  return {damage,
          [line](const std::string& f) {
            put(f + "/math.jsonl", "{\"question\":\"a\",\"answer\":\"b\"}\n" + line);
          },
          [](const std::string& f) {
            pesc::record_summary found;
            static_cast<void>(pesc::read_records(f + "/math.jsonl", {}, found));
          },
          std::move(words)};
}

std::vector<row> other_rows() {
  const std::string lora =
      "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"q_proj\"]}";
  const std::string module = "base_model.model.model.layers.0.self_attn.q_proj";
  return {
      tokenizer("hole", bpe("\"a\":0,\"b\":2", ""), {"tokenizer.json"}),
      tokenizer("duplicate id", bpe("\"a\":0,\"b\":0,\"c\":1", ""), {"tokenizer.json"}),
      tokenizer("merge of an unknown piece", bpe("\"a\":0,\"b\":1,\"ab\":2", "\"a x\""), {"tokenizer.json"}),
      tokenizer("id beyond the vocabulary", bpe("\"a\":0,\"b\":1,\"c\":70000", ""), {"tokenizer.json"}),
      tokenizer("no JSON", "{\"model\":", {"tokenizer.json: byte"}),
      tokenizer("unknown model", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", {"WordPiece"}),
      adapter("matched none", lora, "base_model.model.encoder.block", {"adapter matched 0 of 1 modules"}),
      adapter("rank mismatch",
              "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":4,\"target_modules\":[\"q_proj\"]}", module,
              {"[2, 24], expected [3, 24]"}),
      adapter("alpha missing", "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q_proj\"]}", module,
              {"lora_alpha"}),
      adapter("unknown target",
              "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"query\"]}", module,
              {"\"query\", expected q_proj"}),
      adapter("other method", "{\"peft_type\":\"IA3\"}", module, {"\"IA3\", expected \"LORA\""}),
      records("bad JSON", "{\"question\":", {"math.jsonl:2"}),
      records("missing field", "{\"question\":\"a\"}", {"math.jsonl:2: field \"answer\" is missing"}),
      records("wrong type", "{\"question\":\"a\",\"answer\":5}",
              {"math.jsonl:2: field \"answer\" is a number, expected text"}),
      records("lone surrogate", "{\"question\":\"\\ud800\",\"answer\":\"b\"}", {"math.jsonl:2"}),
      {"incomplete checkpoint",
       [](const std::string& f) {
         support::write_folder(f, tiny(), support::make_tensors(tiny()));
         pesc::json text = pesc::read_json(f + "/config.json");
         put(f + "/config.json", pesc::to_string(text.set("pesc", pesc::json::object())));
       },
       load,
       {"is incomplete (no manifest)"}},
      {"4-bit weight without scales",
       [](const std::string& f) {
         put(f + "/config.json", pesc::to_string(pesc::to_json(tiny())));
         auto tensors = support::make_tensors(tiny());
         tensors["model.layers.0.mlp.up_proj.weight"].shape = {432, 1};
         tensors["model.layers.0.mlp.up_proj.weight"].values.resize(432);
         auto out = support::make_file(tensors);
         const std::string state =
             "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float32\",\"shape\":[36,24]}";
         const std::vector<std::uint8_t> bytes(state.begin(), state.end());
         out.add("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
                 {static_cast<index_t>(bytes.size())}, std::span{bytes});
         out.write(f + "/model.safetensors");
       },
       load,
       {"model.layers.0.mlp.up_proj.weight"}},
  };
}

/// The message, one line, and that it came fast.
std::string refusal(const row& r, const std::string& folder) {
  const auto begin = std::chrono::steady_clock::now();
  std::string text = "no error";
  try {
    r.open(folder);
  } catch (const pesc::error& e) {
    text = e.what();
  } catch (const std::exception& e) {
    text = std::string{"another error: "} + e.what();
  }
  // Ten times what is promised, for machines that do other work beside.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds{1});
  return text;
}

}  // namespace

TEST_SUITE("model/malformed") {
  TEST_CASE("every class of damage is told in one line with its place") {
    int rows = 0;
    for (const auto& table : {safetensors_rows(), folder_rows(), gguf_rows(), other_rows()})
      for (const row& r : table) {
        CAPTURE(r.damage);
        const support::temporary_folder folder;
        r.make(folder.path());
        const std::string text = refusal(r, folder.path());
        CAPTURE(text);
        CHECK(text.find('\n') == text.npos);
        CHECK(text.find(folder.path()) == 0);
        CHECK(text.size() < 700);
        for (const char* words : r.words) CHECK(support::contains(text, words));
        ++rows;
      }
    CHECK(rows > 75);
  }
}
