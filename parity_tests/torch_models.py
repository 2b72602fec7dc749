"""Models in plain PyTorch, as they are written in its tutorials and papers' code.

Letters: B batch, T time, C channels, V vocabulary, N nodes, E edges.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """He et al., Deep Residual Learning for Image Recognition, 2016."""

    def __init__(self, width: int, classes: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], width
        for i in range(4):
            outputs = width * 2**i
            stages += [BasicBlock(inputs, outputs, 1 if i == 0 else 2)]
            stages += [BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.layers = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layers(x))
        return self.fc(self.dropout(torch.flatten(x, 1)))


class UNet(nn.Module):
    """Ronneberger et al., U-Net, 2015."""

    def __init__(self, width: int, classes: int, dropout: float):
        super().__init__()
        self.enter = self._double(3, width, 0.0)
        self.down1 = self._double(width, 2 * width, 0.0)
        self.down2 = self._double(2 * width, 4 * width, dropout)
        self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join1 = self._double(4 * width, 2 * width, dropout)
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.join2 = self._double(3 * width, width, 0.0)
        self.leave = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _double(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.GroupNorm(2, outputs),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )

    def forward(self, x):
        high = self.enter(x)
        middle = self.down1(F.max_pool2d(high, 2))
        low = self.down2(F.max_pool2d(middle, 2))
        middle = self.join1(torch.cat([middle, self.up1(low)], dim=1))
        high = self.join2(torch.cat([high, self.up2(middle)], dim=1))
        return self.leave(high)


class Generator(nn.Sequential):
    """Radford et al., DCGAN, 2016: images from noise."""

    def __init__(self, latent: int, width: int):
        super().__init__(
            nn.ConvTranspose2d(latent, 4 * width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )


class Discriminator(nn.Sequential):
    """Radford et al., DCGAN, 2016: whether an image is real."""

    def __init__(self, width: int, dropout: float):
        super().__init__(
            nn.Conv2d(3, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(2 * width, 1, 4, 1, 0, bias=False),
            nn.Flatten(),
        )


class RecurrentLanguageModel(nn.Module):
    """Word by word, with tied embeddings (Press and Wolf, 2017)."""

    def __init__(self, cell: type[nn.RNNBase], vocab: int, width: int, dropout: float):
        super().__init__()
        self.embed = nn.Embedding(vocab, width, padding_idx=0)
        self.rnn = cell(width, width, num_layers=2, dropout=dropout, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocab)
        self.head.weight = self.embed.weight

    def forward(self, ids_BT):
        hidden_BTC, _ = self.rnn(self.drop(self.embed(ids_BT)))
        return self.head(self.drop(hidden_BTC))


class Translator(nn.Module):
    """Vaswani et al., Attention Is All You Need, 2017, by nn.Transformer."""

    def __init__(self, vocab: int, width: int, dropout: float, longest: int = 64):
        super().__init__()
        self.embed = nn.Embedding(vocab, width, padding_idx=0)
        self.transformer = nn.Transformer(
            width, 4, 2, 2, 2 * width, dropout=dropout, batch_first=True
        )
        self.head = nn.Linear(width, vocab)
        position = torch.arange(longest)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(longest, width)
        table[:, 0::2] = torch.sin(position * rate)
        table[:, 1::2] = torch.cos(position * rate)
        self.register_buffer("positions", table, persistent=False)

    def forward(self, source_BT, target_BT):
        length = target_BT.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        out = self.transformer(
            self._embedded(source_BT),
            self._embedded(target_BT),
            tgt_mask=causal,
            src_key_padding_mask=source_BT == 0,
            tgt_key_padding_mask=target_BT == 0,
            memory_key_padding_mask=source_BT == 0,
            tgt_is_causal=True,
        )
        return self.head(out)

    def _embedded(self, ids_BT):
        width = self.embed.embedding_dim
        return self.embed(ids_BT) * math.sqrt(width) + self.positions[: ids_BT.shape[1]]


class VAE(nn.Module):
    """Kingma and Welling, Auto-Encoding Variational Bayes, 2014."""

    def __init__(self, pixels: int, hidden: int, latent: int):
        super().__init__()
        self.encode = nn.Linear(pixels, hidden)
        self.mean, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decode = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Sigmoid()
        )

    def forward(self, x):
        hidden = F.relu(self.encode(x.flatten(1)))
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        std = torch.exp(0.5 * logvar)
        z = mean + torch.randn_like(std) * std
        return self.decode(z), mean, logvar


class MessagePassing(nn.Module):
    """Gilmer et al., Neural Message Passing for Quantum Chemistry, 2017."""

    def __init__(self, features: int, width: int, classes: int, dropout: float):
        super().__init__()
        self.enter = nn.Linear(features, width)
        self.message = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.update = nn.ModuleList(nn.GRUCell(width, width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(width, classes)

    def forward(self, x_NC, edges_2E, graph_N, graphs: int):
        source, target = edges_2E
        h = F.silu(self.enter(x_NC))
        degree = torch.zeros(len(h), dtype=h.dtype).index_add(
            0, target, torch.ones(len(target), dtype=h.dtype)
        )
        for message, update in zip(self.message, self.update, strict=True):
            sent = F.silu(message(torch.cat([h[source], h[target]], dim=-1)))
            received = torch.zeros_like(h).index_add_(0, target, sent)
            h = update(received / degree.clamp(min=1)[:, None], self.dropout(h))
        pooled = torch.zeros(graphs, h.shape[1], dtype=h.dtype)
        pooled = pooled.scatter_add(0, graph_N[:, None].expand_as(h), h)
        return self.leave(pooled)


class MLPMixer(nn.Module):
    """Tolstikhin et al., MLP-Mixer, 2021."""

    def __init__(self, side: int, patch: int, width: int, classes: int, dropout: float):
        super().__init__()
        patches = (side // patch) ** 2
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.tokens = nn.ModuleList(self._mlp(patches, 2 * patches, dropout) for _ in range(2))
        self.channels = nn.ModuleList(self._mlp(width, 2 * width, dropout) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    @staticmethod
    def _mlp(size: int, hidden: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(size, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, size)
        )

    def forward(self, image):
        x_BTC = self.patches(image).flatten(2).transpose(1, 2)
        for i, (tokens, channels) in enumerate(zip(self.tokens, self.channels, strict=True)):
            x_BTC = x_BTC + tokens(self.norms[2 * i](x_BTC).transpose(1, 2)).transpose(1, 2)
            x_BTC = x_BTC + channels(self.norms[2 * i + 1](x_BTC))
        return self.head(self.norm(x_BTC).mean(dim=1))


class TCN(nn.Module):
    """Bai et al., An Empirical Evaluation of Generic Convolutional Networks, 2018."""

    def __init__(self, inputs: int, width: int, outputs: int, dropout: float):
        super().__init__()
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv1d(inputs if i == 0 else width, width, 3, dilation=2**i))
            for i in range(3)
        )
        self.enter = nn.Conv1d(inputs, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(width, outputs)

    def forward(self, x_BCT):
        shortcut = self.enter(x_BCT)
        for conv in self.convs:
            past = F.pad(x_BCT, (2 * conv.dilation[0], 0))
            x_BCT = F.relu(self.dropout(F.relu(conv(past))) + shortcut)
            shortcut = x_BCT
        return self.leave(x_BCT[:, :, -1])


class Critic(nn.Sequential):
    """Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018."""

    def __init__(self, width: int, dropout: float):
        super().__init__(
            spectral_norm(nn.Conv2d(3, width, 3, 2, 1)),
            nn.LeakyReLU(0.1),
            spectral_norm(nn.Conv2d(width, 2 * width, 3, 2, 1)),
            nn.LeakyReLU(0.1),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            spectral_norm(nn.Linear(2 * width, 1)),
        )
