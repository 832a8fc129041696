// Memory-safety checks of the C++ kernels, in the wording of the Python ones.
#pragma once

#include <torch/headeronly/util/Exception.h>

#define SKELOPS_CHECK(condition, op, expected) \
  STD_TORCH_CHECK(condition, op, ": expected ", expected, ", got something else")
