"""Mixed precision: which dtype parameters, computation, loss and gradients have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ._dtypes import dtype_of
from ._loss_fn import CanonicalLossFn, LossFn, canonical
from ._select import Selector, selected
from ._state import Loss, PyTree
from ._trees import named_leaves


@dataclass(frozen=True)
class Policy:
    """The dtypes of a training step, by name.

    .. math:: \\text{grads} \\mathrel{+}= \\text{accumulate}\\bigl(\\nabla_\\theta\\,
              \\text{output}(\\text{loss\\_fn}(\\text{compute}(\\theta),
              \\text{compute}(\\text{batch})))\\bigr)

    The cast to ``compute`` is inside of what is differentiated, as that of ``torch.autocast``
    is: a gradient arrives in the dtype of its parameter, and the optimizer, clipping and
    ``state`` never see ``compute``.

    Unlike autocast it knows no operators: everything that ``loss_fn`` makes of parameters and
    batch is in ``compute``, and a softmax or a loss that is to be float32 is cast there, inside
    ``loss_fn``. ``from_torch(policy=)`` follows PyTorch's lists instead. Buffers are never
    cast: BatchNorm keeps its statistics in float32, as under autocast.

    Args:
      param: that the parameters are kept in; others are an error.
      compute: that ``loss_fn`` gets parameters and batch in. None: as they are, for a
        ``loss_fn`` that casts by itself.
      output: of the loss that is scaled and differentiated.
      accumulate: of the sums of gradients, of 32 bits or more. That of the parameters, where
        it is wider.
      batch: which leaves of a microbatch are cast: a regular expression on their names, a
        callable ``(name, leaf) -> bool``, a mask. None: all that are floating. Integers never
        are. Leave out what is no activation: bfloat16 has no 3001, so a number of tokens that
        the loss is divided by would be 3008.

    Raises:
      ValueError: a name is of no floating dtype, or ``accumulate`` has fewer than 32 bits.

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_,
      2017.
    """

    param: Any = "float32"
    compute: Any = "float32"
    output: Any = "float32"
    accumulate: Any = "float32"
    batch: Selector | None = None

    def __post_init__(self):
        for field in ("param", "compute", "output", "accumulate"):
            value = getattr(self, field)
            if not (field == "compute" and value is None):
                object.__setattr__(self, field, _floating(field, value))
        if jnp.finfo(self.accumulate).bits < 32:
            raise ValueError(
                f"accumulate={self.accumulate!r} has {jnp.finfo(self.accumulate).bits} bits: a "
                f"sum of microbatches would lose the small ones. Use 'float32' or 'float64'."
            )


def policy_of(policy: Policy | str | None) -> Policy | None:
    """The policy of that name.

    Raises:
      ValueError: there is none.
      TypeError: ``policy`` is no ``Policy``, name or None.
    """
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise ValueError(
                f"no policy {policy!r}: there are {', '.join(map(repr, POLICIES))}, and "
                f"instep.Policy(param, compute, output, accumulate) for others."
            )
        return POLICIES[policy]
    if policy is not None and not isinstance(policy, Policy):
        raise TypeError(
            f"policy is None, {', '.join(map(repr, POLICIES))} or an instep.Policy; got a "
            f"{type(policy).__name__}."
        )
    return policy


def under_policy(loss_fn: LossFn, policy: Policy | None) -> CanonicalLossFn:
    """``loss_fn`` in its canonical form, with the casts of ``policy`` around it.

    Raises:
      TypeError: see ``canonical``; and, when called, the parameters are in another dtype.
    """
    call = canonical(loss_fn)
    if policy is None:
        return call

    def cast_and_call(params: PyTree, buffers: PyTree, batch: PyTree, rng: Any) -> Loss:
        named = named_leaves(params)
        check_param(policy, {name: dtype_of(leaf).name for name, leaf in named.items()})
        if policy.compute is not None:
            params = _cast(params, policy.compute)
            batch = _cast(batch, policy.compute, policy.batch)
        out = call(params, buffers, batch, rng)
        return replace(out, total=jnp.asarray(out.total, policy.output))

    return cast_and_call


def check_param(policy: Policy, dtypes: Mapping[str, str]) -> None:
    """Raise unless all floating parameters, given by name, are in ``policy.param``.

    Float64 passes: so a parity run asks for semantics, and lifts the casts.
    """
    wrong = {
        name: dtype
        for name, dtype in dtypes.items()
        if dtype not in (policy.param, "float64") and jnp.issubdtype(dtype, jnp.floating)
    }
    if wrong:
        shown = dict(list(wrong.items())[:3])
        raise TypeError(
            f"the policy keeps parameters in {policy.param}; of {len(dtypes)}, {len(wrong)} "
            f"are in another dtype: {shown}. Cast them before init_state, or say so: "
            f"instep.Policy(param={next(iter(wrong.values()))!r}, ...)."
        )


def check_scaled(policy: Policy | None, scaler: Any) -> None:
    """Raise where float16 gradients would vanish unscaled."""
    if policy is not None and policy.compute == "float16" and scaler is None:
        raise ValueError(
            "policy computes in float16, in which gradients below 6e-8 are zero, and the state "
            "has no scaler. Give init_state(..., scaler=instep.GradScaler()), a TorchLoop a "
            "torch.amp.GradScaler, or use policy='bf16'. A scale that stays 1 is "
            "instep.GradScaler(init_scale=1.0, growth_interval=2**31 - 1)."
        )


def _cast(tree: PyTree, dtype: str, selector: Selector | None = None) -> PyTree:
    flags = jax.tree.map(lambda _: True, tree) if selector is None else selected(selector, tree)
    return jax.tree.map(lambda x, on: _to(x, dtype) if on else x, tree, flags)


def _to(x: Any, dtype: str) -> Any:
    return jnp.asarray(x, dtype) if jnp.issubdtype(dtype_of(x), jnp.floating) else x


def _floating(field: str, value: Any) -> str:
    try:
        dtype = jnp.dtype(value)
    except TypeError as error:
        raise ValueError(
            f"{field}={value!r} is no dtype. Use a name such as 'float32' or 'bfloat16'."
        ) from error
    if value is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"{field}={value!r} is not floating. Use a name such as 'float32' or 'bfloat16'."
        )
    return dtype.name


POLICIES = {"bf16": Policy(compute="bfloat16"), "fp16": Policy(compute="float16")}
