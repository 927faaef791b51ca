#include "base/compressed_file.h"

#include <lzma.h>
#include <zlib.h>

#include <array>
#include <memory>

#include "base/file.h"
#include "kedge/error.h"

namespace kedge {
namespace {

constexpr std::size_t kChunk = 1 << 16;
// What xz -9 needs to unpack is 65 MiB; a file that asks for more is refused.
constexpr std::uint64_t kXzMemory = 256ull << 20;

[[noreturn]] void damaged(const std::filesystem::path& path, const char* format) {
  throw Error(ErrorCode::bad_file, path.string() + " is damaged or cut", std::string("a complete ") + format + " file",
              "fetch it anew");
}

void append(std::string& out, const char* bytes, std::size_t size, std::uint64_t max_bytes,
            const std::filesystem::path& path) {
  if (out.size() + size > max_bytes) {
    throw Error(ErrorCode::bad_file, path.string() + " unpacks to too much",
                "at most " + std::to_string(max_bytes) + " bytes");
  }
  out.append(bytes, size);
}

std::string gunzip(const std::string& packed, std::uint64_t max_bytes, const std::filesystem::path& path) {
  z_stream stream = {};
  // 16: a gzip header is expected.
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw Error(ErrorCode::io, "zlib gave no memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
  std::array<char, kChunk> buffer;
  std::string out;
  // zlib counts in 32 bits; read_file has bounded the size to 1 GiB.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  for (;;) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    const int status = inflate(&stream, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END) damaged(path, "gzip");
    append(out, buffer.data(), buffer.size() - stream.avail_out, max_bytes, path);
    if (status != Z_STREAM_END) continue;
    if (stream.avail_in == 0) return out;
    if (inflateReset(&stream) != Z_OK) damaged(path, "gzip");  // another member follows
  }
}

std::string unxz(const std::string& packed, std::uint64_t max_bytes, const std::filesystem::path& path) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (lzma_stream_decoder(&stream, kXzMemory, LZMA_CONCATENATED) != LZMA_OK) {
    throw Error(ErrorCode::io, "liblzma gave no memory");
  }
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> end(&stream, lzma_end);
  std::array<char, kChunk> buffer;
  std::string out;
  stream.next_in = reinterpret_cast<const std::uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  for (;;) {
    stream.next_out = reinterpret_cast<std::uint8_t*>(buffer.data());
    stream.avail_out = buffer.size();
    const lzma_ret status = lzma_code(&stream, LZMA_FINISH);
    if (status != LZMA_OK && status != LZMA_STREAM_END) damaged(path, "xz");
    append(out, buffer.data(), buffer.size() - stream.avail_out, max_bytes, path);
    if (status == LZMA_STREAM_END) return out;
  }
}

}  // namespace

std::string read_data_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  const std::string ending = path.extension().string();
  if (ending == ".gz") return gunzip(read_file(path), max_bytes, path);
  if (ending == ".xz") return unxz(read_file(path), max_bytes, path);
  return read_file(path, max_bytes);
}

}  // namespace kedge
