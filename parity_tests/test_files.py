"""State dicts in files: out and in again to the bit, tied weights too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import instep
from instep import bridge
from loops import make_loop


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def tensors() -> dict[str, torch.Tensor]:
    values = torch.linspace(-3, 3, 12).reshape(3, 4)
    names = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "int64", "uint8")
    cast = {name: values.to(getattr(torch, name)) for name in names}
    special = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    return cast | {
        "special": special,
        "bool": values > 0,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "empty too": torch.zeros(0, 3),
        "transposed": values.T,
        "part": values[:2],
        "other part": values[1:],
        "a b/c.weight": values.clone(),
    }


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype is b[name].dtype and a[name].shape == b[name].shape, name
        bits = [x[name].contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        assert torch.equal(*bits), name


@pytest.mark.parametrize("kind", ["pt", "pth", "safetensors"])
def test_tensors_and_arrays_come_back_to_the_bit(kind, tmp_path):
    path = tmp_path / f"model.{kind}"
    bridge.save_state_dict(tensors(), path)
    assert_same_tensors(bridge.load_state_dict(path), tensors())
    arrays = {name: bridge.tensor_to_array(t) for name, t in tensors().items()}
    bridge.save_state_dict(arrays, path)
    assert_same_tensors(bridge.load_state_dict(path), tensors())
    bridge.save_state_dict(
        {n: jnp.asarray(a) for n, a in arrays.items() if a.itemsize < 8}, path
    )
    small = {n: t for n, t in tensors().items() if t.element_size() < 8}
    assert_same_tensors(bridge.load_state_dict(path), small)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_tied_weights(kind, tmp_path):
    path, model = tmp_path / f"model.{kind}", Tied()
    bridge.save_state_dict(model.state_dict(), path)
    assert_same_tensors(bridge.load_state_dict(path), model.state_dict())
    again = Tied()
    again.load_state_dict(bridge.load_state_dict(path))
    assert again.head.weight is again.embed.weight
    assert torch.equal(again.embed.weight, model.embed.weight)
    if kind == "safetensors":  # as PyTorch's users read and write them
        assert safetensors.torch.load_file(path).keys() == model.state_dict().keys() - {
            "head.weight"
        }
        other = Tied()
        assert safetensors.torch.load_model(other, path) == (set(), [])
        assert_same_tensors(other.state_dict(), model.state_dict())
        safetensors.torch.save_model(model, path)
        assert_same_tensors(bridge.load_state_dict(path), model.state_dict())
    else:
        loaded = torch.load(path, weights_only=True)
        assert loaded["head.weight"].data_ptr() == loaded["embed.weight"].data_ptr()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_tied_arrays(kind, tmp_path):
    """What ``weights_to_torch`` makes: one array under two names, never two that are equal."""
    model = Tied()
    params = {"table": np.zeros((5, 3), "f")}
    stats = {n: np.zeros(3, "f") for n in ("scale", "bias", "mean", "var")}
    rules = [bridge.tensor("embed.weight", "table"), bridge.batch_norm("norm")]
    weights = bridge.match_weights(rules, model, params, {"norm": stats})
    params = bridge.weights_to_jax(weights, model, params)
    buffers = bridge.weights_to_jax(weights, model, {"norm": stats})
    arrays = bridge.weights_to_torch(weights, params, buffers)
    assert arrays["head.weight"] is arrays["embed.weight"]
    path = tmp_path / f"model.{kind}"
    bridge.save_state_dict(arrays, path)
    wanted = {n: t for n, t in model.state_dict().items() if n in arrays}
    assert_same_tensors(bridge.load_state_dict(path), wanted)
    if kind == "safetensors":
        with safetensors.safe_open(path, framework="pt") as file:
            noted = dict(file.metadata())
        assert noted.pop("format") == "pt"
        assert noted in ({"head.weight": "embed.weight"}, {"embed.weight": "head.weight"})


def test_a_training_leaves_for_pytorch(tmp_path):
    """``to_torch``, a file, another process' model: the outputs are those of the loop."""
    loop = make_loop(lambda params: torch.optim.AdamW(params, lr=0.1), sizes=(4, 4))
    train_step, state = instep.from_torch(loop)
    for batch in loop.batches:
        state, _ = train_step(state, batch)
    instep.to_torch(state, loop)
    bridge.save_state_dict(loop.model.state_dict(), tmp_path / "model.safetensors")
    fresh = make_loop(lambda params: torch.optim.SGD(params, lr=0.1)).model
    fresh.load_state_dict(bridge.load_state_dict(tmp_path / "model.safetensors"))
    for name, p in fresh.named_parameters():
        np.testing.assert_array_equal(p.detach().numpy(), jax.device_get(state.params[name]))


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    bridge.save_state_dict({"a": torch.ones(2)}, path)

    def fails(tensors, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space"):
        bridge.save_state_dict({"a": torch.zeros(2)}, path)
    assert torch.equal(bridge.load_state_dict(path)["a"], torch.ones(2))
