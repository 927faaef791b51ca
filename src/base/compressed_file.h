// Whole data files in, compressed or not: by the name's end gzip (.gz, zlib), xz (.xz, liblzma) or plain.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace kedge {

/// The unpacked bytes. Error(not_found), Error(io); Error(bad_file) for damaged or cut data and above max_bytes
/// unpacked.
std::string read_data_file(const std::filesystem::path& path, std::uint64_t max_bytes = 1ull << 30);

}  // namespace kedge
