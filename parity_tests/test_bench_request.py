"""What a benchmark is asked for: contenders, settings, and what their processes are given."""

from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from instep._errors import RequestError
from instep.bench._contender import parse
from instep.bench._process import environment
from instep.bench._settings import WITHOUT_OPTION, Job, Settings
from instep.cli._app import app


def test_contenders_are_named():
    assert parse(["jax-plain", " torch-eager", "jax-plain"]) == [
        "instep",
        "jax-plain",
        "torch-eager",
    ]
    assert parse(["torch-compile:reduce-overhead"])[1] == "torch-compile:reduce-overhead"
    for wrong in ("jax-plan", "flax:fast"):
        with pytest.raises(RequestError, match=f"no contender '{wrong}'"):
            parse([wrong])


@pytest.mark.parametrize(
    "wrong",
    [{"rounds": 0}, {"device": "tpu"}, {"peak_tflops": 0.0}, {"matmul_precision": "low"}],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError):
        Settings(**wrong)


def test_the_options_ask_for_the_same_settings(monkeypatch):
    asked = []
    monkeypatch.setattr("instep.cli._bench.run", lambda *given: asked.append(given[2]))
    others = Settings(
        rounds=3, steps=2, check_steps=1, check_examples=1, seed=4, device="cpu",
        precision="bf16", matmul_precision="bfloat16", threads=1, keep_memory=True,
        peak_tflops=0.5,
    )  # fmt: skip
    same = {name for name, value in asdict(others).items() if value == asdict(Settings())[name]}
    assert same == WITHOUT_OPTION
    for settings in (Settings(), others):
        CliRunner().invoke(app, ["bench", "digits-mlp", *settings.options()])
    assert asked == [Settings(), others]
    assert Settings(warm_up=0).options() is None


def test_a_worker_finds_nothing_compiled_before():
    env = environment(Job("time", "digits-mlp", ("instep",), Settings()), {})
    assert env["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert env["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] == "1"


def test_threads_of_openmp_wait_as_they_do_but_in_the_survey():
    assert "OMP_WAIT_POLICY" not in environment(Job("time", "x", ("instep",), Settings()), {})
    assert environment(Job("survey", "x", ("instep",), Settings()), {})["OMP_WAIT_POLICY"]


@pytest.mark.parametrize(
    ("contender", "device", "platform"),
    [
        ("instep", "auto", None),
        ("instep", "cpu", "cpu"),
        ("instep", "gpu", "cuda"),
        ("instep-lowered", "gpu", "cuda"),
        ("torch-eager", "gpu", "cpu"),
        ("torch-compile:reduce-overhead", "auto", "cpu"),
    ],
)
def test_where_jax_computes(contender, device, platform):
    job = Job("time", "x", (contender,), Settings(device=device))
    assert environment(job, {}).get("JAX_PLATFORMS") == platform
