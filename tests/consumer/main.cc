#include <kedge/error.h>
#include <kedge/quantize.h>

#include <iostream>

int main() {
  try {
    kedge::QuantizeOptions options;
    options.source = "no/such/model";
    options.dry_run = true;
    kedge::quantize(options);
  } catch (const kedge::Error& error) {
    std::cout << error.exit_code() << "\n";
  }
}
