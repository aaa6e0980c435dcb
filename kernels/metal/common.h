// What every kernel begins with: the language, how a kernel is called, how an instance of a template gets its name.
//
// All kernels are launched as whole threadgroups of whole simdgroups of 32. Arguments come in one order: the parameters
// (buffer 0), the buffers, the threadgroup's memory where there is some, the place in the grid.
#pragma once

#include <metal_stdlib>

using namespace metal;

/// The place in the grid: always the last arguments.
#define GRID                                                                                                     \
    uint3 group [[threadgroup_position_in_grid]], ushort lane [[thread_index_in_simdgroup]],                     \
        ushort simd [[simdgroup_index_in_threadgroup]]

// The emulator brings its own two of these: C++ has neither the memory nor the attributes.
#ifndef INSTANCE
/// The threadgroup's memory.
#define SHARED threadgroup float *shared [[threadgroup(0)]]
/// An instance of a template, by the name that the host asks for.
#define INSTANCE(name, ...) template [[host_name(name)]] [[kernel]] decltype(__VA_ARGS__) __VA_ARGS__;
/// A kernel that is no template has its own name already.
#define PLAIN(name)
#endif

/// Threads of a simdgroup.
constant constexpr ushort LANES = 32;
