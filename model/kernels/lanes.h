// Vectors of 64 bytes: what the kernels take channels in.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

template <class T> struct Simd;
template <> struct Simd<float> {
    typedef float Vec __attribute__((vector_size(64)));
    typedef float Half __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
};
template <> struct Simd<double> {
    typedef double Vec __attribute__((vector_size(64)));
    typedef double Half __attribute__((vector_size(32)));
    typedef double Quarter __attribute__((vector_size(16)));
};
template <class T> using Vec = typename Simd<T>::Vec;
template <class T> constexpr int LANES = 64 / sizeof(T);

// All lanes where FULL, else the first `count`, the others zero or left alone.
template <class T, bool FULL> inline Vec<T> load(const T* from, int count) {
    Vec<T> v{};
    std::memcpy(&v, from, FULL ? 64 : count * sizeof(T));
    return v;
}
template <class T, bool FULL> inline void store(T* to, const Vec<T>& v, int count) {
    std::memcpy(to, &v, FULL ? 64 : count * sizeof(T));
}
template <class T, bool FULL> inline void add(T* to, const Vec<T>& v, int count) {
    store<T, FULL>(to, load<T, FULL>(to, count) + v, count);
}

// Where one member's array begins: `step` apart in inputs, which may be shared, `size` in outputs.
template <class T> const T* member(const void* start, int64_t step, int64_t b) {
    return start ? static_cast<const T*>(start) + step * b : nullptr;
}
template <class T> T* part(void* start, int64_t size, int64_t b) {
    return start ? static_cast<T*>(start) + size * b : nullptr;
}

}  // namespace
