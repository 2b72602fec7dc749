"""``keep_memory``: page faults of a step whose temporary memory malloc would map anew."""

import subprocess
import sys
import textwrap

import pytest


FAULTS = """
    import resource

    import jax
    import jax.numpy as jnp

    import instep

    KEEP

    @jax.jit
    def step(x):  # 64 MB that a loop carries
        square = jnp.broadcast_to(x, (4096, 4096))
        return jax.lax.fori_loop(0, 2, lambda _, y: jnp.sin(y[::-1]), square).sum()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step(x).block_until_ready()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    x = jnp.ones(4096)
    print(sorted(faults() for _ in range(9))[4])  # the heap may grow once more
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of another library")
def test_the_pages_of_a_step_are_kept():
    freed, _ = run(FAULTS.replace("KEEP", ""))
    kept, _ = run(FAULTS.replace("KEEP", "assert instep.keep_memory()"))
    assert int(freed) > 10_000  # 64 MB of 4 kB
    assert int(kept) < 0.01 * int(freed)


def test_it_is_refused_when_it_is_too_late():
    _, error = run("import jax, instep; jax.devices(); instep.keep_memory()")
    assert (
        "RuntimeError: JAX has computed something already; call instep.keep_memory()" in error
    )


def test_another_library_is_left_alone():
    said, error = run("""
        import platform

        import jax
        import instep

        platform.libc_ver = lambda: ("musl", "1.2")
        print(instep.keep_memory())
    """)
    assert said == "False", error
