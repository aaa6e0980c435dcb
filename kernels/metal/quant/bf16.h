// BF16: the upper half of an `f32`.
#pragma once

#include "../bits.h"
#include "../one_by_one.h"

struct from_brain {
    static float weight(ushort w) {
        return brain(w);
    }
};
typedef one_by_one<ushort, from_brain> bf16;
