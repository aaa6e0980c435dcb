# From the boot loader (Multiboot 1, 32-bit protected mode) to 64-bit C: one address space of 4 GiB mapped to itself, all
# vector registers that the processor has, `syscall` and the processor's exceptions led to kernel.c.

        .section .multiboot, "a"
        .balign 4
        .long 0x1BADB002, 1, -(0x1BADB002 + 1)          # magic, modules on page boundaries, checksum

        .bss
        .balign 4096
pml4:   .skip 4096
pdpt:   .skip 4096
idt:    .skip 32 * 16
        .skip 65536
kernel_stack:
user_rsp: .skip 8

        .data
        .balign 16
gdt:    .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF # none, 64-bit code (0x08), data (0x10)
gdtr:   .word . - gdt - 1
        .quad gdt
idtr:   .word 32 * 16 - 1
        .quad idt

        .text
        .code32
        .global _start
_start: cli
        mov $kernel_stack, %esp
        movl $pdpt + 3, pml4
        movl $0x00000083, pdpt                          # four pages of 1 GiB: present, writable, large
        movl $0x40000083, pdpt + 8
        movl $0x80000083, pdpt + 16
        movl $0xC0000083, pdpt + 24
        mov $pml4, %eax
        mov %eax, %cr3
        mov %cr4, %eax
        or $0x40620, %eax                               # PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
        mov %eax, %cr4
        mov $0xC0000080, %ecx                           # EFER: SCE (syscall), LME (long mode)
        rdmsr
        or $0x101, %eax
        wrmsr
        mov %cr0, %eax
        and $~0xC, %eax                                 # neither EM nor TS: vector instructions do not trap
        or $0x80000023, %eax                            # PG, NE, MP, PE
        mov %eax, %cr0
        lgdt gdtr
        ljmp $8, $long

        .code64
long:   mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %ebx, %r12d                                 # the boot loader's table
        mov $0xD, %eax                                  # XCR0: x87, SSE, AVX, the three parts of AVX-512, as they are there
        xor %ecx, %ecx
        cpuid
        and $0xE7, %eax
        xor %ecx, %ecx
        xor %edx, %edx
        xsetbv
        mov $0xC0000081, %ecx                           # STAR: code and data segments of the kernel, which all runs in
        xor %eax, %eax
        mov $8, %edx
        wrmsr
        inc %ecx                                        # LSTAR: where `syscall` goes
        mov $entry, %eax
        xor %edx, %edx
        wrmsr
        mov $idt, %edi                                  # a gate for each exception
        mov $gates, %eax
1:      mov %ax, (%rdi)
        movw $8, 2(%rdi)                                # the code segment
        movw $0x8E00, 4(%rdi)                           # present, an interrupt gate
        mov %eax, %edx
        shr $16, %edx
        mov %dx, 6(%rdi)
        add $16, %edi
        add $8, %eax
        cmp $idt + 32 * 16, %edi
        jne 1b
        lidt idtr
        mov %r12, %rdi
        call load                                       # rax: where the program starts, rdx: its stack
        mov %rdx, %rsp
        xor %edx, %edx
        xor %ebp, %ebp
        jmp *%rax

# A system call: registers as Linux has them, saved in the order of `struct call`.
entry:  mov %rsp, user_rsp
        mov $kernel_stack, %rsp
        push %r11
        push %rcx
        push %r9
        push %r8
        push %r10
        push %rdx
        push %rsi
        push %rdi
        push %rax
        mov %rsp, %rdi
        call serve
        pop %rax                                        # the answer, where the number was
        pop %rdi
        pop %rsi
        pop %rdx
        pop %r10
        pop %r8
        pop %r9
        pop %rcx
        popfq
        mov user_rsp, %rsp
        jmp *%rcx

        .balign 8
gates:  .set vector, 0
        .rept 32
        push $vector
        jmp fault_entry
        .balign 8
        .set vector, vector + 1
        .endr
fault_entry:
        mov %rsp, %rdi                                  # vector, perhaps an error code, rip
        mov $kernel_stack, %rsp
        call fault
