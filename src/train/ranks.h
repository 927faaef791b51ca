// Data-parallel steps: each rank computes the gradient of its sequences, and all move by the mean of them.
#pragma once

#include "comm/communicator.h"
#include "twin/tensor.h"

namespace kedge::training {

/// Each element becomes the sum over the ranks, in their order, everywhere. Contiguous; on a device it goes by the host.
void sum_over_ranks(Communicator& ranks, const at::Tensor& tensor);
/// The same of a number.
double sum_over_ranks(Communicator& ranks, double value);

}  // namespace kedge::training
