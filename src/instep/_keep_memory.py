"""Memory that stays with the process, from one step on a CPU to the next."""

from __future__ import annotations

import ctypes
import platform

import jax

from ._compat import jax_has_started


OPTIONS = {-4: 0, -1: -1}  # of mallopt: M_MMAP_MAX to 0, M_TRIM_THRESHOLD to -1, which is never


def keep_memory() -> bool:
    """Keep what a step on a CPU needs for the next one, instead of giving it back.

    XLA allocates the temporary memory of a jitted step in every call. From 32 MB on, glibc
    takes it from the kernel, page by page and filled with zeros, and returns it at the end:
    ResNet-18 at 32 x 32 with 64 images has 187,000 page faults a step. After this call malloc
    returns nothing, and JAX runs what is jitted in the thread that calls it, which must be the
    main thread. PyTorch needs no such thing: it allocates less than that at a time.

    The price: the process holds as much memory as it ever had, what NumPy and PyTorch have
    freed included, and a call returns when it is done
    (``jax.config.jax_cpu_enable_async_dispatch``). A small step gains nothing. A GPU's memory
    is not concerned.

    Returns:
      Whether it is kept. False: malloc is not glibc's, or refused.

    Raises:
      RuntimeError: JAX has computed something, so it is too late to choose its thread.
    """
    if jax_has_started():
        raise RuntimeError(
            "JAX has computed something already; call instep.keep_memory() before the first "
            "array is made, right after the imports."
        )
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    if not all(libc.mallopt(option, value) for option, value in OPTIONS.items()):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True
