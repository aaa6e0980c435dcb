// The little of Linux that a test program of Rust asks for when it may have neither files nor threads: memory, output,
// exit.
//
// Bochs has AVX-512 and runs some 50 million instructions a second: too few for a whole system. So the test program, a
// static executable, is loaded as the boot loader's module and runs with this under it, in ring 0 and one address
// space. Where it asks for a thread, the answer is "no more of them", upon which Rust's test runner runs each test in
// the main thread.
#include <elf.h>
#include <stdint.h>

enum {
    PROGRAM = 0x10000000,   // what the program is linked at
    BREAK_END = 0x20000000, // the heap lies between the program and this
    MAP_END = 0x3F000000,   // mappings lie between BREAK_END and this
    STACK_TOP = 0x3FFF0000, // the stack lies between MAP_END and this
};
enum { E_NOENT = -2, E_AGAIN = -11, E_NOMEM = -12, E_INVAL = -22, E_NOTTY = -25, E_NOSYS = -38 };

struct call {
    uint64_t number, a, b, c, d, e, f, rip, flags;
};
struct start {
    uint64_t entry, stack;
};
struct multiboot {
    uint32_t flags, lower, upper, boot_device, command_line, module_count, modules;
};
struct module {
    uint32_t start, end, string, reserved;
};

static uint64_t program_break, next_map = BREAK_END;

static void out(uint16_t port, uint8_t byte) {
    __asm__ volatile("outb %0, %1" ::"a"(byte), "Nd"(port));
}

static void print(const char *text) {
    while (*text) out(0xE9, (uint8_t)*text++);
}

static void print_hex(uint64_t number) {
    for (int shift = 60; shift >= 0; shift -= 4) out(0xE9, (uint8_t) "0123456789abcdef"[number >> shift & 15]);
}

// Ends the emulator, and says how the program ended in the line that the script looks for.
static _Noreturn void end(const char *how, uint64_t code) {
    print("\nbare metal: ");
    print(how);
    print(" ");
    print_hex(code);
    print("\n");
    for (const char *word = "Shutdown"; *word; word++) out(0x8900, (uint8_t)*word);
    for (;;) __asm__ volatile("hlt");
}

void *memcpy(void *to, const void *from, uint64_t count) {
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    return start;
}

void *memset(void *to, int byte, uint64_t count) {
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(byte) : "memory");
    return start;
}

_Noreturn void fault(const uint64_t *frame) {
    uint64_t vector = frame[0];
    // Double faults, and exceptions 10 to 14 and 17, push an error code.
    int has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    print("\nfault at ");
    print_hex(frame[1 + has_code]);
    end("exception", vector);
}

static uint64_t map(uint64_t length, uint64_t flags) {
    uint64_t start = next_map;
    length = (length + 4095) & ~4095ULL;
    // Anonymous memory only (0x20), nowhere in particular (not 0x10).
    if (!(flags & 0x20) || flags & 0x10 || length > MAP_END - start) return (uint64_t)E_NOMEM;
    next_map += length;
    memset((void *)start, 0, length);
    return start;
}

static uint64_t answer(const struct call *call) {
    switch (call->number) {
    case 0: return 0; // read: the end of the file
    case 1:           // write
        for (uint64_t i = 0; i < call->c; i++) out(0xE9, ((const uint8_t *)call->b)[i]);
        return call->c;
    case 7: return 0; // poll
    case 9: return map(call->b, call->d);
    case 10: return 0; // mprotect
    case 11:           // munmap: the last one only
        if (call->a + ((call->b + 4095) & ~4095ULL) == next_map) next_map = call->a;
        return 0;
    case 12: // brk
        if (call->a >= program_break && call->a < BREAK_END) {
            memset((void *)program_break, 0, call->a - program_break);
            program_break = call->a;
        }
        return program_break;
    case 13:                                          // rt_sigaction: what was there is the default
        if (call->c) memset((void *)call->c, 0, 32);
        return 0;
    case 14: case 28: case 131: case 273: return 0;   // rt_sigprocmask, madvise, sigaltstack, set_robust_list
    case 16: return (uint64_t)E_NOTTY;                // ioctl
    case 25: return (uint64_t)E_NOMEM;                // mremap
    case 39: case 186: case 218: return 1;            // getpid, gettid, set_tid_address
    case 56: return (uint64_t)E_AGAIN;                // clone
    case 60: case 231: end("exit", call->a);          // exit, exit_group
    case 62: case 200: case 234: end("signal", call->c); // kill, tkill, tgkill
    case 89: case 257: case 262: case 332: return (uint64_t)E_NOENT; // readlink, openat, newfstatat, statx
    case 158: // arch_prctl: the thread's own memory
        if (call->a != 0x1002) return (uint64_t)E_INVAL;
        __asm__ volatile("wrmsr" ::"c"(0xC0000100), "a"((uint32_t)call->b), "d"((uint32_t)(call->b >> 32)));
        return 0;
    case 202: return (call->b & 0x7F) == 0 ? (uint64_t)E_AGAIN : 0; // futex: waiting, waking
    case 228: // clock_gettime: no time passes
        memset((void *)call->b, 0, 16);
        return 0;
    case 318: // getrandom
        memset((void *)call->a, 42, call->b);
        return call->b;
    default: return (uint64_t)E_NOSYS;
    }
}

void serve(struct call *call) {
    call->number = answer(call);
}

// Copies the program to its addresses and lays out its arguments as Linux does.
struct start load(const struct multiboot *table) {
    if (table->module_count != 1) end("modules, not one:", table->module_count);
    const struct module *module = (const void *)(uint64_t)table->modules;
    if (module->end > PROGRAM) end("no room under the program for its file, which ends at", module->end);
    const uint8_t *file = (const void *)(uint64_t)module->start;
    const Elf64_Ehdr *elf = (const void *)file;
    const Elf64_Phdr *part = (const void *)(file + elf->e_phoff);

    // The arguments first, for the boot loader's memory may lie where the program goes.
    char *text = (char *)STACK_TOP;
    char *at = text;
    for (const char *from = (const char *)(uint64_t)module->string; (*at++ = *from++);) {}
    // Words up to the first `NAME=value` are arguments, all from there on are the environment.
    uint64_t *stack = (uint64_t *)(STACK_TOP - 4096), *word = stack + 1;
    int environment = 0;
    stack[0] = 0;
    for (at = text; *at;) {
        uint64_t start = (uint64_t)at;
        int assigns = 0;
        for (; *at && *at != ' '; at++) assigns |= *at == '=';
        while (*at == ' ') *at++ = 0;
        if (assigns && !environment++) *word++ = 0;
        if (!environment) stack[0]++;
        *word++ = start;
    }
    if (!environment) *word++ = 0;
    *word++ = 0;

    uint64_t headers = 0;
    for (int i = 0; i < elf->e_phnum; i++) {
        if (part[i].p_type == PT_PHDR) headers = part[i].p_vaddr;
        if (part[i].p_type != PT_LOAD) continue;
        memset((void *)part[i].p_vaddr, 0, part[i].p_memsz);
        memcpy((void *)part[i].p_vaddr, file + part[i].p_offset, part[i].p_filesz);
        program_break = (part[i].p_vaddr + part[i].p_memsz + 4095) & ~4095ULL;
    }
    const uint64_t facts[] = {
        AT_PHDR, headers, AT_PHENT, sizeof(Elf64_Phdr), AT_PHNUM, elf->e_phnum, AT_PAGESZ, 4096,
        AT_ENTRY, elf->e_entry, AT_RANDOM, (uint64_t)file, AT_SECURE, 0, AT_NULL, 0,
    };
    memcpy(word, facts, sizeof facts);
    return (struct start){elf->e_entry, (uint64_t)stack};
}
