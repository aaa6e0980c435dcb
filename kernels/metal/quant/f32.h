// F32: the weight itself.
#pragma once

#include "../one_by_one.h"

typedef one_by_one<float> f32;
