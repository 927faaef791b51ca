// A file that is part of the program (cmake/KedgeEmbed.cmake).
#pragma once

#include <span>
#include <string_view>

namespace kedge {

struct EmbeddedFile {
  std::string_view name;  ///< without folders
  std::string_view bytes;
};

}  // namespace kedge
