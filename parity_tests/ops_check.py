"""One call of PyTorch's own database: is our program of it PyTorch's?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from instep._errors import LoweringError
from instep.bridge import tensor_to_array
from instep.bridge.lower._draws import Draws, Replay
from instep.bridge.lower._program import Program, run
from instep.bridge.lower._table import ATEN, RANDOM
from instep.parity._drawn import Drawn
from instep.parity._floor import OneUlp
from instep.parity._judge import distance, measure, ulp
from instep.parity._records import Status
from instep.parity._tolerance import DRAWS
from ops_cases import Case


# Operators whose numbers cannot be held against PyTorch's.
OWN_DRAWS = "its numbers are transformed where they are drawn: there is nothing to replay"
NOT_RECORDED = "PyTorch drew nothing more there"  # what Replay says
UNINITIALISED = "its memory is not initialised"
NOT_COMPARED = {
    **dict.fromkeys(("cauchy", "exponential", "geometric", "log_normal"), OWN_DRAWS),
    **dict.fromkeys(("multinomial", "normal", "normal_functional", "random"), OWN_DRAWS),
    **dict.fromkeys(("uniform", "rrelu", "rrelu_with_noise_functional"), OWN_DRAWS),
    **dict.fromkeys(("empty", "empty_like", "empty_permuted", "empty_strided"), UNINITIALISED),
    **dict.fromkeys(("new_empty", "new_empty_strided"), UNINITIALISED),
}


@dataclass
class Outcome:
    """Of one call. In step if nothing else is said."""

    operators: frozenset[str] = frozenset()  # keys of the table
    refused: str = ""
    not_compared: str = ""
    diverged: str = ""
    by_floor: bool = False  # in step within the rounding that PyTorch itself shows


def in_step(x: Outcome) -> bool:
    """Compared, and the same."""
    return not (x.refused or x.not_compared or x.diverged)


def check(case: Case, what: str) -> None:
    """Assert that one call is in step."""
    found = outcome(case)
    assert in_step(found), f"{what}: {found}"


def outcome(case: Case) -> Outcome:
    """Values, dtypes, shapes, and the gradient of every input for random cotangents."""
    try:
        program = case.program()
    except LoweringError as error:
        return Outcome(refused=str(error))
    except Exception as error:
        return Outcome(diverged=_said(error))
    made = Outcome(frozenset(filter(None, (key_of(call.op) for call in program.calls))))
    if not made.operators:
        made.not_compared = "no operator is called"
        return made
    reasons = {NOT_COMPARED[n] for key in made.operators if (n := _name(key)) in NOT_COMPARED}
    made.not_compared = UNINITIALISED if UNINITIALISED in reasons else ""
    try:
        try:
            made.by_floor = _compare(case, program, not made.not_compared)
        except ValueError as error:
            if OWN_DRAWS not in reasons or NOT_RECORDED not in str(error):
                raise
            made.not_compared = OWN_DRAWS
            _compare(case, program, compared=False, replayed=False)
    except NotImplementedError as error:
        return Outcome(refused=_said(error))
    except Exception as error:
        made.diverged = _said(error)
    return made


def _said(error: Exception) -> str:
    notes = "; ".join(getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error} {notes}".strip()


def key_of(op: str) -> str:
    """The key of the table under which the rule of ``aten.name.overload`` stands."""
    namespace, _, full = op.partition(".")
    keys = (full, full.split(".")[0]) if namespace == "aten" else ()
    return next((key for key in keys if key in ATEN or key in RANDOM), "")


def _name(key: str) -> str:
    return key.split(".")[0]


class Made(NamedTuple):
    """What a call returns, and its gradients; complex tensors as pairs of real numbers."""

    values: list[Any]
    grads: list[Any] | None  # None where PyTorch has none


def _compare(case: Case, program: Program, compared: bool, replayed: bool = True) -> bool:
    """Raise if the two differ; say whether rounding had to be measured.

    Not ``compared``: dtypes and shapes alone. Not ``replayed``: with draws of its own.
    """
    with Drawn() as drawn:
        theirs = _theirs(case, case.fresh())

    def draws():
        return Replay(drawn.arrays) if replayed else Draws(jax.random.key(0))

    values, grads = _ours(case, program, draws, cotangents(theirs.values))
    assert len(values) == len(theirs.values), f"{len(values)} results, {len(theirs.values)}"
    for x, y in zip(theirs.values, values, strict=True):
        x = jnp.asarray(tensor_to_array(x) if torch.is_tensor(x) else x)
        assert x.dtype == y.dtype, f"{y.dtype}, in PyTorch {x.dtype}"
        assert x.shape == np.shape(y), f"shape {np.shape(y)}, in PyTorch {x.shape}"
    ours = Made(values, None if theirs.grads is None else grads)
    return compared and _judge(case, theirs, ours)


def _judge(case: Case, theirs: Made, ours: Made) -> bool:
    names = [*(f"result {i}" for i in range(len(ours.values)))]
    names += [f"gradient {i}" for i in range(len(ours.grads or ()))]
    right = [*theirs.values, *(theirs.grads or ())]
    made = [*ours.values, *(ours.grads or ())]
    moved: list[list[Any]] = []
    for i, (name, x, y) in enumerate(zip(names, right, made, strict=True)):
        x, y = tensor_to_array(x) if torch.is_tensor(x) else np.asarray(x), np.asarray(y)
        if not jnp.issubdtype(y.dtype, jnp.floating):
            np.testing.assert_array_equal(x, y, err_msg=name)
            continue
        # A leaf of fewer bits than the rest is rounded at least once.
        exact = x.dtype == np.float64
        largest = np.max(np.abs(x), initial=0.0, where=np.isfinite(x))
        m = measure(0, x, y, 0.0 if exact else ulp(float(largest), x))
        if m.status is Status.DIVERGED and m.error < np.inf:
            moved = moved or [_moved(case, seed) for seed in range(DRAWS)]
            m = measure(0, x, y, max(distance(tensor_to_array(own[i]), x) for own in moved))
        assert m.status is not Status.DIVERGED, f"{name}: {m} (ratio {m.ratio:.3g})"
    return bool(moved)


def _moved(case: Case, seed: int) -> list[Any]:
    """PyTorch's results and gradients with all numbers moved by one ulp."""
    with OneUlp(seed) as one_ulp:
        given = ((x, one_ulp.move(x.detach().clone())) for x in case.tensors)
        made = _theirs(case, tuple(y.requires_grad_(x.requires_grad) for x, y in given))
    return [*made.values, *(made.grads or ())]


def _ours(
    case: Case, program: Program, draws: Callable[[], Draws], given: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Results and gradients, jitted; op by op where numbers are looked at."""
    arrays = [jnp.asarray(tensor_to_array(x)) for x in case.tensors]
    moving = [i for i, x in enumerate(case.tensors) if x.requires_grad]

    def both(differentiated):
        source = draws()

        def called(differentiated):
            filled = dict(enumerate(arrays)) | dict(zip(moving, differentiated, strict=True))
            named = dict(zip(program.inputs, filled.values(), strict=True))
            made = jax.tree.leaves(run(program, named, source))
            return [_pair(jnp.asarray(x)) for x in made]

        values, pull = jax.vjp(called, differentiated)
        if [np.shape(c) for c in given] != [x.shape for x in values]:
            return values, []  # which _compare says
        grads = pull([_like(c, x) for c, x in zip(given, values, strict=True)])[0]
        return values, [_pair(jnp.conj(g)) for g in grads]  # PyTorch's is the conjugate

    differentiated = [arrays[i] for i in moving]
    try:
        return jax.jit(both)(differentiated)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return both(differentiated)


def _theirs(case: Case, tensors: tuple[torch.Tensor, ...]) -> Made:
    values = [_pair(x) for x in case(tensors) if x is not None]
    pulled = [
        (x, torch.as_tensor(c, dtype=x.dtype))
        for x, c in zip(values, cotangents(values), strict=True)
        if torch.is_tensor(x) and x.requires_grad
    ]
    moving = [x for x in tensors if x.requires_grad]
    grads = None
    if pulled:
        outputs, given = zip(*pulled, strict=True)
        grads = torch.autograd.grad(
            outputs, moving, given, allow_unused=True, materialize_grads=True
        )
        grads = [_pair(torch.zeros_like(g) if g._is_zerotensor() else g) for g in grads]
    return Made([x.detach() if torch.is_tensor(x) else x for x in values], grads)


def cotangents(values: list[Any]) -> list[np.ndarray]:
    """The same numbers for every run of a call."""
    noise = np.random.default_rng(0)
    return [np.asarray(noise.normal(size=np.shape(x))) for x in values]


def _like(cotangent: np.ndarray, x: Any) -> Any:
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.asarray(cotangent, x.dtype)
    return np.zeros(x.shape, jax.dtypes.float0)


def _pair(x: Any) -> Any:
    if torch.is_tensor(x):
        return torch.stack([x.real, x.imag], -1) if x.is_complex() else x.resolve_neg()
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.complexfloating):
        return jnp.stack([jnp.real(x), jnp.imag(x)], -1)
    return x
