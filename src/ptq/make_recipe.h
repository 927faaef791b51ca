// The options of `kedge quantize` as a recipe: words become values, "auto" becomes what it stands for.
#pragma once

#include "kedge/quantize.h"
#include "ptq/recipe.h"

namespace kedge {

/// Error(usage) for an unknown word.
Recipe make_recipe(const QuantizeOptions& options);

}  // namespace kedge
