"""What float32 means on a graphics card."""

import torch


def exact_float32() -> None:
    """From now on this process computes float32 in float32, and the same way each time.

    cuDNN would round what it convolves to TF32 (10 bits of mantissa), which is heard of no voice, but lies a hundred
    times above the 1e-5 that the decoder keeps to; and some of its transposed convolutions add in any order.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
