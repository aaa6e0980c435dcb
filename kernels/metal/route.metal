// Routers of mixtures of experts: from a token's scores to its experts, the best first, and their weights. `Router::choose` of
// the host says the same.
#include "order.h"
#include "params.h"

/// The least sum that weights are divided by: the smallest normal number of half precision, as in llama.cpp.
constant constexpr float LEAST_SUM = 6.1035156e-5f;

/// A simdgroup has a token. It keeps scores, the ranks by which experts are chosen, and the sums of groups.
kernel void route(
    constant route_params &p [[buffer(0)]], device const float *x [[buffer(1)]], device const float *bias [[buffer(2)]],
    device const float *scales [[buffer(3)]], device uint *experts [[buffer(4)]], device float *weights [[buffer(5)]],
    SHARED, GRID) {
    device const float *row = x + ulong(group.x) * p.experts;
    threadgroup float *scores = shared, *ranks = shared + p.experts, *sums = ranks + p.experts;

    float most = -INFINITY;
    for (uint i = lane; i < p.experts; i += LANES) {
        most = row[i] > most ? row[i] : most;
    }
    most = simd_max(most);
    float sum = 0.0f;
    for (uint i = lane; i < p.experts; i += LANES) {
        float score = row[i];
        if (p.scoring == SCORING_SOFTMAX) {
            score = exp(score - most);
            sum += score;
        } else if (p.scoring == SCORING_SIGMOID) {
            score = 1.0f / (1.0f + exp(-score));
        }
        scores[i] = score;
    }
    sum = simd_sum(sum);
    for (uint i = lane; i < p.experts; i += LANES) {
        if (p.scoring == SCORING_SOFTMAX) {
            scores[i] /= sum;
        }
        ranks[i] = scores[i] + (p.has_bias ? bias[i] : 0.0f);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    if (p.used_groups < p.groups) {
        // Groups rank by the sum of their two best.
        const uint len = p.experts / p.groups;
        for (uint g = lane; g < p.groups; g += LANES) {
            threadgroup const float *of = ranks + g * len;
            const uint2 best = next_largest(of, 0, 1, len, true, uint2(0u, 0u));
            const uint2 second = next_largest(of, 0, 1, len, false, best);
            sums[g] = of[best.y] + (len > 1 ? of[second.y] : 0.0f);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = lane; i < p.experts; i += LANES) {
            const uint g = i / len, own = order_of(sums[g]);
            uint place = 0;
            for (uint h = 0; h < p.groups; h++) {
                place += before(order_of(sums[h]), h, own, g) ? 1 : 0;
            }
            if (place >= p.used_groups) {
                ranks[i] = -INFINITY;
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    // Lane n has the expert that is chosen as number n.
    uint2 last = uint2(0u, 0u);
    uint expert = 0;
    for (uint n = 0; n < p.used; n++) {
        last = first_of_lanes(next_largest(ranks, lane, LANES, p.experts, n == 0, last));
        expert = lane == n ? last.y : expert;
    }
    const bool chosen = lane < p.used;
    float weight = scores[expert];
    if (p.scoring == SCORING_SOFTMAX_OF_CHOSEN) {
        weight = exp(weight - simd_max(chosen ? weight : -INFINITY));
        weight /= simd_sum(chosen ? weight : 0.0f);
    }
    if (p.normalize) {
        const float total = simd_sum(chosen ? weight : 0.0f);
        weight /= total > LEAST_SUM ? total : LEAST_SUM;
    }
    if (chosen) {
        experts[group.x * p.used + lane] = expert;
        weights[group.x * p.used + lane] = weight * p.scale * (p.has_scales ? scales[expert] : 1.0f);
    }
}
PLAIN(route)
