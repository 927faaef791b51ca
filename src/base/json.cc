#include "base/json.h"

#include <cstdint>
#include <limits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/file.h"
#include "kedge/error.h"

namespace kedge {
namespace {

using Members = Json::object_t;
using MemberVector = Members::Container;

// From this many keys on, duplicates are looked up in a set instead of one by one.
constexpr std::size_t kManyKeys = 16;

// Builds the value itself: nlohmann's own builder looks through all earlier keys at each insertion into an
// ordered object (quadratic; a vocabulary has 150,000 keys) and lets the last duplicate win.
class Builder {
 public:
  Builder(const std::string& where, int max_depth) : where_(where), max_depth_(max_depth) {}

  Json take() { return std::move(root_); }

  bool null() { return add(Json()), true; }
  bool boolean(bool value) { return add(value), true; }
  bool number_integer(Json::number_integer_t value) { return add(value), true; }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value), true; }
  bool number_float(Json::number_float_t value, const std::string&) { return add(value), true; }
  bool string(std::string& value) { return add(std::move(value)), true; }
  bool binary(Json::binary_t&) { return false; }

  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return stack_.pop_back(), true; }
  bool end_array() { return stack_.pop_back(), true; }

  bool key(std::string& name) {
    Level& level = stack_.back();
    MemberVector& members = level.value->get_ref<Members&>();
    bool seen = false;
    if (members.size() < kManyKeys) {
      for (const auto& member : members) seen = seen || member.first == name;
    } else {
      if (level.keys.empty()) {
        for (const auto& member : members) level.keys.insert(member.first);
      }
      seen = level.keys.contains(name);
    }
    if (seen) throw Error(ErrorCode::bad_file, where_ + " has the key " + quoted(name) + " twice", "each key once");
    if (members.size() >= kManyKeys) level.keys.insert(name);
    members.emplace_back(std::move(name), Json());
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
    std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, ..."
    const std::size_t end = reason.find("] ");
    if (end != std::string::npos) reason.erase(0, end + 2);
    throw Error(ErrorCode::bad_file,
                where_ + " is not valid JSON at byte " + std::to_string(position) + " (" + printable(reason) + ")");
  }

 private:
  struct Level {
    Json* value;  // stays in place while it is open: its parent does not grow meanwhile
    std::unordered_set<std::string> keys;
  };

  static std::string printable(const std::string& text) {
    constexpr std::size_t kLongest = 160;
    std::string clean;
    for (char c : text.substr(0, kLongest)) clean += c >= 0x20 && c < 0x7f ? c : '?';
    return text.size() > kLongest ? clean + "..." : clean;
  }
  static std::string quoted(const std::string& text) { return "\"" + printable(text) + "\""; }

  Json* add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back().value;
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    MemberVector& members = parent.get_ref<Members&>();
    members.back().second = std::move(value);
    return &members.back().second;
  }

  bool open(Json value) {
    if (stack_.size() >= static_cast<std::size_t>(max_depth_)) {
      throw Error(ErrorCode::bad_file, where_ + " nests too deeply",
                  "at most " + std::to_string(max_depth_) + " levels");
    }
    stack_.push_back({add(std::move(value)), {}});
    return true;
  }

  const std::string& where_;
  int max_depth_;
  Json root_;
  std::vector<Level> stack_;
};

const Json* find(const Json& object, const char* key, const std::string& where) {
  if (!object.is_object()) {
    throw Error(ErrorCode::bad_file, where + " is no JSON object", "an object with \"" + std::string(key) + "\"");
  }
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

[[noreturn]] void wrong_type(const char* key, const std::string& where, const char* expected) {
  throw Error(ErrorCode::bad_file, "\"" + std::string(key) + "\" in " + where + " has the wrong type", expected);
}

template <class T>
T convert(const Json& value, const char* key, const std::string& where);

template <>
bool convert<bool>(const Json& value, const char* key, const std::string& where) {
  if (!value.is_boolean()) wrong_type(key, where, "true or false");
  return value.get<bool>();
}

template <>
std::int64_t convert<std::int64_t>(const Json& value, const char* key, const std::string& where) {
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > kMax)) {
    wrong_type(key, where, "an integer of 64 bits");
  }
  return value.get<std::int64_t>();
}

template <>
double convert<double>(const Json& value, const char* key, const std::string& where) {
  if (!value.is_number()) wrong_type(key, where, "a number");
  return value.get<double>();
}

template <>
std::string convert<std::string>(const Json& value, const char* key, const std::string& where) {
  if (!value.is_string()) wrong_type(key, where, "a string");
  return value.get<std::string>();
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, int max_depth) {
  // nlohmann takes a NUL for the end of the text.
  if (text.find('\0') != std::string_view::npos) {
    throw Error(ErrorCode::bad_file, where + " has a NUL byte", "JSON text");
  }
  Builder builder(where, max_depth);
  Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, /*strict=*/true);
  return builder.take();
}

Json read_json(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

template <class T>
T json_get(const Json& object, const char* key, const std::string& where) {
  const Json* value = find(object, key, where);
  if (value == nullptr) throw Error(ErrorCode::bad_file, where + " has no \"" + std::string(key) + "\"");
  return convert<T>(*value, key, where);
}

template <class T>
T json_get_or(const Json& object, const char* key, T fallback, const std::string& where) {
  const Json* value = find(object, key, where);
  return value == nullptr || value->is_null() ? std::move(fallback) : convert<T>(*value, key, where);
}

template bool json_get<bool>(const Json&, const char*, const std::string&);
template std::int64_t json_get<std::int64_t>(const Json&, const char*, const std::string&);
template double json_get<double>(const Json&, const char*, const std::string&);
template std::string json_get<std::string>(const Json&, const char*, const std::string&);
template bool json_get_or<bool>(const Json&, const char*, bool, const std::string&);
template std::int64_t json_get_or<std::int64_t>(const Json&, const char*, std::int64_t, const std::string&);
template double json_get_or<double>(const Json&, const char*, double, const std::string&);
template std::string json_get_or<std::string>(const Json&, const char*, std::string, const std::string&);

}  // namespace kedge
