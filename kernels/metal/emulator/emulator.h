// How kernels reach the emulator, and how it calls them.
#pragma once

#include <cstdint>
#include <tuple>
#include <type_traits>

struct Shared;

extern "C" {
/// Gives `size` bytes to the other lanes of the simdgroup and gets those of all 32.
void emulator_exchange(const void *mine, unsigned size, void *all, const char *file, int line);
/// Notes that the lane takes part in what all do together; its number.
unsigned emulator_together(const char *file, int line);
void emulator_barrier(const char *file, int line);
[[noreturn]] void emulator_fail(const char *what, const char *file, int line);
}

namespace emulator {

/// The arguments of a thread.
struct Arguments {
    const void *params;
    std::size_t params_size;
    void *const *buffers;
    unsigned buffers_given;
    void *shared;
    unsigned group[3];
    unsigned short lane, simd;
    // How many were handed out.
    unsigned buffers_taken, numbers_taken;
    bool shared_taken;
};

[[noreturn]] void mismatch(const char *what);

template <typename A> struct Bind {  // the place in the grid: the group, the lane, the simdgroup
    static A get(Arguments &from) {
        if constexpr (std::is_integral_v<A>) {
            return from.numbers_taken++ == 0 ? from.lane : from.simd;
        } else {
            return A{from.group[0], from.group[1], from.group[2]};
        }
    }
};
template <typename P> struct Bind<P &> {
    static P &get(Arguments &from) {
        if (sizeof(P) != from.params_size) {
            mismatch("parameters of another size");
        }
        return *(P *)(std::uintptr_t)from.params;
    }
};
template <typename B> struct Bind<B *> {
    static B *get(Arguments &from) {
        if (from.buffers_taken == from.buffers_given) {
            mismatch("too few buffers");
        }
        return (B *)(std::uintptr_t)from.buffers[from.buffers_taken++];
    }
};
template <> struct Bind<Shared> {
    template <typename S = Shared> static S get(Arguments &from) {
        from.shared_taken = true;
        return S{(decltype(S::memory))(std::uintptr_t)from.shared};
    }
};

typedef void (*Call)(void (*)(), Arguments &);

template <typename... A> void call(void (*function)(), Arguments &from) {
    std::tuple<A...> all{Bind<A>::get(from)...};
    if (from.buffers_taken != from.buffers_given) {
        mismatch("too many buffers");
    }
    if (!from.shared_taken && from.shared != nullptr) {
        mismatch("threadgroup memory that the kernel does not take");
    }
    std::apply((void (*)(A...))function, all);
}

void add(const char *name, void (*function)(), Call call);

struct Register {
    template <typename... A> Register(const char *name, void (*function)(A...)) {
        add(name, (void (*)())function, &call<A...>);
    }
};

}  // namespace emulator
