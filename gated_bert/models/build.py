"""Makes the model that a run asks for."""

from __future__ import annotations

from typing import Any

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.family import get_family
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.models.run_family import run_family
from gated_bert.support.backend import policy
from gated_bert.tasks.task import Task


def build_model(config: GatedBertConfig, task: Task, vocab_size: int, gate_rule: str = "fixed") -> EncoderClassifier:
    """The model of a run, with its weights: pretrained ones where the run names them, random ones otherwise.

    Args:
        config: the run.
        task: what is learnt; gives the number of logits.
        vocab_size: number of tokens of the run's tokeniser.
        gate_rule: rule that gives the gates, see `gated_bert.models.gate_rules`.

    Returns:
        The model, in the run's precision.

    Raises:
        ConfigError: sizes in `config` that the tokeniser or the pretrained weights contradict.
        UserError: pretrained weights that cannot be read.
    """
    architecture = run_architecture(config, task, vocab_size, gate_rule)
    dtype = policy(config.precision, config.jit_compile)
    model = get_family(architecture.model_type).model()(architecture, dtype=dtype)
    if config.pretrained is not None:
        load_pretrained(model, config.pretrained, task)
    # Before an optimiser is built: it keeps nothing for what is not trained.
    model.encoder.embeddings.trainable = config.freeze != "embeddings"
    return model


def run_architecture(config: GatedBertConfig, task: Task, vocab_size: int, gate_rule: str = "fixed") -> Architecture:
    """The architecture of a run; arguments and errors are those of `build_model`.

    Raises:
        ConfigError: sizes in `config` that the tokeniser or the pretrained weights contradict.
        UserError: pretrained weights that cannot be read.
    """
    options: dict[str, Any] = {
        "dropout_rate": config.dropout_rate,
        "gate_init_value": config.gate_init_value,
        "gate_trainable": config.gate_trainable,
        "gate_rule": gate_rule,
    }
    if config.pretrained is None:
        if config.vocab_size is not None and config.vocab_size < vocab_size:
            raise ConfigError("vocab_size", config.vocab_size, f"at least the tokeniser's {vocab_size} tokens")
        architecture = run_family(config).architecture
        sizes = architecture.uniform(*config.sizes(), vocab_size=config.vocab_size or vocab_size, **options)
        return sizes.for_task(task)
    found = read_pretrained_architecture(config.pretrained, config.num_layers).for_task(task, **options)
    _check_sizes(config, found, vocab_size)
    return found


def _check_sizes(config: GatedBertConfig, found: Architecture, vocab_size: int):
    """Refuses sizes of the run that the pretrained weights in `found` contradict."""
    where = f"of the pretrained weights in {config.pretrained}"
    allowed = {"d_model": {found.hidden_size}, "vocab_size": {found.vocab_size}}
    allowed["num_heads"] = {sizes.num_heads for sizes in found.layers}
    allowed["dff"] = {sizes.intermediate_size for sizes in found.layers}
    for name, values in allowed.items():
        if getattr(config, name) is not None and values != {getattr(config, name)}:
            sizes = " and ".join(str(value) for value in sorted(values))
            raise ConfigError(name, getattr(config, name), f"{sizes}, that {where}; leave it out to take theirs")
    if vocab_size > found.vocab_size:
        raise ConfigError(
            "vocab", config.vocab, f"a vocabulary of at most {found.vocab_size} tokens, that {where}; "
            f"this one has {vocab_size}"
        )  # fmt: skip
    if config.max_len > found.max_position:
        raise ConfigError("max_len", config.max_len, f"8 to {found.max_position}, the longest input {where}")
