#include "cli/cli.h"

int main(int argc, char** argv) { return kedge::cli::run(argc, argv); }
