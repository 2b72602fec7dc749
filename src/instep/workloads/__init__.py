"""Real training problems, each with a PyTorch half and a Flax half."""

from importlib import import_module as _import_module

from .._compat import require as _require
from ._metric import Metric as Metric
from ._workload import Workload as Workload


_MODULES = {
    "digits-cnn": "digits_cnn",
    "digits-mlp": "digits_mlp",
    "digits-vit": "digits_vit",
    "text-lstm": "text_lstm",
    "byte-gpt": "byte_gpt",
    "byte-gpt-10m": "byte_gpt",
    "byte-gpt-124m": "byte_gpt",
    "resnet18-32": "resnet",
    "resnet18-224": "resnet",
    "resnet50-224": "resnet",
}


def names() -> list[str]:
    """The names that ``get`` knows."""
    return list(_MODULES)


def get(name: str, precision: str = "float32") -> Workload:
    """The workload called ``name``.

    Args:
      name: one of ``names()``. Those whose ``target`` is None are too large to be trained on
        a CPU.
      precision: ``"bf16"`` computes matrix products and attention in bfloat16, from float32
        weights: ``torch.autocast`` in PyTorch, ``dtype`` in Flax. Only byte-gpt has it.

    Raises:
      KeyError: there is none of that name.
      ValueError: it does not have this precision.
      MissingExtraError: PyTorch, Flax or scikit-learn is not installed.
    """
    module = _MODULES[name]
    for package in ("torch", "flax", *(["sklearn"] if module.startswith("digits") else [])):
        _require(package, f"the workload {name}")
    module = _import_module(f".{module}", __name__)
    if name.startswith("byte-gpt") and precision in ("float32", "bf16"):
        return module.workload(name, precision)
    if precision != "float32":
        raise ValueError(
            f"the workload {name} has no precision {precision!r}. Give precision='float32'; "
            f"byte-gpt also has 'bf16'."
        )
    return module.workload(name) if hasattr(module, "workload") else module.WORKLOAD
