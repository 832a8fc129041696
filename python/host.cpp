// skelops._host: the torch-free C++ of csrc/host, with NumPy in and out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string_view>
#include <utility>
#include <vector>

#include "host/ntu_skeleton.h"

namespace py = pybind11;

namespace {

// An array that owns the vector: nothing is copied.
template <typename T>
py::array_t<T> ToArray(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
  auto* owner = new std::vector<T>(std::move(values));
  const py::capsule release(owner, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(std::move(shape), owner->data(), release);
}

py::tuple ParseNtuSkeleton(const py::bytes& data) {
  const auto text = static_cast<std::string_view>(data);
  skelops::NtuSkeleton file;
  {
    const py::gil_scoped_release unlocked;
    file = skelops::ParseNtuSkeleton(text);
  }
  const auto frames = static_cast<py::ssize_t>(file.bodies.size());
  const auto bodies = static_cast<py::ssize_t>(file.id.size());
  return py::make_tuple(
      ToArray(std::move(file.bodies), {frames}), ToArray(std::move(file.id), {bodies}),
      ToArray(std::move(file.state), {bodies, skelops::kBodyNumbers}),
      ToArray(std::move(file.joints), {bodies, skelops::kJoints, skelops::kJointNumbers}));
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Readers in C++ with the results of their NumPy twins.";
  m.def("parse_ntu_skeleton", &ParseNtuSkeleton, py::arg("data"),
        "Bodies per frame, body ids, body numbers and joints of an NTU RGB+D .skeleton text; see "
        "skelops.data.formats.ntu.parse.");
}
