"""Architectures that people train, each in a training loop of PyTorch, small and random.

Every function takes the probability of dropout and returns an ``instep.TorchLoop``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

import instep
from recipe import padded, tokens, trained
from torch_models import (
    TCN,
    VAE,
    Critic,
    Discriminator,
    Generator,
    MessagePassing,
    MLPMixer,
    RecurrentLanguageModel,
    ResNet18,
    Translator,
    UNet,
)
from transformers_text import (
    bart,
    bert,
    gemma,
    gpt2,
    llama,
    mamba,
    mixtral,
    qwen3,
    roberta,
    t5,
)
from transformers_vision import (
    clip,
    convnext,
    detr,
    efficientnet,
    resnet,
    swin,
    vit,
    wav2vec2,
    whisper,
)


CLASSES, VOCAB = 5, 41


def resnet18(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)
    return trained(ResNet18(6, CLASSES, dropout), _classified, lambda: _images(8))


def unet(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)

    def batch():
        return torch.randn(2, 3, 16, 16), torch.randint(CLASSES, (2, 16, 16))

    return trained(UNet(6, CLASSES, dropout), _classified, batch)


def generator(dropout: float = 0.0) -> instep.TorchLoop:
    """Against a discriminator that is not trained now. It has no dropout of its own."""
    torch.manual_seed(0)
    judge = Discriminator(4, dropout).requires_grad_(False)
    both = nn.ModuleDict({"generator": Generator(16, 8), "judge": judge})

    def loss_fn(model, noise):
        logits = model["judge"](model["generator"](noise))
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))

    return trained(both, loss_fn, lambda: torch.randn(3, 16, 1, 1))


def discriminator(dropout: float = 0.0) -> instep.TorchLoop:
    """Real images against generated ones."""
    torch.manual_seed(0)

    def loss_fn(model, batch):
        real, fake = batch
        criterion = nn.BCEWithLogitsLoss()
        on_real, on_fake = model(real), model(fake)
        return criterion(on_real, torch.full_like(on_real, 0.9)) + criterion(
            on_fake, torch.zeros_like(on_fake)
        )

    def batch():
        return torch.randn(3, 3, 16, 16), torch.tanh(torch.randn(3, 3, 16, 16))

    return trained(Discriminator(8, dropout), loss_fn, batch)


def lstm(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)
    return trained(RecurrentLanguageModel(nn.LSTM, VOCAB, 24, dropout), _next_word, _words)


def gru(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)
    return trained(RecurrentLanguageModel(nn.GRU, VOCAB, 24, dropout), _next_word, _words)


def transformer(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)

    def loss_fn(model, batch):
        source, target = batch
        logits = model(source, target[:, :-1])
        return F.cross_entropy(
            logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, label_smoothing=0.1
        )

    return trained(Translator(VOCAB, 32, dropout), loss_fn, lambda: (_words(), _words()))


def vae(dropout: float = 0.0) -> instep.TorchLoop:
    """It draws with and without dropout, which it has not."""
    del dropout
    torch.manual_seed(0)

    def loss_fn(model, x):
        decoded, mean, logvar = model(x)
        likelihood = F.binary_cross_entropy(decoded, x.flatten(1), reduction="sum")
        divergence = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
        return (likelihood + divergence) / len(x)

    return trained(VAE(64, 32, 4), loss_fn, lambda: torch.rand(4, 1, 8, 8))


def gnn(dropout: float = 0.0) -> instep.TorchLoop:
    """Three graphs in a batch, as one with three components."""
    torch.manual_seed(0)
    graphs, nodes, edges = 3, 5, 8

    def batch():
        first = nodes * torch.arange(graphs).repeat_interleave(edges)
        return (
            torch.randn(graphs * nodes, 6),
            torch.randint(nodes, (2, graphs * edges)) + first,
            torch.arange(graphs).repeat_interleave(nodes),
            torch.randint(CLASSES, (graphs,)),
        )

    def loss_fn(model, batch):
        x, edge_index, graph, labels = batch
        return F.cross_entropy(model(x, edge_index, graph, len(labels)), labels)

    return trained(MessagePassing(6, 24, CLASSES, dropout), loss_fn, batch)


def mixer(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)
    model = MLPMixer(16, 4, 24, CLASSES, dropout)

    def batch():
        mixed = torch.softmax(torch.randn(3, CLASSES), dim=-1)
        return torch.randn(3, 3, 16, 16), mixed

    return trained(model, _classified, batch)


def tcn(dropout: float = 0.0) -> instep.TorchLoop:
    torch.manual_seed(0)

    def loss_fn(model, batch):
        series, target = batch
        return F.smooth_l1_loss(model(series), target)

    return trained(
        TCN(3, 16, 2, dropout), loss_fn, lambda: (torch.randn(4, 3, 20), torch.randn(4, 2))
    )


def critic(dropout: float = 0.0) -> instep.TorchLoop:
    """The hinge loss, with spectral normalisation."""
    torch.manual_seed(0)

    def loss_fn(model, batch):
        real, fake = batch
        return F.relu(1 - model(real)).mean() + F.relu(1 + model(fake)).mean()

    def batch():
        return torch.randn(3, 3, 16, 16), torch.randn(3, 3, 16, 16)

    return trained(Critic(8, dropout), loss_fn, batch)


def _classified(model, batch):
    inputs, labels = batch
    return F.cross_entropy(model(inputs), labels)


def _images(batch: int):
    return torch.randn(batch, 3, 32, 32), torch.randint(CLASSES, (batch,))


def _words() -> torch.Tensor:
    return padded(tokens(3, 8, VOCAB, low=1))[0]


def _next_word(model, ids):
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=0)


_ALL = (
    *(gpt2, bert, roberta, llama, qwen3, gemma, mixtral, mamba, t5, bart),
    *(vit, swin, convnext, resnet, efficientnet, whisper, wav2vec2, clip, detr),
    *(resnet18, unet, generator, discriminator, lstm, gru, transformer, vae, gnn),
    *(mixer, tcn, critic),
)
ARCHITECTURES: dict[str, Callable[..., instep.TorchLoop]] = {f.__name__: f for f in _ALL}
