"""Text models of Hugging Face transformers, small and random, each in its training loop.

Every function takes the probability of dropout; where a model has several, all are set.
"""

from __future__ import annotations

import torch
import transformers as hf

import instep
from recipe import ignored, own_loss, padded, tokens, trained


VOCAB, LENGTH, BATCH = 61, 10, 2
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
DECODER = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 32}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def causal() -> dict[str, torch.Tensor]:
    """Padded sequences that are predicted from their own past."""
    ids, mask = padded(tokens(BATCH, LENGTH, VOCAB))
    return {"input_ids": ids, "attention_mask": mask, "labels": ignored(ids, mask)}


def translated() -> dict[str, torch.Tensor]:
    """Padded source and target sequences."""
    source, source_mask = padded(tokens(BATCH, LENGTH, VOCAB))
    target, target_mask = padded(tokens(BATCH, LENGTH - 3, VOCAB))
    return {
        "input_ids": source,
        "attention_mask": source_mask,
        "labels": ignored(target, target_mask),
    }


def gpt2(dropout: float = 0.0) -> instep.TorchLoop:
    """Radford et al., Language Models are Unsupervised Multitask Learners, 2019."""
    torch.manual_seed(0)
    config = hf.GPT2Config(
        vocab_size=VOCAB,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        **SPECIAL,
    )
    return trained(hf.GPT2LMHeadModel(config), own_loss, causal)


def bert(dropout: float = 0.0) -> instep.TorchLoop:
    """Devlin et al., BERT, 2019: classification of sequences."""
    torch.manual_seed(0)
    config = hf.BertConfig(
        **SIZES,
        max_position_embeddings=32,
        num_labels=3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )

    def batch():
        ids, mask = padded(tokens(BATCH, LENGTH, VOCAB))
        kinds = (torch.arange(LENGTH) >= LENGTH // 2).long().expand(BATCH, LENGTH)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": kinds,
            "labels": torch.randint(3, (BATCH,)),
        }

    return trained(hf.BertForSequenceClassification(config), own_loss, batch)


def roberta(dropout: float = 0.0) -> instep.TorchLoop:
    """Liu et al., RoBERTa, 2019: masked language modelling."""
    torch.manual_seed(0)
    config = hf.RobertaConfig(
        **SIZES,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    mask_token = 3

    def batch():
        ids, mask = padded(tokens(BATCH, LENGTH, VOCAB), pad=config.pad_token_id)
        hidden = (torch.rand(ids.shape) < 0.3) & (mask == 1)
        hidden[:, 1] = True
        return {
            "input_ids": torch.where(hidden, mask_token, ids),
            "attention_mask": mask,
            "labels": torch.where(hidden, ids, -100),
        }

    return trained(hf.RobertaForMaskedLM(config), own_loss, batch)


def llama(dropout: float = 0.0) -> instep.TorchLoop:
    """Touvron et al., LLaMA, 2023."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(**DECODER, **SPECIAL, attention_dropout=dropout)
    return trained(hf.LlamaForCausalLM(config), own_loss, causal)


def qwen3(dropout: float = 0.0) -> instep.TorchLoop:
    """Yang et al., Qwen3 Technical Report, 2025."""
    torch.manual_seed(0)
    config = hf.Qwen3Config(**DECODER, **SPECIAL, head_dim=8, attention_dropout=dropout)
    return trained(hf.Qwen3ForCausalLM(config), own_loss, causal)


def gemma(dropout: float = 0.0) -> instep.TorchLoop:
    """Gemma Team, Gemma: Open Models Based on Gemini Research and Technology, 2024."""
    torch.manual_seed(0)
    config = hf.GemmaConfig(**DECODER, **SPECIAL, head_dim=8, attention_dropout=dropout)
    return trained(hf.GemmaForCausalLM(config), own_loss, causal)


def mixtral(dropout: float = 0.0, experts: str = "batched_mm") -> instep.TorchLoop:
    """Jiang et al., Mixtral of Experts, 2024, with the loss that balances its router.

    Args:
      dropout: of the attention.
      experts: how transformers runs them: "eager", "batched_mm" or "grouped_mm", its default,
        which PyTorch does not have in float64.
    """
    torch.manual_seed(0)
    config = hf.MixtralConfig(
        **DECODER,
        **SPECIAL,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        attention_dropout=dropout,
    )
    model = hf.MixtralForCausalLM(config)
    model.set_experts_implementation(experts)
    return trained(model, own_loss, causal)


def mamba(dropout: float = 0.0) -> instep.TorchLoop:
    """Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.

    It has no dropout.
    """
    del dropout
    torch.manual_seed(0)
    config = hf.MambaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        state_size=4,
        num_hidden_layers=2,
        time_step_rank=4,
        **SPECIAL,
    )
    return trained(hf.MambaForCausalLM(config), own_loss, causal)


def t5(dropout: float = 0.0) -> instep.TorchLoop:
    """Raffel et al., Exploring the Limits of Transfer Learning, 2020."""
    torch.manual_seed(0)
    config = hf.T5Config(
        vocab_size=VOCAB,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        dropout_rate=dropout,
        decoder_start_token_id=0,
    )
    return trained(hf.T5ForConditionalGeneration(config), own_loss, translated)


def bart(dropout: float = 0.0) -> instep.TorchLoop:
    """Lewis et al., BART, 2020."""
    torch.manual_seed(0)
    config = hf.BartConfig(
        vocab_size=VOCAB,
        max_position_embeddings=32,
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
        **SPECIAL,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    return trained(hf.BartForConditionalGeneration(config), own_loss, translated)
