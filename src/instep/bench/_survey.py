"""Before anything is timed: how much work it is, and what the first steps must give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from .._loop import JaxLoop
from . import _flops
from ._contender import Contender, build
from ._equal import Steps, check_halves, check_steps
from ._fused import fused
from ._problem import Problem, load, surroundings
from ._settings import Job


COMPARED = ("loss", "parameter", "buffer")  # what every contender can show


def survey(job: Job, say: Callable[[str], None]) -> dict[str, Any]:
    """What must be known, and be so, before anything is timed.

    Returns:
      ``work``: ``items`` of a ``unit`` and ``flops`` (``flops_by`` whom) per step, and more;
      ``has_torch_half``: whether TARGET does;
      ``parity``: the verdict on the halves of TARGET; ``judged``: by contender, how many leaves
      of its first steps are in step. None and empty without a check.

    Raises:
      UnequalWorkError: the halves or a contender would do other work.
      BenchError: a contender cannot be made of TARGET.
    """
    problem = load(job.target, job.settings)
    alone = problem.torch_loop is None
    say("how much work it is")
    work = _work_of_jax(problem) if alone else _work(problem)
    found = {"work": work, "has_torch_half": not alone}
    if not job.settings.check_steps:
        return found | {"parity": None, "judged": {}}
    parity = None
    if not alone:
        say("parity")
        parity = _parity(load(job.target, job.settings, small=True))
        check_halves(job.target, parity)
    double = load(job.target, job.settings, double=True)
    with surroundings(double):
        say("the first steps in float64")
        reference = _reference_of_jax(double) if alone else _reference(double)
    judged = {}
    for name in job.contenders:
        say(f"the first steps of {name}")
        # Before float64 is set: a model that draws its weights in it has others.
        fresh = load(job.target, job.settings, double=True, contender=name)
        with surroundings(fresh):
            seen = first_steps(build(name, fresh), job.settings.check_steps)
        judged[name] = check_steps(name, reference, seen)
    return found | {"parity": parity, "judged": judged}


def items_of(shape: Sequence[int], floating: bool) -> tuple[int, str]:
    """How many of what a microbatch holds, by its first array.

    Whole numbers (B, T) are ``B T`` tokens, floats (B, ., ., .) are B images; else B examples.
    """
    if not floating and len(shape) == 2:
        return math.prod(shape), "tokens"
    unit = "images" if floating and len(shape) == 4 else "examples"
    return (int(shape[0]) if shape else 1), unit


def _work(problem: Problem) -> dict[str, Any]:
    from ..bridge._tensors import tensors_in

    loop, window = problem.torch_loop, problem.windows()[0]
    assert loop is not None
    first = tensors_in(window[0])[0]
    items, unit = items_of(tuple(first.shape), first.is_floating_point())
    flops = _flops.of_torch(loop, window)
    parameters = list(loop.model.parameters())
    return {
        "items": items * loop.accumulate,
        "unit": unit,
        "batches_left_out": problem.left_out,
        "parameters": sum(p.numel() for p in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "accumulate": loop.accumulate,
        "flops": flops or None,
        "flops_by": _flops.BY_TORCH if flops else None,
    }


def _work_of_jax(problem: Problem) -> dict[str, Any]:
    loop: JaxLoop = problem.given
    k, batch = loop.accumulate, problem.jax_batches()[0]
    microbatch = batch if k == 1 else jax.tree.map(lambda x: x[0], batch)
    first = np.asarray(jax.tree.leaves(microbatch)[0])
    items, unit = items_of(first.shape, np.issubdtype(first.dtype, np.floating))
    flops = _flops.of_jax(loop, microbatch)
    return {
        "items": items * k,
        "unit": unit,
        "batches_left_out": problem.left_out,
        "parameters": sum(x.size for x in jax.tree.leaves(loop.params)),
        "dtype": str(jax.tree.leaves(loop.params)[0].dtype),
        "accumulate": k,
        "flops": flops,
        "flops_by": _flops.BY_JAX if flops else None,
    }


def _parity(problem: Problem) -> dict[str, Any]:
    """The verdict of ``parity.run`` on TARGET as it is, in few steps."""
    from ..parity import run
    from ..parity._words import told

    steps = problem.settings.check_steps
    report = run(problem.given, steps, checks=False)
    return {
        "verdict": str(report.verdict),
        "in_step": report.in_step,
        "reason": report.reason,
        "steps": steps,
        "told": [list(line) for line in told(report)],
        "not_shown": [] if report.coverage.complete else list(report.coverage.unseen),
    }


def _reference(problem: Problem) -> Steps:
    """PyTorch's own float64 steps, and the floors that copies under rounding measure."""
    from ..parity._records import Plan
    from ..parity._torch_walk import begin_torch

    loop = problem.torch_loop
    assert loop is not None
    walk = begin_torch(Plan("float64"), problem.reference(), loop)
    seen, floors = [_compared(walk.standing)], [{}]
    for n, window in enumerate(problem.windows(), start=1):
        step = walk.step(n, window)
        seen.append(_compared(step.right))
        floors.append({x: f.error for x, f in step.floors.items() if x.kind in COMPARED})
    return Steps(seen, floors)


def _reference_of_jax(problem: Problem) -> Steps:
    """instep's own float64 steps, and how far weights moved by one ulp take them."""
    from ..parity._judge import distance
    from ..parity._tolerance import DRAWS

    seen, *draws = (_taken(moved) for moved in (problem, *_moved(problem, DRAWS)))
    floors = [
        {
            leaf: max(distance(draw[n][leaf], right) for draw in draws)
            for leaf, right in x.items()
        }
        for n, x in enumerate(seen)
    ]
    return Steps(seen, [{}, *floors[1:]])


def _moved(problem: Problem, draws: int) -> list[Problem]:
    def by_one_ulp(x: Any, rng: np.random.Generator) -> np.ndarray:
        x = np.asarray(x, np.float64)
        return np.nextafter(x, np.where(rng.random(x.shape) < 0.5, -np.inf, np.inf))

    rngs = [np.random.default_rng(seed) for seed in range(draws)]
    return [
        replace(
            problem,
            given=replace(
                problem.given,
                params=jax.tree.map(lambda x, r=rng: by_one_ulp(x, r), problem.given.params),
            ),
        )
        for rng in rngs
    ]


def _taken(problem: Problem) -> list[Any]:
    return first_steps(fused(problem, ""), problem.settings.check_steps)


def first_steps(contender: Contender, steps: int) -> list[Any]:
    """What stands before the first step of a contender, and after each."""
    seen = [contender.standing()]
    for n in range(steps):
        contender.step(n)
        contender.wait()
        seen.append(contender.observe())
    return seen


def _compared(observation: Any) -> Any:
    return {leaf: x for leaf, x in observation.items() if leaf.kind in COMPARED}
