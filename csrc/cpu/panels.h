// Matrix products as BLAS libraries do them: one operand in panels that a kernel reads front to
// back, blocks of the other's rows, both copied a first-level cache at a time.
#pragma once

#include <algorithm>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"

namespace skelops {

constexpr int64_t kBlockRows = 208 / kAccumulatorRows * kAccumulatorRows;

// A matrix (depth, columns) in panels of two vectors of columns, cut along the depth.
template <typename A>
class Panels {
 public:
  static constexpr int64_t kColumns = 2 * Simd<A>::kLanes;
  static constexpr int64_t kDepth = kPanelRows<A>;  // of a cut

  Panels(int64_t depth, int64_t columns)
      : depth_(depth), columns_(columns), values_(count() * depth * kColumns) {}

  int64_t columns() const { return columns_; }
  int64_t count() const { return (columns_ + kColumns - 1) / kColumns; }
  int64_t cuts() const { return std::max<int64_t>((depth_ + kDepth - 1) / kDepth, 1); }
  int64_t width(int64_t panel) const { return std::min(kColumns, columns_ - panel * kColumns); }
  int64_t size(int64_t cut) const { return std::min(kDepth, depth_ - cut * kDepth); }

  // of a matrix (depth, columns)
  template <typename T>
  void copy(const T* from) {
    parallel(cuts(), [&](int64_t cut) {
      for (int64_t i = cut * kDepth; i < cut * kDepth + size(cut); ++i) {
        for (int64_t p = 0; p < count(); ++p) {
          convert(from + i * columns_ + p * kColumns, at(p, i), width(p));
        }
      }
    });
  }

  // of a matrix (columns, depth)
  template <typename T>
  void copy_transposed(const T* from) {
    parallel(count(), [&](int64_t p) {
      const T* rows = from + p * kColumns * depth_;
      if constexpr (std::is_same_v<A, T>) {
        transpose(rows, width(p), depth_, depth_, at(p, 0), kColumns);
      } else {
        const Scratch<A> converted(width(p) * depth_);
        convert(rows, converted.get(), width(p) * depth_);
        transpose(converted.get(), width(p), depth_, depth_, at(p, 0), kColumns);
      }
    });
  }

  // c (m, columns) = the product of a (m, count) and `count` rows from `begin` on; of p, what says
  // where a and c are and what is added counts.
  void multiply_rows(int64_t begin, int64_t count, Product<A> p) const {
    p.k = count;
    multiply_panels(begin, 0, this->count(), p);
  }

  // c (m, count) = the product of a (m, depth) and `count` columns from `begin` on, that of a
  // panel.
  void multiply_columns(int64_t begin, int64_t count, Product<A> p) const {
    p.k = depth_;
    multiply_panels(0, begin / kColumns, (begin + count + kColumns - 1) / kColumns, p);
  }

  // c (m, columns) (+)= a (m, depth) times the matrix. Every second pass over panels that only
  // just do not stay in cache goes backwards: what was read last is met first.
  void times(int64_t m, const A* a, int64_t a_row, int64_t a_col, A* c, int64_t c_row,
             bool accumulate, bool backwards = false) const {
    for (int64_t i = 0; i < count(); ++i) {
      const int64_t panel = backwards ? count() - 1 - i : i;
      multiply_panels(0, panel, panel + 1,
                      {.m = m,
                       .k = depth_,
                       .a = a,
                       .a_row = a_row,
                       .a_col = a_col,
                       .c = c + panel * kColumns,
                       .c_row = c_row,
                       .accumulate = accumulate});
    }
  }

 private:
  void multiply_panels(int64_t row, int64_t first, int64_t last, Product<A> p) const {
    p.b_row = kColumns;
    for (int64_t panel = first; panel < last; ++panel) {
      p.n = width(panel), p.b = at(panel, row);
      multiply(p);
      p.c += kColumns;
      if (p.init) p.init += kColumns;
    }
  }

  A* at(int64_t panel, int64_t row) const {
    return values_.get() + (panel * depth_ + row) * kColumns;
  }

  int64_t depth_, columns_;
  Scratch<A> values_;
};

// Results of type T that are summed in A: in place where that is T.
template <typename A, typename T>
class Sums {
 public:
  Sums(T* to, int64_t count) : to_(to), count_(count), own_(kInPlace ? 0 : count) {}

  A* get() const {
    if constexpr (kInPlace) {
      return to_;
    } else {
      return own_.get();
    }
  }

  void finish() const {
    if constexpr (!kInPlace) convert(own_.get(), to_, count_);
  }

 private:
  static constexpr bool kInPlace = std::is_same_v<A, T>;
  T* to_;
  int64_t count_;
  Scratch<A> own_;
};

// function(first row, rows) for the blocks, in parallel.
template <typename F>
void for_each_block(int64_t rows, const F& function) {
  parallel((rows + kBlockRows - 1) / kBlockRows, [&](int64_t block) {
    const int64_t row = block * kBlockRows;
    function(row, std::min(kBlockRows, rows - row));
  });
}

// to (rows, columns of `right`) = bias + left right. load(row, rows, first column, columns, stride,
// to) copies a part of the left matrix; where it is read across, to columns.
template <bool kAcross = false, typename A, typename T, typename F>
void product(int64_t rows, const Panels<A>& right, const A* bias, T* to, const F& load) {
  constexpr int64_t kDepth = Panels<A>::kDepth;
  constexpr int64_t kStride = (kAcross ? kBlockRows : kDepth) + Simd<A>::kLanes;
  const int64_t columns = right.columns();
  for_each_block(rows, [&](int64_t row, int64_t count) {
    const Scratch<A> left(kStride * (kAcross ? kDepth : kBlockRows));
    const Sums<A, T> sums(to + row * columns, count * columns);
    for (int64_t cut = 0; cut < right.cuts(); ++cut) {
      load(row, count, cut * kDepth, right.size(cut), kStride, left.get());
      right.multiply_rows(cut * kDepth, right.size(cut),
                          {.m = count,
                           .a = left.get(),
                           .a_row = kAcross ? 1 : kStride,
                           .a_col = kAcross ? kStride : 1,
                           .c = sums.get(),
                           .c_row = columns,
                           .accumulate = cut > 0,
                           .init = bias});
    }
    sums.finish();
  });
}

// Loads of a matrix (rows, width), and of its columns across.
template <typename A, typename T>
auto rows_of(const T* matrix, int64_t width) {
  return [=](int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t stride, A* to) {
    for (int64_t i = 0; i < rows; ++i) {
      convert(matrix + (row + i) * width + column, to + i * stride, columns);
    }
  };
}

template <typename A, typename T>
auto columns_of(const T* matrix, int64_t width) {
  return [=](int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t stride, A* to) {
    rows_of<A>(matrix, width)(column, columns, row, rows, stride, to);
  };
}

// The sum of the rows of a matrix (rows, width).
template <typename A, typename T>
std::vector<A> row_sum(const T* matrix, int64_t rows, int64_t width) {
  const Slices slices(rows);
  Partials<A> sums(slices, width);
  parallel(slices.count, [&](int64_t slice) {
    A* sum = sums.slice(slice);
    for (int64_t i = slices.begin(slice); i < slices.end(slice); ++i) {
      for (int64_t j = 0; j < width; ++j) sum[j] += static_cast<A>(matrix[i * width + j]);
    }
  });
  return sums.total();
}

}  // namespace skelops
