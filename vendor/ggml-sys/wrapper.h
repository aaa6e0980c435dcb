// The headers that bindgen reads. An installed ggml carries the public ones only.
#include <stdio.h>
#include "ggml.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "gguf.h"
#ifndef GGML_SYS_PUBLIC_HEADERS_ONLY
#include "ggml-quants.h"
#include "ggml-cpu/quants.h"
#endif
