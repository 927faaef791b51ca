#include "base/hash.h"

#include <openssl/evp.h>

#include "base/check.h"
#include "base/mapped_file.h"

namespace kedge {

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  KEDGE_CHECK(impl_->context != nullptr && EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  KEDGE_CHECK(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}

void Sha256::update(std::string_view text) { update(std::as_bytes(std::span(text))); }

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  KEDGE_CHECK(EVP_DigestFinal_ex(impl_->context, digest.data(), &size) == 1 && size == 32);
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4];
    text += "0123456789abcdef"[digest[i] & 15];
  }
  return text;
}

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  constexpr std::size_t kPart = std::size_t{64} << 20;  // pages already hashed are given back
  const MappedFile file(path);
  Sha256 hash;
  for (std::span<const std::byte> rest = file.bytes(); !rest.empty();) {
    const std::span<const std::byte> part = rest.first(rest.size() < kPart ? rest.size() : kPart);
    hash.update(part);
    file.drop(part);
    rest = rest.subspan(part.size());
  }
  return hash.hex();
}

}  // namespace kedge
