// Layers of post-norm encoders in int8, on packed tokens, for x86: `runtime/layers.py` calls it.
//
// One function per instruction set; all are `layer.inc`, in a namespace that says how long a vector is and how int8
// is multiplied. What a layer computes is what its ONNX graph computes (export/packed/layers.py), with the same int8
// sums; floats may differ in their last places. Each row is computed apart from its neighbours.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

// A matrix in int8, depth rows, width columns, in panels of two vectors of columns, in each of them four rows after four
// rows: (width / panel, depth / 4, panel, 4). Its products times `scale`, plus `bias`, are the result in float.
struct Product {
    int64_t depth, width;
    const int8_t *weight;
    const float *scale, *bias;
};

// A float times `inverse`, plus `zero`, rounded, is its uint8. `factors`: what smooths each column before, null: nothing.
struct Quantiser {
    float inverse, zero;
    const float *factors;
};

struct Layer {
    int64_t width, heads;
    float epsilon;
    Quantiser input, context, middle, wide;
    Product query, key, value, output, expand, contract;
    const float *attention_norm[2], *output_norm[2];  // weight, bias
    const float *activation;  // what x is multiplied by, by pieces of x: five coefficients of each (layers.py)
    int64_t large;  // so many last columns of `expand` are multiplied in float: whole vectors, or none
    const float *large_weight;  // their rows of `contract`'s matrix, which is 0 there: (large, width)
};

// Rows of tokens. `active`: rising numbers of the tokens that ask and go on, null: all; `line`: of each head, what is
// added to the scores at each distance, key minus query, from 1 - longest on; null: nothing.
struct Rows {
    const float *hidden;
    int64_t rows;
    const int64_t *lengths;
    const int64_t *active;
    int64_t actives;
    const float *line;
    int64_t longest;
    float *out;
};

// Goes up with every change of what a caller passes: a library that was built from other sources is not used.
extern "C" int64_t cascade_interface() { return 3000000 + 1000 * sizeof(Layer) + sizeof(Rows); }

constexpr int PIECES = 16;      // of the activation
constexpr float LIMIT = 5;      // beyond it, either way, the activation's factor does not change
constexpr int TILE = 128;       // tokens that go through a layer together, so that they stay in the caches
constexpr int QUERIES = 32;     // that attend together

// Equal shares of so many things, each on a thread: called with the share's number, where it begins and ends.
template <typename Do>
static void in_shares(int64_t threads, int64_t count, const Do &share) {
    auto one = [&](int64_t i) { share(i, count * i / threads, count * (i + 1) / threads); };
    std::vector<std::thread> others;
    others.reserve(threads);
    for (int64_t i = 1; i < threads; i++) {
        try {
            others.emplace_back(one, i);
        } catch (const std::system_error &) {  // the system has no more threads
            one(i);
        }
    }
    one(0);
    for (auto &other : others) other.join();
}

#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")
namespace avx512 {  // sums of two products saturate: for weights of 7 bits
INLINE __m512i dot512(__m512i sums, __m512i a, __m512i b) {
    return _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
}
#include "zmm.inc"
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,prefer-vector-width=512")
namespace avx512_vnni {
INLINE __m512i dot512(__m512i sums, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sums, a, b); }
#include "zmm.inc"
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avxvnni")
namespace avx_vnni {
INLINE __m256i dot256(__m256i sums, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(sums, a, b); }
#include "ymm.inc"
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {  // saturates too
INLINE __m256i dot256(__m256i sums, __m256i a, __m256i b) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#include "ymm.inc"
}
#pragma GCC pop_options

extern "C" {
int64_t cascade_scratch(const Layer *l, const Rows *r, int64_t threads) { return avx2::scratch(l, r) * threads; }

// By the number of an instruction set: 1 AVX2, 2 AVX512, 3 AVX-VNNI, 4 AVX512-VNNI.
void cascade_layer(int kind, const Layer *l, const Rows *r, int64_t threads, char *memory) {
    constexpr decltype(&avx2::layer) kinds[] = {avx2::layer, avx512::layer, avx_vnni::layer, avx512_vnni::layer};
    kinds[kind - 1](l, r, threads, memory);
}

void cascade_mean(const float *states, const int64_t *lengths, int64_t rows, int64_t width, float *out) {
    for (int64_t row = 0; row < rows; row++, out += width) {
        std::memset(out, 0, 4 * width);
        for (int64_t i = 0; i < lengths[row]; i++, states += width)
            for (int64_t j = 0; j < width; j++) out[j] += states[j];
        for (int64_t j = 0; j < width; j++) out[j] /= lengths[row];
    }
}

// Whether this CPU can run those of that number: one with AVX512-VNNI may lack AVX-VNNI.
int cascade_can(int kind) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (kind == 3) return __builtin_cpu_supports("avxvnni") != 0;
    if (kind % 2) return 1;
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && (kind == 2 || __builtin_cpu_supports("avx512vnni"));
}
}
#else
extern "C" int cascade_can(int) { return 0; }
#endif
