// Link-time stand-in for libtorch_cuda: the same soname and the symbols that csrc/cuda uses. Where
// torch has CUDA the real library answers; here every call reports failure.
#include <cstdint>

#define SKELOPS_STUB extern "C" __attribute__((visibility("default")))

SKELOPS_STUB int32_t aoti_torch_get_current_cuda_stream(int32_t, void**) { return 1; }

SKELOPS_STUB int32_t torch_c10_cuda_check_msg(int32_t, const char*, const char*, uint32_t, bool,
                                              char**) {
  return 1;
}

SKELOPS_STUB void torch_c10_cuda_free_error_msg(char*) {}
