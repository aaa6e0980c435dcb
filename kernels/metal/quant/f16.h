// F16: the weight in half precision.
#pragma once

#include "../one_by_one.h"

typedef one_by_one<half> f16;
