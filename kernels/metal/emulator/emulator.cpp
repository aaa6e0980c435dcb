// Runs the kernels on a CPU, a fiber for each thread of a threadgroup, and talks to the tests through stdin and stdout.
//
// Fibers run until they wait for others; which one goes on is drawn by lot, and which simdgroup lags behind. What has to be met by
// all is checked: a collective that lanes of a simdgroup reach at different lines, or a barrier that not all threads reach, ends
// the program with both lines. Threadgroup memory is NaN before each threadgroup, as new buffers are. Dispatches between two
// barriers run in a drawn order, as they might on a device; so do threadgroups.
//
// Each request is a letter and numbers of 8 bytes, little-endian:
//
//   S seed                                              of the lots
//   N bytes                                -> number    a new buffer
//   F buffer                                            frees it
//   W buffer offset bytes ...                           writes
//   R buffer offset bytes                  -> ...       reads what all before has made
//   D name groups[3] threads shared params ... count (buffer offset)[count]      a dispatch; names and params by length
//   B                                                   a barrier
//   K                                      -> names     of all kernels, one a line, by length
#include "emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

// With EMULATOR_TSAN the kernels are compiled for the thread sanitizer, and this file is not: what it does between fibers is
// no race of theirs.
#ifdef EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if __has_feature(address_sanitizer)
#define EMULATOR_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

constexpr unsigned LANES = 32, MOST_THREADS = 1024;
constexpr std::size_t MOST_SHARED = 32 * 1024, STACK = 256 * 1024, MOST_GIVEN = 16;

struct Kernel {
    void (*function)();
    emulator::Call call;
};
std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

const char *running = "";

/// Byte by byte: the thread sanitizer would take part in the library's copy.
void copy(void *to, const void *from, std::size_t size) {
    for (std::size_t i = 0; i < size; i++) {
        ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
    }
}

[[noreturn]] void fail(const std::string &what) {
    std::fprintf(stderr, "emulator: %s: %s\n", running, what.c_str());
    std::exit(3);
}

struct Site {
    const char *file;
    int line;
    bool operator==(const Site &other) const {
        return line == other.line && std::strcmp(file, other.file) == 0;
    }
    std::string name() const {
        const char *base = std::strrchr(file, '/');
        return std::string(base ? base + 1 : file) + ":" + std::to_string(line);
    }
};

// ---- fibers

enum class Waits { No, ForSimd, ForAll, Done };

struct Fiber {
    ucontext_t context;
    void *stack = nullptr;
    emulator::Arguments arguments;
    Waits waits;
    Site site;
    /// Collectives met so far, and a digest of where: those that wait for nobody are checked with the next that does.
    unsigned met, trace;
    unsigned exchanges;
#ifdef EMULATOR_TSAN
    void *tsan = nullptr;
#endif
#ifdef EMULATOR_ASAN
    void *fake = nullptr;
#endif
};

struct Simd {
    unsigned arrived;
    /// Two, so that a lane may give anew while another still reads.
    unsigned char given[2][LANES * MOST_GIVEN];
};

Fiber fibers[MOST_THREADS];
Simd simds[MOST_THREADS / LANES];
ucontext_t scheduler;
#ifdef EMULATOR_TSAN
void *scheduler_tsan;
#endif
#ifdef EMULATOR_ASAN
void *scheduler_fake;
const void *scheduler_stack;
std::size_t scheduler_size;
#endif
unsigned current, threads, at_barrier;
std::vector<unsigned> ready;
std::mt19937_64 lots;
const Kernel *kernel_now;

#ifdef EMULATOR_TSAN
/// What the scheduler did before a threadgroup begins is seen by its threads, and what they did, in the end by all others.
char begin, end;

void all_see_all() {
    for (int pass = 0; pass < 2; pass++) {
        for (Fiber &fiber : fibers) {
            if (fiber.tsan != nullptr) {
                __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
                pass == 0 ? __tsan_release(&end) : __tsan_acquire(&end);
            }
        }
    }
    __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
    __tsan_acquire(&end);
}
#endif

void to_scheduler() {
    Fiber &me = fibers[current];
#ifdef EMULATOR_ASAN
    __sanitizer_start_switch_fiber(&me.fake, scheduler_stack, scheduler_size);
#endif
#ifdef EMULATOR_TSAN
    __tsan_switch_to_fiber(scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&me.context, &scheduler);
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(me.fake, &scheduler_stack, &scheduler_size);
#endif
}

void body() {
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    for (;;) {
#ifdef EMULATOR_TSAN
        __tsan_acquire(&begin);
#endif
        kernel_now->call(kernel_now->function, fibers[current].arguments);
        fibers[current].waits = Waits::Done;
        to_scheduler();
    }
}

void run_fiber(unsigned number) {
    Fiber &fiber = fibers[number];
    current = number;
    if (fiber.stack == nullptr) {
        fiber.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fiber.stack == MAP_FAILED) {
            fail("no memory for a stack");
        }
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, body, 0);
#ifdef EMULATOR_TSAN
        fiber.tsan = __tsan_create_fiber(0);
#endif
    }
#ifdef EMULATOR_ASAN
    __sanitizer_start_switch_fiber(&scheduler_fake, fiber.stack, STACK);
#endif
#ifdef EMULATOR_TSAN
    __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&scheduler, &fiber.context);
#ifdef EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

void meet(Fiber &me, Site site) {
    me.site = site;
    me.met++;
    me.trace = me.trace * 31 + unsigned(site.line);
}

/// Ends the program where threads `first ..` `end` are not at one place.
void check_together(unsigned first, unsigned end) {
    for (unsigned i = first + 1; i < end; i++) {
        const Fiber &a = fibers[first], &b = fibers[i];
        if (!(a.site == b.site) || a.met != b.met || a.trace != b.trace) {
            fail("divergent: thread " + std::to_string(first) + " is at " + a.site.name() + ", thread " +
                 std::to_string(i) + " at " + b.site.name());
        }
    }
}

void release(unsigned first, unsigned end) {
    for (unsigned i = first; i < end; i++) {
        fibers[i].waits = Waits::No;
        ready.push_back(i);
    }
}

/// Nobody can go on: says who waits for whom.
[[noreturn]] void stuck() {
    std::string waits = "divergent:", others;
    for (unsigned i = 0; i < threads; i++) {
        const Fiber &f = fibers[i];
        const std::string where = f.waits == Waits::Done ? "has ended" : "waits at " + f.site.name();
        if (others.find(where) == std::string::npos) {
            others += where + ";";
            waits += " thread " + std::to_string(i) + " " + where + ";";
        }
    }
    fail(waits);
}

void run_group(const emulator::Arguments &arguments) {
    ready.clear();
    at_barrier = 0;
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        fiber.arguments = arguments;
        fiber.arguments.lane = i % LANES;
        fiber.arguments.simd = i / LANES;
        fiber.waits = Waits::No;
        fiber.met = fiber.trace = fiber.exchanges = 0;
        simds[i / LANES].arrived = 0;
        ready.push_back(i);
    }
    // A drawn simdgroup, or none, goes on only where hardly another can: whoever does not wait for it is early.
    const unsigned slow = unsigned(lots() % (threads / LANES + 1));
    while (!ready.empty()) {
        std::size_t which = lots() % ready.size();
        for (int again = 0; again < 8 && ready[which] / LANES == slow; again++) {
            which = lots() % ready.size();
        }
        const unsigned number = ready[which];
        ready[which] = ready.back();
        ready.pop_back();
        run_fiber(number);
    }
    for (unsigned i = 0; i < threads; i++) {
        if (fibers[i].waits != Waits::Done) {
            stuck();
        }
    }
}

// ---- buffers and dispatches

struct Buffer {
    unsigned char *data = nullptr;
    std::size_t size = 0;
};
std::vector<Buffer> buffers;

struct Dispatch {
    std::string name;
    std::uint64_t groups[3], threads, shared;
    std::vector<unsigned char> params;
    std::vector<void *> at;
};
std::vector<Dispatch> waiting;

void run(const Dispatch &dispatch) {
    running = dispatch.name.c_str();
    kernel_now = &kernels()[dispatch.name];
    threads = unsigned(dispatch.threads);
    unsigned char *shared = nullptr;
    if (dispatch.shared > 0) {
        // Of just this size, so that the address sanitizer sees what lies behind.
        shared = (unsigned char *)std::aligned_alloc(16, (dispatch.shared + 15) / 16 * 16);
    }
    std::vector<std::uint64_t> order(dispatch.groups[0] * dispatch.groups[1] * dispatch.groups[2]);
    for (std::size_t i = 0; i < order.size(); i++) {
        order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), lots);
    for (std::uint64_t number : order) {
        if (shared != nullptr) {
            std::memset(shared, 0xff, dispatch.shared);
        }
        emulator::Arguments arguments{};
        arguments.params = dispatch.params.data();
        arguments.params_size = dispatch.params.size();
        arguments.buffers = dispatch.at.data();
        arguments.buffers_given = unsigned(dispatch.at.size());
        arguments.shared = shared;
        arguments.group[0] = unsigned(number % dispatch.groups[0]);
        arguments.group[1] = unsigned(number / dispatch.groups[0] % dispatch.groups[1]);
        arguments.group[2] = unsigned(number / dispatch.groups[0] / dispatch.groups[1]);
#ifdef EMULATOR_TSAN
        __tsan_release(&begin);
#endif
        run_group(arguments);
#ifdef EMULATOR_TSAN
        // Threadgroups have one memory here, one after the other, that they do not share on a device.
        if (shared != nullptr) {
            all_see_all();
        }
#endif
    }
    std::free(shared);
    running = "";
}

/// Runs what was dispatched since the last barrier, in any order.
void finish() {
    std::shuffle(waiting.begin(), waiting.end(), lots);
    for (const Dispatch &dispatch : waiting) {
        run(dispatch);
    }
#ifdef EMULATOR_TSAN
    all_see_all();
#endif
    waiting.clear();
}

// ---- requests

void read_all(void *to, std::size_t size) {
    if (size > 0 && std::fread(to, 1, size, stdin) != size) {
        std::exit(0);
    }
}

std::uint64_t number() {
    std::uint64_t value = 0;
    read_all(&value, sizeof value);
    return value;
}

void reply(const void *from, std::size_t size) {
    std::fwrite(from, 1, size, stdout);
    std::fflush(stdout);
}

unsigned char *place(std::uint64_t buffer, std::uint64_t offset, std::uint64_t size) {
    if (buffer >= buffers.size() || buffers[buffer].data == nullptr) {
        fail("no such buffer");
    }
    if (offset > buffers[buffer].size || size > buffers[buffer].size - offset) {
        fail("a place behind the end of a buffer");
    }
    return buffers[buffer].data + offset;
}

void dispatch() {
    Dispatch d;
    d.name.resize(number());
    read_all(d.name.data(), d.name.size());
    running = d.name.c_str();
    for (std::uint64_t &groups : d.groups) {
        groups = number();
    }
    d.threads = number();
    d.shared = number();
    d.params.resize(number());
    read_all(d.params.data(), d.params.size());
    d.at.resize(number());
    for (void *&at : d.at) {
        const std::uint64_t buffer = number(), offset = number();
        at = place(buffer, offset, 0);
    }
    if (kernels().find(d.name) == kernels().end()) {
        fail("no such kernel");
    }
    if (d.threads == 0 || d.threads > MOST_THREADS || d.threads % LANES != 0) {
        fail(std::to_string(d.threads) + " threads, not whole simdgroups up to 1024 of them");
    }
    if (d.shared > MOST_SHARED) {
        fail(std::to_string(d.shared) + " bytes of threadgroup memory, not 32768 at most");
    }
    if (d.groups[0] * d.groups[1] * d.groups[2] == 0) {
        fail("a grid of nothing");
    }
    waiting.push_back(std::move(d));
    running = "";
}

}  // namespace

void emulator::add(const char *name, void (*function)(), Call call) {
    kernels()[name] = Kernel{function, call};
}

void emulator::mismatch(const char *what) {
    fail(what);
}

extern "C" void emulator_fail(const char *what, const char *file, int line) {
    fail(std::string(what) + " at " + Site{file, line}.name());
}

extern "C" unsigned emulator_together(const char *file, int line) {
    meet(fibers[current], Site{file, line});
    return current % LANES;
}

extern "C" void emulator_exchange(const void *mine, unsigned size, void *all, const char *file, int line) {
    const unsigned me = current, first = me / LANES * LANES;
    Simd &simd = simds[me / LANES];
    if (size > MOST_GIVEN) {
        fail("too large a value given to other lanes");
    }
    meet(fibers[me], Site{file, line});
    unsigned char *given = simd.given[fibers[me].exchanges++ % 2];
    copy(given + me % LANES * size, mine, size);
    fibers[me].waits = Waits::ForSimd;
    if (++simd.arrived == LANES) {
        check_together(first, first + LANES);
        simd.arrived = 0;
        release(first, first + LANES);
    }
    to_scheduler();
    copy(all, given, LANES * size);
}

extern "C" void emulator_barrier(const char *file, int line) {
    meet(fibers[current], Site{file, line});
    fibers[current].waits = Waits::ForAll;
#ifdef EMULATOR_TSAN
    static char barrier;
    __tsan_release(&barrier);
#endif
    if (++at_barrier == threads) {
        for (unsigned i = 0; i < threads; i++) {
            if (!(fibers[i].site == fibers[0].site)) {
                fail("divergent: thread 0 is at " + fibers[0].site.name() + ", thread " + std::to_string(i) + " at " +
                     fibers[i].site.name());
            }
        }
        for (unsigned first = 0; first < threads; first += LANES) {
            check_together(first, first + LANES);
        }
        at_barrier = 0;
        release(0, threads);
    }
    to_scheduler();
#ifdef EMULATOR_TSAN
    __tsan_acquire(&barrier);
#endif
}

int main() {
#ifdef EMULATOR_TSAN
    scheduler_tsan = __tsan_get_current_fiber();
#endif
    for (int letter; (letter = std::getchar()) != EOF;) {
        switch (letter) {
        case 'S':
            lots.seed(number());
            break;
        case 'N': {
            Buffer buffer;
            buffer.size = number();
            buffer.data = (unsigned char *)std::malloc(buffer.size);
            if (buffer.data == nullptr) {
                fail("no memory for a buffer");
            }
            std::memset(buffer.data, 0xff, buffer.size);
            buffers.push_back(buffer);
            const std::uint64_t id = buffers.size() - 1;
            reply(&id, sizeof id);
            break;
        }
        case 'F': {
            finish();
            const std::uint64_t id = number();
            std::free(place(id, 0, 0));
            buffers[id] = Buffer{};
            break;
        }
        case 'W': {
            finish();
            const std::uint64_t id = number(), offset = number(), size = number();
            read_all(place(id, offset, size), size);
            break;
        }
        case 'R': {
            finish();
            const std::uint64_t id = number(), offset = number(), size = number();
            reply(place(id, offset, size), size);
            break;
        }
        case 'D':
            dispatch();
            break;
        case 'B':
            finish();
            break;
        case 'K': {
            std::string names;
            for (const auto &entry : kernels()) {
                names += entry.first + "\n";
            }
            const std::uint64_t size = names.size();
            reply(&size, sizeof size);
            reply(names.data(), names.size());
            break;
        }
        default:
            fail("a request that nobody knows");
        }
    }
    return 0;
}
