// I8, I16, I32 and I64: whole numbers with sign, rounded to the nearest float.
#pragma once

#include "../one_by_one.h"

typedef one_by_one<char> i8;
typedef one_by_one<short> i16;
typedef one_by_one<int> i32;
typedef one_by_one<long> i64;
