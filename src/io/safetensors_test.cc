#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/hash.h"
#include "io/test_files.h"

namespace kedge {
namespace {

namespace fs = std::filesystem;

struct Broken {
  const char* error;
  std::string file;
};

std::string tensor(const char* fields, std::size_t data_bytes) {
  return raw_safetensors(std::string("{\"a\":{") + fields + "}}", data_bytes);
}

std::string shape_of_rank(int rank) {
  std::string shape = "1";
  for (int i = 1; i < rank; ++i) shape += ",1";
  return "\"dtype\":\"U8\",\"shape\":[" + shape + "],\"data_offsets\":[0,1]";
}

std::vector<Broken> broken_files() {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  std::string huge_length = raw_safetensors("{}", 0);
  huge_length.replace(0, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8));
  std::string long_header = raw_safetensors("{}", 0);
  long_header[0] = 100;
  return {
      {"only 0 bytes", ""},
      {"only 7 bytes", std::string(7, '\0')},
      {"at most 100000000", huge_length},
      {"more than the file has", long_header},
      {"does not begin with", raw_safetensors("", 0)},
      {"does not begin with", raw_safetensors(" {}", 0)},
      {"does not begin with", raw_safetensors("[]", 0)},
      {"zero byte", raw_safetensors(std::string_view("{}\0\0", 4), 0)},
      {"not valid JSON", raw_safetensors("{\"a\":", 0)},
      {"not valid JSON", raw_safetensors("{} x", 0)},
      {"not valid JSON", raw_safetensors("{\"\xff\":1}", 0)},
      {"nests too deeply", raw_safetensors("{\"a\":{\"shape\":[[1]]}}", 0)},
      {"is no object", raw_safetensors("{\"a\":3}", 0)},
      {"the key", raw_safetensors("{\"a\":{" + good + "},\"a\":{" + good + "}}", 8)},
      {"the key", raw_safetensors("{\"a\":{" + good + "},\"\\u0061\":{" + good + "}}", 8)},
      {"the key", tensor(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])", 1)},
      {"incomplete", tensor(R"("dtype":"U8","shape":[1])", 1)},
      {"unknown field", tensor((good + ",\"x\":1").c_str(), 8)},
      {"unknown dtype", tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,1])", 1)},
      {"dtype of", tensor(R"("dtype":4,"shape":[1],"data_offsets":[0,1])", 1)},
      {"is no list", tensor(R"("dtype":"U8","shape":1,"data_offsets":[0,1])", 1)},
      {"whole numbers", tensor(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])", 1)},
      {"whole numbers", tensor(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])", 1)},
      {"whole numbers", tensor(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])", 1)},
      {"whole numbers", tensor(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1])", 1)},
      {"too large", tensor(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0)},
      {"too large", tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])", 0)},
      {"too large", tensor(R"("dtype":"U8","shape":[0,9223372036854775807,3],"data_offsets":[0,0])", 0)},
      {"at most 8", tensor(shape_of_rank(9).c_str(), 1)},
      {"no pair", tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0])", 1)},
      {"no pair", tensor(R"("dtype":"U8","shape":[1],"data_offsets":3)", 1)},
      {"ends before it begins", tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])", 1)},
      {"expected 8", tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,7])", 7)},
      {"whole bytes", tensor(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])", 2)},
      {"cut off", tensor(good.c_str(), 7)},
      {"follow the last tensor", tensor(good.c_str(), 9)},
      {"follow the last tensor", raw_safetensors("{}", 1)},
      {"hole", tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])", 2)},
      {"overlaps", raw_safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                   R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                                   3)},
      {"overlaps", raw_safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                   R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                                   2)},
      {"__metadata__ is no object", raw_safetensors(R"({"__metadata__":[]})", 0)},
      {"something else than strings", raw_safetensors(R"({"__metadata__":{"a":1}})", 0)},
      {"too long", raw_safetensors("{\"" + std::string(5000, 'n') + "\":{" + good + "}}", 8)},
  };
}

TEST(Safetensors, NamesWhatIsBroken) {
  for (const Broken& broken : broken_files()) {
    SCOPED_TRACE(broken.error);
    expect_error(ErrorCode::bad_file, broken.error, [&] { parse_safetensors(broken.file, "test.safetensors"); });
    expect_error(ErrorCode::bad_file, "test.safetensors", [&] { parse_safetensors(broken.file, "test.safetensors"); });
  }
}

TEST(Safetensors, EveryTruncationIsAnError) {
  const std::string file = raw_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )", 8);
  parse_safetensors(file, "whole");
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_THROW(parse_safetensors(std::string_view(file).substr(0, size), "cut"), Error) << size;
  }
}

TEST(Safetensors, ReadsWhatTheFormatAllows) {
  const std::string file =
      raw_safetensors(R"({"__metadata__":{"format":"pt"},"scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                      R"("b":{"dtype":"F4","shape":[3,2],"data_offsets":[4,7]},)"
                      R"("empty":{"dtype":"BF16","shape":[0,4],"data_offsets":[7,7]},)"
                      R"("a":{"dtype":"BOOL","shape":[1],"data_offsets":[7,8]}}   )",
                      8);
  const SafetensorsHeader header = parse_safetensors(file, "ok");
  ASSERT_EQ(header.tensors.size(), 4u);
  EXPECT_EQ(header.tensors[0].name, "scalar");
  EXPECT_EQ(header.tensors[1].dtype, DType::f4);
  EXPECT_EQ(header.tensors[2].name, "empty");
  EXPECT_EQ(header.tensors[2].shape, (Shape{0, 4}));
  EXPECT_EQ(header.tensors[3].name, "a");
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_TRUE(parse_safetensors(raw_safetensors("{}", 0), "nothing").tensors.empty());
}

TEST(Safetensors, ManyTensorsAreQuick) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i) {
    header += (i ? ",\"t" : "\"t") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  EXPECT_EQ(parse_safetensors(raw_safetensors(header + "}", 0), "many").tensors.size(), 100'000u);
}

Tensor filled(DType dtype, Shape shape, int first) {
  Tensor tensor(dtype, std::move(shape));
  for (std::size_t i = 0; i < tensor.num_bytes(); ++i)
    tensor.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(first + static_cast<int>(i));
  return tensor;
}

TEST(SafetensorsWriter, RoundTrips) {
  const TempFolder folder;
  std::map<std::string, Tensor> tensors;
  tensors.emplace("z.bf16", filled(DType::bf16, {3, 5}, 1));
  tensors.emplace("a.u8", filled(DType::u8, {7}, 2));
  tensors.emplace("m.i64", filled(DType::i64, {2}, 3));
  tensors.emplace("q\"uote\\\n\xc3\xa9", filled(DType::f32, {}, 4));
  tensors.emplace("empty", filled(DType::f32, {0, 3}, 5));
  write_safetensors(folder / "t.safetensors", tensors, {{"format", "pt"}});

  const SafetensorsFile file(folder / "t.safetensors");
  EXPECT_EQ(file.header().metadata.at("format"), "pt");
  EXPECT_EQ(file.header().data_begin % 8, 0u);
  EXPECT_EQ(file.header().tensors.size(), tensors.size());
  EXPECT_EQ(file.header().tensors.front().name, "m.i64");  // widest first
  EXPECT_EQ(file.header().tensors.back().name, "a.u8");
  for (const auto& [name, tensor] : tensors) {
    const TensorView view = file.tensor(name);
    EXPECT_EQ(view.dtype, tensor.dtype());
    EXPECT_EQ(view.shape, tensor.shape());
    EXPECT_TRUE(std::equal(view.data, view.data + view.num_bytes(), tensor.data<std::byte>()));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.data) % static_cast<std::size_t>(dtype_bits(view.dtype) / 8), 0u);
    file.drop(name);
    EXPECT_TRUE(std::equal(view.data, view.data + view.num_bytes(), tensor.data<std::byte>()));
  }
  file.drop("not there");
  expect_error(ErrorCode::not_found, "no tensor \"x\"", [&] { file.tensor("x"); });
}

TEST(SafetensorsWriter, HashIsThatOfTheFile) {
  const TempFolder folder;
  SafetensorsWriter writer(folder / "t.safetensors", {{"a", DType::u8, {3}}});
  writer.write("a", "abc", 3);
  writer.finish();
  EXPECT_EQ(writer.sha256(), sha256_file(folder / "t.safetensors"));
}

TEST(SafetensorsWriter, LeavesNothingWhenNotFinished) {
  const TempFolder folder;
  {
    SafetensorsWriter writer(folder / "t.safetensors", {{"a", DType::u8, {3}}});
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(SafetensorsWriter, RefusesNamesThatCannotBeStored) {
  const TempFolder folder;
  expect_error(ErrorCode::bad_file, "written twice",
               [&] { SafetensorsWriter(folder / "t", {{"a", DType::u8, {1}}, {"a", DType::u8, {1}}}); });
  expect_error(ErrorCode::bad_file, "UTF-8", [&] { SafetensorsWriter(folder / "t", {{"\xff", DType::u8, {1}}}); });
  expect_error(ErrorCode::bad_file, "cannot be named",
               [&] { SafetensorsWriter(folder / "t", {{"__metadata__", DType::u8, {1}}}); });
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(SafetensorsFile, MissingFileAndFolder) {
  const TempFolder folder;
  expect_error(ErrorCode::not_found, "nothing.safetensors", [&] { SafetensorsFile(folder / "nothing.safetensors"); });
  expect_error(ErrorCode::io, "regular file", [&] { SafetensorsFile{folder.path()}; });
  folder.write("empty.safetensors", "");
  expect_error(ErrorCode::bad_file, "only 0 bytes", [&] { SafetensorsFile(folder / "empty.safetensors"); });
}

}  // namespace
}  // namespace kedge
