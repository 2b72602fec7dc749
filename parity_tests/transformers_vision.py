"""Image, audio and paired models of Hugging Face transformers, small and random.

Every function takes the probability of dropout; where a model has several, all are set.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import transformers as hf
from torch import nn

import instep
from recipe import ignored, own_loss, padded, tokens, trained


BATCH, SIDE, CLASSES = 2, 32, 5


def labelled(side: int = SIDE) -> dict[str, torch.Tensor]:
    """Images with a class each."""
    return {
        "pixel_values": torch.randn(BATCH, 3, side, side),
        "labels": torch.randint(CLASSES, (BATCH,)),
    }


def vit(dropout: float = 0.0) -> instep.TorchLoop:
    """Dosovitskiy et al., An Image is Worth 16x16 Words, 2021."""
    torch.manual_seed(0)
    config = hf.ViTConfig(
        image_size=SIDE,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return trained(hf.ViTForImageClassification(config), own_loss, labelled)


def swin(dropout: float = 0.0) -> instep.TorchLoop:
    """Liu et al., Swin Transformer, 2021. Dropout here includes that of whole paths."""
    torch.manual_seed(0)
    config = hf.SwinConfig(
        image_size=SIDE,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        drop_path_rate=dropout,
    )
    return trained(hf.SwinForImageClassification(config), own_loss, labelled)


def convnext(dropout: float = 0.0) -> instep.TorchLoop:
    """Liu et al., A ConvNet for the 2020s, 2022. Its dropout is that of whole paths."""
    torch.manual_seed(0)
    config = hf.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
        num_labels=CLASSES,
        drop_path_rate=dropout,
    )
    return trained(hf.ConvNextForImageClassification(config), own_loss, lambda: labelled(64))


def resnet(dropout: float = 0.0) -> instep.TorchLoop:
    """He et al., Deep Residual Learning for Image Recognition, 2016. It has no dropout."""
    del dropout
    torch.manual_seed(0)
    model = hf.ResNetForImageClassification(_resnet_config(num_labels=CLASSES))
    return trained(model, own_loss, lambda: labelled(64))


def efficientnet(dropout: float = 0.0) -> instep.TorchLoop:
    """Tan and Le, EfficientNet, 2019."""
    torch.manual_seed(0)
    config = hf.EfficientNetConfig(
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=1.0,
        in_channels=[32, 32, 64],
        out_channels=[32, 64, 96],
        kernel_sizes=[3, 3, 5],
        strides=[1, 2, 2],
        num_block_repeats=[1, 2, 2],
        expand_ratios=[1, 4, 4],
        depthwise_padding=[],
        hidden_dim=320,
        num_labels=CLASSES,
        dropout_rate=dropout,
        drop_connect_rate=dropout,
    )
    model = hf.EfficientNetForImageClassification(config)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # the own ones let the signal of a small model vanish
            nn.init.kaiming_normal_(module.weight)
    return trained(model, own_loss, lambda: labelled(64))


def whisper(dropout: float = 0.0) -> instep.TorchLoop:
    """Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022."""
    torch.manual_seed(0)
    frames, bins, vocab = 16, 8, 41
    config = hf.WhisperConfig(
        vocab_size=vocab,
        num_mel_bins=bins,
        max_source_positions=frames,
        max_target_positions=16,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        begin_suppress_tokens=None,
    )

    def batch():
        ids, mask = padded(tokens(BATCH, 7, vocab))
        return {
            "input_features": torch.randn(BATCH, bins, 2 * frames),
            "labels": ignored(ids, mask),
        }

    return trained(hf.WhisperForConditionalGeneration(config), own_loss, batch)


def wav2vec2(dropout: float = 0.0) -> instep.TorchLoop:
    """Baevski et al., wav2vec 2.0, 2020, with the loss of CTC.

    The model's own loss selects the labels that are no padding, a shape that depends on
    numbers; here the lengths are in the batch.
    """
    torch.manual_seed(0)
    vocab, samples = 12, 640
    config = hf.Wav2Vec2Config(
        vocab_size=vocab,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 3, 3),
        conv_stride=(5, 2, 2),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        hidden_dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        feat_proj_dropout=dropout,
        final_dropout=dropout,
        layerdrop=0.0,
        apply_spec_augment=False,
        pad_token_id=0,
    )

    def batch():
        labels = torch.randint(1, vocab, (BATCH, 6))
        return torch.randn(BATCH, samples), labels, torch.tensor([6, 4])

    def loss_fn(model, batch):
        audio, labels, label_lengths = batch
        log_probs = F.log_softmax(model(audio).logits, dim=-1).transpose(0, 1)
        lengths = torch.full((len(audio),), len(log_probs))
        return F.ctc_loss(log_probs, labels, lengths, label_lengths, zero_infinity=True)

    return trained(hf.Wav2Vec2ForCTC(config), loss_fn, batch)


def clip(dropout: float = 0.0) -> instep.TorchLoop:
    """Radford et al., Learning Transferable Visual Models From Language, 2021."""
    torch.manual_seed(0)
    vocab, length = 61, 10
    both = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "attention_dropout": dropout,
    }
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    config = hf.CLIPConfig(
        text_config={
            **both,
            **special,
            "vocab_size": vocab,
            "max_position_embeddings": length,
        },
        vision_config={**both, "image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )

    def batch():
        ids, mask = padded(tokens(BATCH, length, vocab))
        ends = mask.sum(1, keepdim=True) - 1
        return {
            "input_ids": ids.scatter(1, ends, special["eos_token_id"]),
            "attention_mask": mask,
            "pixel_values": torch.randn(BATCH, 3, SIDE, SIDE),
            "return_loss": True,
        }

    return trained(hf.CLIPModel(config), own_loss, batch)


def detr(dropout: float = 0.0) -> instep.TorchLoop:
    """Carion et al., End-to-End Object Detection with Transformers, 2020.

    Its loss assigns boxes to queries by the Hungarian algorithm, which runs outside of
    PyTorch; here query n predicts box n.
    """
    torch.manual_seed(0)
    queries = 5
    config = hf.DetrConfig(
        backbone_config=_resnet_config(out_features=["stage4"]),
        backbone=None,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_queries=queries,
        num_labels=CLASSES,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
    )

    def batch():
        mask = torch.ones(BATCH, 64, 64, dtype=torch.long)
        mask[-1, :, 48:] = 0
        return {
            "pixel_values": torch.randn(BATCH, 3, 64, 64) * mask[:, None],
            "pixel_mask": mask,
            "classes": torch.randint(CLASSES + 1, (BATCH, queries)),
            "boxes": torch.rand(BATCH, queries, 4),
        }

    def loss_fn(model, batch):
        output = model(batch["pixel_values"], pixel_mask=batch["pixel_mask"])
        logits = output.logits.flatten(0, 1)
        boxes = F.l1_loss(output.pred_boxes, batch["boxes"])
        return F.cross_entropy(logits, batch["classes"].flatten()) + 5 * boxes

    return trained(hf.DetrForObjectDetection(config), loss_fn, batch)


def _resnet_config(**options) -> hf.ResNetConfig:
    return hf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 2, 1],
        layer_type="basic",
        **options,
    )
