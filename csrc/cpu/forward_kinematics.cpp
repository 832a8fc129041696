// forward_kinematics: origins and rotations of all frames of a tree.
#include "cpu/rigid_body.h"

namespace skelops {
namespace {

constexpr const char* kOp = "forward_kinematics";
constexpr int kRotation = 9;

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& offset, const Tensor& axis,
                                   const Ints& parent, const Ints& joint) {
  using A = Accumulate<T>;
  const TreeTables<A> tables(kOp, std::nullopt, offset, axis, parent, joint);
  const TreeView<A> tree = tables.view();
  const int64_t n = tree.size, frames = q.size(0);
  const FrameRows<T> q_rows(kOp, q, frames, n);
  Tensor pos = new_tensor<T>(q, {frames, n, 3}), rot = new_tensor<T>(q, {frames, n, 3, 3});
  const Slices slices(registers<A>(frames));
  over_frames<A>(frames, slices, (1 + 2 * kFrameSlots) * n, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const pos_out = q_in + n,
                   *const rot_out = pos_out + 3 * n;
    const Memory<Lanes<A>, false> frame{rot_out + kRotation * n, 1};
    q_rows.load(block, q_in);
    forward_kinematics(tree, q_in, frame);
    for (int64_t i = 0; i < n; ++i) {
      for (int c = 0; c < 3; ++c) {
        pos_out[3 * i + c] = frame[i * kFrameSlots + kRotation + c];
        for (int r = 0; r < 3; ++r) {
          rot_out[kRotation * i + 3 * r + c] = frame[i * kFrameSlots + 3 * c + r];
        }
      }
    }
    store_rows<T>(block, pos_out, 3 * n, pos);
    store_rows<T>(block, rot_out, kRotation * n, rot);
  });
  return {pos, rot};
}

template <typename T>
Tensor backward(const Tensor& grad_pos, const Tensor& grad_rot, const Tensor& q,
                const Tensor& offset, const Tensor& axis, const Ints& parent, const Ints& joint) {
  using A = Accumulate<T>;
  const TreeTables<A> tables(kOp, std::nullopt, offset, axis, parent, joint);
  const TreeView<A> tree = tables.view();
  const int64_t n = tree.size, frames = q.size(0);
  const FrameRows<T> q_rows(kOp, q, frames, n), pos_rows(kOp, grad_pos, frames, 3 * n);
  const FrameRows<T> rot_rows(kOp, grad_rot, frames, kRotation * n);
  Tensor dq = new_tensor<T>(q, {frames, n});
  const Slices slices(registers<A>(frames));
  over_frames<A>(frames, slices, (2 + 3 * kFrameSlots) * n, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const out = q_in + n, *const pos_in = out + n;
    Lanes<A>* const rot_in = pos_in + 3 * n;
    const Memory<Lanes<A>, false> frame{rot_in + kRotation * n, 1};
    const Memory<Lanes<A>, false> grad = frame.from(kFrameSlots * n);
    q_rows.load(block, q_in), pos_rows.load(block, pos_in), rot_rows.load(block, rot_in);
    for (int64_t i = 0; i < n; ++i) {
      for (int c = 0; c < 3; ++c) {
        grad[i * kFrameSlots + kRotation + c] = pos_in[3 * i + c];
        for (int r = 0; r < 3; ++r) {
          grad[i * kFrameSlots + 3 * c + r] = rot_in[kRotation * i + 3 * r + c];
        }
      }
    }
    forward_kinematics(tree, q_in, frame);
    forward_kinematics_backward(tree, q_in, frame, grad, out);
    store_rows<T>(block, out, n, dq);
  });
  return dq;
}

std::tuple<Tensor, Tensor> forward_kinematics_cpu(Tensor q, Tensor offset, Tensor axis, Ints parent,
                                                  Ints joint) {
  return dispatch(
      q, kOp, [&](auto type) { return forward<decltype(type)>(q, offset, axis, parent, joint); });
}

Tensor forward_kinematics_backward_cpu(Tensor grad_pos, Tensor grad_rot, Tensor q, Tensor offset,
                                       Tensor axis, Ints parent, Ints joint, int64_t) {
  return dispatch(q, kOp, [&](auto type) {
    return backward<decltype(type)>(grad_pos, grad_rot, q, offset, axis, parent, joint);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("forward_kinematics", TORCH_BOX(&forward_kinematics_cpu));
  m.impl("forward_kinematics_backward", TORCH_BOX(&forward_kinematics_backward_cpu));
}

}  // namespace skelops
