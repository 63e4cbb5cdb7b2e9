// The factors of convolution as a matrix product, and of its two gradients, for gemm.cuh. x (N, I, H, W), w (O, I/g, R, S)
// and y (N, O, P, Q) are contiguous, and y_{n, o, i, j} meets x_{n, c, i stride + r dilation - top, j stride + ... - left}.
struct Geometry {
  int N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups;
};

#define GEOMETRY_PARAMETERS int N, int I, int H, int W, int O, int P, int Q, int R, int S, int stride_h, int stride_w, \
  int top, int left, int dilation_h, int dilation_w, int groups
#define GEOMETRY Geometry{N, I, H, W, O, P, Q, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups}

constexpr int FAR = 1 << 29;   // more than any image's side: what is so far off is outside

// Windows of x: row m is the output pixel (n, i, j), column k the tap (c, r, s). Neighbouring pixels are neighbours in
// memory where the stride is 1.
template <class T> struct Windows {
  typedef T Number;
  static constexpr Order ORDER = ALONG_ROWS;
  struct Row { const T* at; int row, col; };       // the window's corner
  struct Column { int offset, row, col; };         // a tap relative to it
  const T* x; Geometry g; int group, channels; Divider area, width, taps, side;
  __device__ __forceinline__ Windows(const T* x, const Geometry& g, int group)
      : x(x), g(g), group(group), channels(g.I / g.groups), area(g.P * g.Q), width(g.Q), taps(g.R * g.S), side(g.S) {}
  __device__ __forceinline__ Row row(int m) const {
    if (m >= g.N * area.divisor) return {x, -2 * FAR, 0};
    int n = area.of(m), p = m - n * area.divisor, i = width.of(p), j = p - i * g.Q;
    int row = i * g.stride_h - g.top, col = j * g.stride_w - g.left;
    return {x + ((long long)n * g.I + group * channels) * g.H * g.W + (row * g.W + col), row, col};
  }
  __device__ __forceinline__ Column column(int k) const {
    if (k >= channels * taps.divisor) return {0, FAR, 0};
    int c = taps.of(k), tap = k - c * taps.divisor, r = side.of(tap), s = tap - r * g.S;
    int row = r * g.dilation_h, col = s * g.dilation_w;
    return {(c * g.H + row) * g.W + col, row, col};
  }
  __device__ __forceinline__ T at(const Row& m, const Column& k) const {
    bool inside = (unsigned)(m.row + k.row) < (unsigned)g.H && (unsigned)(m.col + k.col) < (unsigned)g.W;
    return inside ? m.at[k.offset] : zero<T>();
  }
};

// The same matrix turned over: rows are taps, columns the pixels first .. last - 1.
template <class T> struct Taps {
  typedef T Number;
  static constexpr Order ORDER = ALONG_COLUMNS;
  typedef typename Windows<T>::Column Row;
  typedef typename Windows<T>::Row Column;
  Windows<T> windows; int first, last;
  __device__ __forceinline__ Row row(int tap) const { return windows.column(tap); }
  __device__ __forceinline__ Column column(int p) const {
    return windows.row(first + p < last ? first + p : windows.g.N * windows.area.divisor);
  }
  __device__ __forceinline__ T at(const Row& tap, const Column& pixel) const { return windows.at(pixel, tap); }
};

// The outputs that an input pixel (row m = (n, row, col)) reaches, by tap (o, r, s): windows of the transposed sum.
template <class T> struct Reached {
  typedef T Number;
  static constexpr Order ORDER = ALONG_ROWS;
  struct Row { const T* at; int row, col; };
  struct Column { int offset, row, col; };
  const T* y; Geometry g; int group, channels; Divider area, width, taps, side, down, right;
  __device__ __forceinline__ Reached(const T* y, const Geometry& g, int group)
      : y(y), g(g), group(group), channels(g.O / g.groups), area(g.H * g.W), width(g.W), taps(g.R * g.S), side(g.S),
        down(g.stride_h), right(g.stride_w) {}
  __device__ __forceinline__ Row row(int m) const {
    if (m >= g.N * area.divisor) return {y, -2 * FAR, 0};
    int n = area.of(m), p = m - n * area.divisor, i = width.of(p);
    return {y + ((long long)n * g.O + group * channels) * g.P * g.Q, i + g.top, p - i * g.W + g.left};
  }
  __device__ __forceinline__ Column column(int k) const {
    if (k >= channels * taps.divisor) return {0, FAR, 0};
    int o = taps.of(k), tap = k - o * taps.divisor, r = side.of(tap), s = tap - r * g.S;
    return {o * g.P * g.Q, r * g.dilation_h, s * g.dilation_w};
  }
  __device__ __forceinline__ T at(const Row& m, const Column& k) const {
    int row = m.row - k.row, col = m.col - k.col;
    if (row < 0 || col < 0) return zero<T>();
    int i = down.of(row), j = right.of(col);
    bool inside = i * g.stride_h == row && j * g.stride_w == col && i < g.P && j < g.Q;
    return inside ? m.at[k.offset + i * g.Q + j] : zero<T>();
  }
};

// The filters by (o, tap (c, r, s)): rows of memory, read in runs.
template <class T> struct Filters {
  typedef T Number;
  static constexpr Order ORDER = ALONG_COLUMNS;
  struct Row { const T* at; bool inside; };
  const T* w; int filters, first, K;
  __device__ __forceinline__ Filters(const T* w, const Geometry& g, int group)
      : w(w), filters(g.O / g.groups), first(group * filters), K(g.I / g.groups * g.R * g.S) {}
  __device__ __forceinline__ Row row(int o) const { return {w + (long long)(first + o) * K, o < filters}; }
  template <int V> __device__ __forceinline__ Pack<T, V> run(const Row& o, int k) const {
    return load_up_to<V>(o.at + k, o.inside ? K - k : 0, K % V == 0 && aligned<T, V>(w));
  }
};

// The filters by (c, tap (o, r, s)).
template <class T> struct FiltersByInput {
  typedef T Number;
  static constexpr Order ORDER = ALONG_COLUMNS;
  struct Row { const T* at; bool inside; };
  struct Column { int offset; bool inside; };
  const T* w; int channels, filters; Divider taps;
  __device__ __forceinline__ FiltersByInput(const T* w_, const Geometry& g, int group)
      : w(w_), channels(g.I / g.groups), filters(g.O / g.groups), taps(g.R * g.S) {
    w += (long long)group * filters * channels * taps.divisor;
  }
  __device__ __forceinline__ Row row(int c) const { return {w + c * taps.divisor, c < channels}; }
  __device__ __forceinline__ Column column(int k) const {
    int o = taps.of(k);
    return {o * (channels - 1) * taps.divisor + k, o < filters};
  }
  __device__ __forceinline__ T at(const Row& c, const Column& k) const {
    return c.inside && k.inside ? c.at[k.offset] : zero<T>();
  }
};

// y by (channel, pixel first .. last - 1).
template <class T> struct Channels {
  typedef T Number;
  static constexpr Order ORDER = ALONG_COLUMNS;
  struct Row { const T* at; bool inside; };
  struct Column { long long offset; };
  const T* y; int channels, all, first, last; Divider area;
  __device__ __forceinline__ Channels(const T* y_, const Geometry& g, int group, int first, int last)
      : y(y_), channels(g.O / g.groups), all(g.O), first(first), last(last), area(g.P * g.Q) {
    y += (long long)group * channels * area.divisor;
  }
  __device__ __forceinline__ Row row(int o) const { return {y + (long long)o * area.divisor, o < channels}; }
  __device__ __forceinline__ Column column(int p) const {
    int m = first + p, n = area.of(m);
    return {m < last ? ((long long)n * all - n) * area.divisor + m : -1};
  }
  __device__ __forceinline__ T at(const Row& o, const Column& p) const {
    return o.inside && p.offset >= 0 ? o.at[p.offset] : zero<T>();
  }
};

// Rows m .. m + 3 (pixels) of column o (a channel) to images (N, all, area), with a bias: one access where they are
// neighbours in memory and aligned.
template <class T> struct Images {
  T* y; const T* b; int count, all, first; Divider area;
  __device__ __forceinline__ Images(T* y, const T* b, int samples, int all, int first, int area)
      : y(y), b(b), count(samples * area), all(all), first(first), area(area) {}
  __device__ __forceinline__ void four(int m, int o, const float* sums) const {
    float bias = b ? up(b[first + o]) : 0.0f;
    int n = area.of(m), p = m - n * area.divisor;
    T* to = y + ((long long)n * all + first + o) * area.divisor + p;
    if (area.divisor % 4 == 0 && aligned<T, 4>(y)) {
      Pack<T, 4> out;
      #pragma unroll
      for (int i = 0; i < 4; ++i) down(&out.x[i], sums[i] + bias);
      store(to, out);
      return;
    }
    #pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (m + i < count) down(to, sums[i] + bias);
      ++to;
      if (++p == area.divisor) { p = 0; to += (long long)(all - 1) * area.divisor; }
    }
  }
};
