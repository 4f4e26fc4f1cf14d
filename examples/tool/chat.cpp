// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <csignal>
#include <optional>

#include <unistd.h>

#include "pesc/text/chat_template.hpp"
#include "pesc/text/utf8.hpp"
#include "tool/answer_text.hpp"
#include "tool/common_options.hpp"
#include "tool/weights.hpp"

// chat: questions from the terminal (or lines of standard input), answers as they come.

namespace pesc::tool {
namespace {

struct chat_options {
  std::string model, form, system, tokenizer;
  std::string weights = "keep";
  adapter_choice adapter;
  machine on;
  sampling_options sampling{.seed = 1};
  index_t max_tokens = 512, context = 2048;
  bool quiet = false;
};

/// \brief While it lives, Ctrl-C sets a flag and interrupts reading instead of ending the program.
class interrupt_flag {
 public:
  interrupt_flag() {
    struct sigaction action {};
    action.sa_handler = [](int) { flag() = 1; };
    ::sigaction(SIGINT, &action, &old_);  // without SA_RESTART: a read ends
  }
  interrupt_flag(const interrupt_flag&) = delete;
  interrupt_flag& operator=(const interrupt_flag&) = delete;
  ~interrupt_flag() { ::sigaction(SIGINT, &old_, nullptr); }

  [[nodiscard]] static bool is_set() { return flag() != 0; }
  static void clear() { flag() = 0; }

 private:
  static volatile std::sig_atomic_t& flag() {
    static volatile std::sig_atomic_t value = 0;
    return value;
  }
  struct sigaction old_ {};
};

/// \brief Lines of standard input; a line that Ctrl-C interrupts is dropped.
class questions {
 public:
  explicit questions(bool ask) : ask_{ask} {}

  /// \brief The next line without its end; nothing at the end of the input.
  [[nodiscard]] std::optional<std::string> next() {
    prompt();
    for (;;) {
      if (const std::size_t end = buffer_.find('\n'); end != buffer_.npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        if (line.ends_with('\r')) line.pop_back();
        return line;
      }
      char bytes[4096];
      const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (count > 0) {
        buffer_.append(bytes, static_cast<std::size_t>(count));
      } else if (count < 0 && errno == EINTR) {
        interrupt_flag::clear();
        buffer_.clear();
        std::fputs("\n(Ctrl-D or /quit leaves)\n", stderr);
        prompt();
      } else {
        if (buffer_.empty()) return {};
        return std::exchange(buffer_, {});
      }
    }
  }

 private:
  void prompt() const {
    if (!ask_) return;
    print_now("> ");
  }

  bool ask_;
  std::string buffer_;
};

class conversation {
 public:
  conversation(session& model, const tokenizer& tokens, const chat_template& form, const chat_options& o)
      : model_{&model},
        tokens_{&tokens},
        form_{form},
        options_{&o},
        places_{std::min(o.context, model.source().config.llama.max_positions)},
        stop_{form.stop_ids(tokens)} {
    for (const std::int32_t id : model.source().config.llama.eos)
      if (std::find(stop_.begin(), stop_.end(), id) == stop_.end()) stop_.push_back(id);
    clear();
  }

  void clear() {
    messages_.clear();
    if (!options_->system.empty()) messages_.push_back({"system", options_->system});
  }

  /// \brief Answers a question and keeps both; without room for an answer the question is dropped.
  void ask(std::string question) {
    messages_.push_back({"user", std::move(question)});
    const std::vector<std::int32_t> ids = encode_chat(*tokens_, form_, messages_);
    const index_t room = places_ - static_cast<index_t>(ids.size());
    if (room < 1) {
      messages_.pop_back();
      std::fprintf(stderr,
                   "pesc: the conversation would have %zu tokens, %lld are kept (--context). /clear begins a "
                   "new one\n",
                   ids.size(), static_cast<long long>(places_));
      return;
    }
    const std::vector<std::string_view> marks = form_.stop();
    answer_text answer({marks.begin(), marks.end()});
    utf8_stream characters;
    const auto emit = [&](std::int32_t id) {
      print_now(answer.push(characters.push(tokens_->decode_piece(id, answer.text().empty()))));
      return !answer.ended() && !interrupt_flag::is_set();
    };
    interrupt_flag::clear();
    static_cast<void>(model_->converse(ids, places_, std::min(options_->max_tokens, room), options_->sampling,
                                       stop_, emit));
    print_now(answer.push(characters.finish()));
    print_now(answer.finish());
    print_now(interrupt_flag::is_set() ? " [stopped]\n" : "\n");
    interrupt_flag::clear();
    messages_.push_back({"assistant", answer.text()});
  }

 private:
  session* model_;
  const tokenizer* tokens_;
  chat_template form_;
  const chat_options* options_;
  index_t places_;
  std::vector<std::int32_t> stop_;
  std::vector<chat_message> messages_;
};

chat_template form_of(const chat_options& o, const tokenizer& tokens) {
  if (!o.form.empty()) return chat_template_named(o.form);
  if (tokens.chat_template().empty())
    pesc::detail::raise<format_error>(pesc::detail::concat(
        tokens.name(), ": the model brings no chat template. Name one: --template ", chat_template_names()));
  return chat_template_of(tokens.chat_template(), tokens.name());
}

int chat_command(const chat_options& o) {
  loaded_model<> loaded = open_model(o.model, o.on, o.quiet, {format_named(o.weights, 64)}, o.adapter);
  const opened_tokenizer tokens = open_tokenizer(o.tokenizer, loaded);
  const chat_template form = form_of(o, tokens.text);
  const auto model = make_session(o.on, std::move(loaded), 0);
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (terminal && !o.quiet)
    std::fprintf(stderr,
                 "%s, chat template %s. /clear forgets, /quit or Ctrl-D leaves, Ctrl-C stops an answer.\n",
                 o.model.c_str(), std::string{form.name()}.c_str());
  const interrupt_flag interrupt;
  conversation talk(*model, tokens.text, form, o);
  questions input(terminal);
  while (auto line = input.next()) {
    if (*line == "/quit") break;
    if (*line == "/clear")
      talk.clear();
    else if (!line->empty())
      talk.ask(std::move(*line));
  }
  if (terminal) std::fputc('\n', stdout);
  return done;
}

}  // namespace

command add_chat(CLI::App& program) {
  auto o = std::make_shared<chat_options>();
  CLI::App& app =
      *program.add_subcommand("chat", "Talk with a model: a question a line, answers as they come");
  app.add_option("--model", o->model, "Model folder or file")->required();
  std::vector<std::string> forms(chat_template::names.begin(), chat_template::names.end());
  add_choice(app, "--template", o->form, forms, "How conversations are written (default: as the model says)");
  app.add_option("--system", o->system, "First message, about how to answer");
  add_number<index_t>(app, "--max-tokens", o->max_tokens, 1, 1'000'000, "Most tokens of an answer");
  add_number<index_t>(app, "--context", o->context, 16, 1'000'000,
                      "Most tokens of a conversation; its memory is taken at once");
  add_sampling_options(app, o->sampling);
  add_tokenizer_option(app, o->tokenizer);
  add_adapter_options(app, o->adapter);
  add_weights_option(app, o->weights);
  add_machine_options(app, o->on);
  add_quiet_option(app, o->quiet);
  app.footer("Example: pesc chat --model SmolLM2-135M-Instruct.Q4_1.gguf");
  return [o] { return chat_command(*o); };
}

}  // namespace pesc::tool
