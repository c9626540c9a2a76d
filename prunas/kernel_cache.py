"""Room in oneDNN's cache for the kernels of many candidates.

On CPUs torch's convolutions run on oneDNN, which compiles a kernel for every new shape (three in
training: forward, and the gradients of input and weight) and by default remembers the last 1,024.
A supernet step runs another candidate each time, some 150 kernels of a MobileNetV2, so that most
are thrown away before their shape returns. Remembered, they take the overhead of a step from
about a fifth to a tenth (benchmarks/RESULTS.md). Importing this module before the first
convolution makes room; a capacity that the user has set stays.
"""

import os

_VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_OLD_VARIABLE = "DNNL_PRIMITIVE_CACHE_CAPACITY"
_KERNELS = 16_384  # at most: those of some hundred paths took a quarter of a gigabyte

if _OLD_VARIABLE not in os.environ:
    os.environ.setdefault(_VARIABLE, str(_KERNELS))
