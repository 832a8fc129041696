// Functions that a GPU runs too.
#pragma once

#if defined(__CUDACC__)
#define SKELOPS_HOST_DEVICE __host__ __device__
#else
#define SKELOPS_HOST_DEVICE
#endif
