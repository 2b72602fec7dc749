"""What matching asks of a PyTorch module: its tensors by name, and its layers by kind."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ._linen import Layer
from ._rule import join
from ._sides import Side, tied


KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "conv_transpose": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    "batch_norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    "layer_norm": (nn.LayerNorm,),
    "group_norm": (nn.GroupNorm,),
    "rms_norm": (nn.RMSNorm,),
    "embedding": (nn.Embedding, nn.EmbeddingBag),
}


def side_of(model: nn.Module) -> Side:
    """One name for every tensor of a module; its other names, if it is tied, lead there."""
    shapes, lookup, first = {}, {}, {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            lookup[name] = first.setdefault(id(tensor), name)
            shapes[lookup[name]] = tuple(tensor.shape)
    return Side(shapes, lookup, tied(lookup), tuple(_layers(model)))


def _layers(model: nn.Module) -> Iterator[Layer]:
    """In order of registration; what is inside a layer of a known kind belongs to it."""
    inside: set[nn.Module] = set()
    for path, module in model.named_modules():
        if module in inside:
            continue
        known = list(_layers_of(path, module))
        if known:
            inside |= set(module.modules())
            yield from known
            continue
        own = *module.named_parameters(recurse=False), *module.named_buffers(recurse=False)
        for leaf, _ in own:
            name = join(path, leaf)
            yield Layer("tensor", name)


def _layers_of(path: str, module: nn.Module) -> Iterator[Layer]:
    for kind, classes in KINDS.items():
        if isinstance(module, classes):
            yield Layer(kind, path)
    if isinstance(module, nn.MultiheadAttention):
        yield Layer("multihead_attention", path, {"heads": module.num_heads})
    for kind, classes in (("lstm", (nn.LSTM, nn.LSTMCell)), ("gru", (nn.GRU, nn.GRUCell))):
        if not isinstance(module, classes):
            continue
        if isinstance(module, nn.RNNCellBase):
            yield Layer(kind, path, {"layer": None})
            continue
        for layer in range(module.num_layers):
            for reverse in (False, True)[: 1 + module.bidirectional]:
                inside = _inside_recurrent(module, layer, reverse)
                options = {"layer": layer, "reverse": reverse}
                yield Layer(kind, path, options, inside, f"{layer}{reverse}")


def _inside_recurrent(module: nn.RNNBase, layer: int, reverse: bool) -> tuple[str, ...]:
    numbers = [f"{layer}", f"layers.{layer}", f"layers_{layer}"]
    sides = ("backward_rnn" if reverse else "forward_rnn",) if module.bidirectional else ("",)
    return (
        "",  # PyTorch's own names, or a single cell
        *(
            join(join(number, side), cell)
            for number in (["", *numbers] if module.num_layers == 1 else numbers)
            for side in sides
            for cell in ("cell", "")
            if number or side or cell
        ),
    )
