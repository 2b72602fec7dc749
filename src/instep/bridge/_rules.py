"""One function per kind of layer, and two for single tensors.

Every rule takes ``torch``, the name of the module in the ``state_dict``; ``jax``, the name of
the layer on the JAX side (None: the same name); and ``names``, which renames JAX leaves:
``{"kernel": "w"}`` says that ``w`` holds what Flax calls ``kernel``, in Flax's layout, and
``{"weight": "w"}`` that it holds PyTorch's ``weight``, in PyTorch's. Leaves with Flax's names
have Flax's layout, leaves with PyTorch's names (plain pytrees, Equinox) have PyTorch's.
"""

from __future__ import annotations

from ._layout import (
    CONV,
    CONV_TRANSPOSE,
    CONV_TRANSPOSE_KERNEL,
    LINEAR,
    SAME,
    Layout,
    flattened as flattened_layout,
)
from ._rule import Link, Names, Rule, Variant, layer_rule, pair


_BIAS = pair("bias", "bias", SAME)


def linear(
    torch: str,
    jax: str | None = None,
    *,
    flattened: tuple[int, ...] = (),
    names: Names = None,
) -> Rule:
    """``nn.Linear`` and Flax ``Linear``/``Dense``: weight (out, in) is kernel (in, out).

    Args:
      torch: name of the module in the ``state_dict``.
      jax: name of the layer on the JAX side; None: the same.
      flattened: shape ``(C, *spatial)`` of what was flattened before this layer, where
        PyTorch flattened channels first and JAX channels last.
      names: renames JAX leaves: ``{"kernel": "w"}``.

    Raises:
      ValueError: ``names`` renames a leaf that the layer does not have.
    """
    flax = flattened_layout(flattened) if flattened else LINEAR
    plain = flattened_layout(flattened, transposed=False) if flattened else SAME
    variants = _weight_and_bias("kernel", flax, plain)
    return layer_rule("linear", torch, jax, names, variants)


def conv(torch: str, jax: str | None = None, *, names: Names = None) -> Rule:
    """``nn.Conv1d/2d/3d`` and Flax ``Conv``: (O, I/groups, *k) is (*k, I/groups, O).

    Arguments and errors as for ``linear``.
    """
    return layer_rule("conv", torch, jax, names, _weight_and_bias("kernel", CONV))


def conv_transpose(
    torch: str,
    jax: str | None = None,
    *,
    transpose_kernel: bool = False,
    names: Names = None,
) -> Rule:
    """``nn.ConvTranspose1d/2d/3d`` and Flax ``ConvTranspose``.

    Weight (I, O, *k) is kernel (*k, I, O) with every spatial axis flipped; with
    ``transpose_kernel=True``, as in the Flax layer, it is (*k, O, I), not flipped.

    PyTorch's ``padding=p, output_padding=q`` is Flax's ``padding=[(a, a + q), ...]`` with
    ``a = dilation * (k - 1) - p``. ``"VALID"`` equals ``padding=0`` where ``k >= stride``.
    Other arguments and errors as for ``linear``.
    """
    layout = CONV_TRANSPOSE_KERNEL if transpose_kernel else CONV_TRANSPOSE
    return layer_rule("conv_transpose", torch, jax, names, _weight_and_bias("kernel", layout))


def batch_norm(torch: str, jax: str | None = None, *, names: Names = None) -> Rule:
    """``nn.BatchNorm1d/2d/3d`` and Flax ``BatchNorm``: every leaf has shape (C,).

    ``num_batches_tracked`` counts calls and has no effect unless ``momentum=None``; Flax has
    no such variable, and it is then PyTorch's alone. Arguments and errors as for ``linear``.
    """
    counter = pair("num_batches_tracked", "num_batches_tracked", SAME, optional=True)
    theirs = {"weight": "scale", "running_mean": "mean", "running_var": "var"}
    flax = [pair(t, j, SAME) for t, j in theirs.items()]
    plain = [pair(t, t, SAME) for t in theirs]
    variants = (Variant((*links, _BIAS, counter)) for links in (flax, plain))
    return layer_rule("batch_norm", torch, jax, names, variants)


def layer_norm(torch: str, jax: str | None = None, *, names: Names = None) -> Rule:
    """``nn.LayerNorm`` and Flax ``LayerNorm``: scale and bias (C,).

    Flax's epsilon is 1e-6 and PyTorch's 1e-5: give one to the other. Arguments and errors as
    for ``linear``.
    """
    return layer_rule("layer_norm", torch, jax, names, _weight_and_bias("scale", SAME))


def group_norm(torch: str, jax: str | None = None, *, names: Names = None) -> Rule:
    """``nn.GroupNorm`` and Flax ``GroupNorm``: scale and bias (C,).

    Flax's epsilon is 1e-6 and PyTorch's 1e-5. Arguments and errors as for ``linear``.
    """
    return layer_rule("group_norm", torch, jax, names, _weight_and_bias("scale", SAME))


def rms_norm(torch: str, jax: str | None = None, *, names: Names = None) -> Rule:
    """``nn.RMSNorm`` and Flax ``RMSNorm``: scale (C,).

    Flax's epsilon is 1e-6; PyTorch's default is that of the dtype, ``finfo(dtype).eps``.
    Arguments and errors as for ``linear``.
    """
    return layer_rule("rms_norm", torch, jax, names, _weight_and_bias("scale", SAME))


def embedding(torch: str, jax: str | None = None, *, names: Names = None) -> Rule:
    """``nn.Embedding`` and Flax ``Embed``: (entries, features) on both sides.

    Arguments and errors as for ``linear``.
    """
    variants = (
        Variant((pair("weight", "embedding", SAME),)),
        Variant((pair("weight", "weight", SAME),)),
    )
    return layer_rule("embedding", torch, jax, names, variants)


def tensor(torch: str, jax: str | None = None, layout: Layout = SAME) -> Rule:
    """One tensor of ``nn.Module.state_dict`` and one leaf.

    Args:
      torch: name of the tensor.
      jax: name of the leaf; None: the same.
      layout: from the one to the other; ``SAME`` where it is not given.
    """
    jax = torch if jax is None else jax
    return Rule("tensor", torch, jax, (Variant((Link((torch,), (jax,), layout, "tensor"),)),))


def torch_only(torch: str) -> Rule:
    """A tensor of ``nn.Module.state_dict`` without a counterpart, such as a constant mask.

    Args:
      torch: name of the tensor.
    """
    return Rule(
        "torch_only", torch, torch, (Variant((Link((torch,), (), SAME, "torch_only"),)),)
    )


def _weight_and_bias(
    flax: str, layout: Layout, plain: Layout = SAME
) -> tuple[Variant, Variant]:
    """In Flax's names, or in PyTorch's."""
    return (
        Variant((pair("weight", flax, layout), _BIAS)),
        Variant((pair("weight", "weight", plain), _BIAS)),
    )
