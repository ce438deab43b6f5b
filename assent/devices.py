"""The device and the number format of a run."""

import os

import torch

from assent.errors import AssentError

DEVICE_TYPES = ("cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU where there is one, else the CPU.

    Raises:
        AssentError: an unknown name, or a device that this machine does not have.
    """
    if name != "auto":
        try:
            if name.split(":")[0] not in DEVICE_TYPES:
                raise RuntimeError("it can be auto, cpu, cuda, cuda:1 or mps")
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise AssentError(f"no device '{name}' on this machine: {str(error).splitlines()[0]}") from None
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # torchrun numbers its processes
    return torch.device("cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format of a name; `auto` is bfloat16 where the device multiplies it in hardware.

    Raises:
        AssentError: an unknown name.
    """
    if name != "auto":
        if name not in DTYPES:
            raise AssentError(f"dtype is '{name}'; it can be auto, float32 or bfloat16")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    has_bf16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
