#include "io/wire/name_pattern.h"

#include <string>

namespace kedge {

// Recursive descent; each construct becomes a fragment with one entry and one dangling exit (an `accept` state that
// is later turned into whatever follows).
class NamePatternCompiler {
 public:
  explicit NamePatternCompiler(std::string_view pattern) : pattern_(pattern) {}

  std::optional<NamePattern> compile() {
    const Fragment whole = alternatives(0);
    if (failed_ || at_ != pattern_.size()) return std::nullopt;
    automaton_.start_ = whole.begin;
    return std::move(automaton_);
  }

 private:
  using Kind = NamePattern::Kind;
  struct Fragment {
    int begin, end;  // end: an accept state
  };
  struct Repeat {
    int min, max;  // max -1: no limit
  };
  static constexpr std::size_t kMaxStates = 2'000;
  static constexpr int kMaxDepth = 50;
  static constexpr int kMaxCount = 1000;

  bool done() const { return failed_ || at_ >= pattern_.size(); }
  char peek() const { return pattern_[at_]; }
  bool take(char c) {
    if (done() || peek() != c) return false;
    ++at_;
    return true;
  }

  int add(Kind kind) {
    if (automaton_.states_.size() >= kMaxStates) {
      failed_ = true;
      return 0;
    }
    automaton_.states_.push_back({kind, {}, -1, -1});
    return static_cast<int>(automaton_.states_.size()) - 1;
  }
  NamePattern::State& state(int i) { return automaton_.states_[static_cast<std::size_t>(i)]; }

  void join(int exit, int next) {
    state(exit).kind = Kind::split;  // with one way only
    state(exit).next = next;
  }
  Fragment empty() {
    const int only = add(Kind::accept);
    return {only, only};
  }
  Fragment simple(Kind kind, const std::bitset<256>& chars = {}) {
    const int begin = add(kind), end = add(Kind::accept);
    if (failed_) return {0, 0};
    state(begin).chars = chars;
    state(begin).next = end;
    return {begin, end};
  }

  Fragment alternatives(int depth) {
    Fragment left = sequence(depth);
    while (!failed_ && take('|')) {
      const Fragment right = sequence(depth);
      const int fork = add(Kind::split), end = add(Kind::accept);
      if (failed_) break;
      state(fork).next = left.begin;
      state(fork).other = right.begin;
      join(left.end, end);
      join(right.end, end);
      left = {fork, end};
    }
    return left;
  }

  Fragment sequence(int depth) {
    Fragment whole = empty();
    while (!done() && peek() != '|' && peek() != ')') {
      const std::size_t begin = at_;
      Fragment item = atom(depth);
      if (failed_) break;
      const Repeat repeat = repetition();
      if (failed_) break;
      if (repeat.min != 1 || repeat.max != 1) item = repeated(item, repeat, begin, depth);
      if (failed_) break;
      join(whole.end, item.begin);
      whole.end = item.end;
    }
    return whole;
  }

  Repeat repetition() {
    Repeat repeat{1, 1};
    if (take('?')) {
      repeat = {0, 1};
    } else if (take('*')) {
      repeat = {0, -1};
    } else if (take('+')) {
      repeat = {1, -1};
    } else if (take('{')) {
      repeat.min = number();
      repeat.max = repeat.min;
      if (take(',')) repeat.max = !done() && peek() == '}' ? -1 : number();
      if (!take('}') || (repeat.max >= 0 && repeat.max < repeat.min)) failed_ = true;
    } else {
      return repeat;
    }
    take('?');  // lazy: the same names match
    if (!done() && (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{')) failed_ = true;
    return repeat;
  }

  int number() {
    int value = 0;
    bool any = false;
    while (!done() && peek() >= '0' && peek() <= '9' && value <= kMaxCount) {
      value = value * 10 + (pattern_[at_++] - '0');
      any = true;
    }
    if (!any || value > kMaxCount) failed_ = true;
    return value;
  }

  /// The atom's text is compiled again for every copy; `first` serves as the first one.
  Fragment repeated(Fragment first, Repeat repeat, std::size_t atom_begin, int depth) {
    const std::size_t resume = at_;
    const auto copy = [&] {
      if (first.begin >= 0) {
        const Fragment out = first;
        first = {-1, -1};
        return out;
      }
      at_ = atom_begin;
      return atom(depth);
    };
    Fragment whole = empty();
    for (int i = 0; i < repeat.min && !failed_; ++i) append(whole, copy());
    if (repeat.max < 0) {
      const Fragment body = copy();
      const int fork = add(Kind::split), end = add(Kind::accept);
      if (!failed_) {
        state(fork).next = body.begin;
        state(fork).other = end;
        join(body.end, fork);
        append(whole, {fork, end});
      }
    }
    for (int i = repeat.min; i < repeat.max && !failed_; ++i) {
      const Fragment body = copy();
      const int fork = add(Kind::split), end = add(Kind::accept);
      if (failed_) break;
      state(fork).next = body.begin;
      state(fork).other = end;
      join(body.end, end);
      append(whole, {fork, end});
    }
    at_ = resume;
    return whole;
  }
  void append(Fragment& whole, Fragment next) {
    if (failed_) return;
    join(whole.end, next.begin);
    whole.end = next.end;
  }

  Fragment atom(int depth) {
    const char c = pattern_[at_++];
    switch (c) {
      case '(': return group(depth);
      case '[': return char_class();
      case '.': {
        std::bitset<256> any;
        any.set();
        any.reset('\n');
        return simple(Kind::chars, any);
      }
      case '^': return simple(Kind::begin);
      case '$': return simple(Kind::end);
      case '\\': return simple(Kind::chars, escape());
      case '*':
      case '+':
      case '?':
      case '{': failed_ = true; return {0, 0};
      default: return simple(Kind::chars, one(c));
    }
  }

  Fragment group(int depth) {
    if (depth >= kMaxDepth) failed_ = true;
    if (take('?') && !take(':')) failed_ = true;
    if (failed_) return {0, 0};
    const Fragment inner = alternatives(depth + 1);
    if (!take(')')) failed_ = true;
    return inner;
  }

  static std::bitset<256> one(char c) {
    std::bitset<256> set;
    set.set(static_cast<unsigned char>(c));
    return set;
  }
  static void add_range(std::bitset<256>& set, unsigned char first, unsigned char last) {
    for (int c = first; c <= last; ++c) set.set(static_cast<std::size_t>(c));
  }

  std::bitset<256> escape() {
    std::bitset<256> set;
    if (done()) {
      failed_ = true;
      return set;
    }
    const char c = pattern_[at_++];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter) return one(c);
    const char kind = static_cast<char>(c | 0x20);
    if (kind == 'd' || kind == 'w') add_range(set, '0', '9');
    if (kind == 'w') {
      add_range(set, 'a', 'z');
      add_range(set, 'A', 'Z');
      set.set('_');
    }
    if (kind == 's') {
      for (const char space : std::string_view(" \t\n\r\f\v")) set.set(static_cast<unsigned char>(space));
    }
    if (set.none()) failed_ = true;
    return c == kind ? set : ~set;
  }

  Fragment char_class() {
    std::bitset<256> set;
    const bool negated = take('^');
    bool first = true;
    while (!done() && (first || peek() != ']')) {
      first = false;
      const char c = pattern_[at_++];
      if (c == '\\') {
        set |= escape();
      } else if (at_ + 1 < pattern_.size() && peek() == '-' && pattern_[at_ + 1] != ']') {
        const char last = pattern_[at_ + 1];
        at_ += 2;
        if (last == '\\' || static_cast<unsigned char>(last) < static_cast<unsigned char>(c)) failed_ = true;
        add_range(set, static_cast<unsigned char>(c), static_cast<unsigned char>(last));
      } else {
        set |= one(c);
      }
    }
    if (!take(']')) failed_ = true;
    return simple(Kind::chars, negated ? ~set : set);
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  bool failed_ = false;
  NamePattern automaton_;
};

std::optional<NamePattern> NamePattern::compile(std::string_view pattern) {
  return NamePatternCompiler(pattern).compile();
}

bool NamePattern::matches_prefix(std::string_view name) const {
  std::vector<int> current, following, pending;
  std::vector<std::size_t> seen(states_.size(), 0);  // position + 1 at which a state was last reached
  following.push_back(start_);
  for (std::size_t at = 0;; ++at) {
    // Everything that needs no character.
    current.clear();
    pending.swap(following);
    following.clear();
    while (!pending.empty()) {
      const int i = pending.back();
      pending.pop_back();
      if (i < 0 || seen[static_cast<std::size_t>(i)] == at + 1) continue;
      seen[static_cast<std::size_t>(i)] = at + 1;
      const State& state = states_[static_cast<std::size_t>(i)];
      if (state.kind == Kind::accept) return true;
      if (state.kind == Kind::chars) current.push_back(i);
      if (state.kind == Kind::split || (state.kind == Kind::begin && at == 0) ||
          (state.kind == Kind::end && at == name.size())) {
        pending.push_back(state.next);
        pending.push_back(state.other);
      }
    }
    if (at == name.size() || current.empty()) return false;
    for (const int i : current) {
      const State& state = states_[static_cast<std::size_t>(i)];
      if (state.chars.test(static_cast<unsigned char>(name[at]))) following.push_back(state.next);
    }
  }
}

}  // namespace kedge
