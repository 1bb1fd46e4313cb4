"""Load the model that SFT or DPO begins with: weights, chat tokenizer, and a LoRA adapter, fresh or trained."""

from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, set_seed

from speed_ray.engines.model_folder import ensure_model_folder, explain_loading
from speed_ray.errors import UserError
from speed_ray.recipes.training_settings import Lora
from speed_ray.storage.run import Run
from speed_ray.storage.trained_models import Model
from speed_ray.training.plan import TrainingPlan


def load_chat_tokenizer(training: TrainingPlan) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer with the chat template of training and serving, padding on the right.

    Without a pad token it pads with the end-of-sequence token: labels and masks are made from lengths, never from
    pad ids, so no end is taken for padding. Raises UserError where a template or an end-of-sequence token is missing.
    """
    with explain_loading(training.base, training.base_key):
        loaded = AutoTokenizer.from_pretrained(
            _base_folder(training), revision=training.revision, trust_remote_code=False
        )
    loaded.chat_template = training.chat_template or loaded.chat_template
    if not loaded.chat_template and not training.completion:
        raise UserError(
            f"generator.chat_template: {training.base} has no chat template, as is usual for a base model.\n"
            f"Set this key to Jinja text or to a file with it, so that prompts can be written for the model."
        )
    if loaded.eos_token_id is None:
        raise UserError(
            f"generator.model: the tokenizer of {training.base} has no end-of-sequence token, so the model could not "
            f"learn to stop.\nName one as eos_token in the folder's tokenizer_config.json."
        )
    if loaded.pad_token_id is None:
        loaded.pad_token = loaded.eos_token
    loaded.padding_side = "right"
    return loaded


def context_length(training: TrainingPlan) -> int:
    """Return the base's maximum number of tokens."""
    with explain_loading(training.base, training.base_key):
        config = AutoConfig.from_pretrained(
            _base_folder(training), revision=training.revision, trust_remote_code=False
        )
    return int(getattr(config.get_text_config(), "max_position_embeddings", training.settings.max_length))


def load_network(training: TrainingPlan, sharded: bool) -> Any:
    """Load the weights to train, a PreTrainedModel or a PeftModel, in fp32 or bf16.

    With `sharded` DeepSpeed keeps fp32 copies of bf16 weights. Without it, bf16 is computed by autocast: over fp32
    weights in full training, over frozen bf16 weights and fp32 adapters with LoRA.
    """
    settings = training.settings
    bf16 = settings.precision == "bf16" and (sharded or settings.lora is not None)
    start = Model(Run(training.run), training.start) if training.start else None
    start_weights = training.base_weights
    with explain_loading(training.base, training.base_key):
        model = AutoModelForCausalLM.from_pretrained(
            start_weights.fetch() if start_weights else _base_folder(training),
            revision=None if start_weights else training.revision,
            dtype=torch.bfloat16 if bf16 else torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
        )
    if settings.lora is None:
        return model
    # DeepSpeed casts all weights to bf16; doing it now gives the reference log-probabilities the same weights.
    upcast = not (bf16 and sharded)
    if start is not None and start.is_adapter:
        adapted = PeftModel.from_pretrained(model, start.fetch(), is_trainable=True, autocast_adapter_dtype=upcast)
        adapted.peft_config["default"].base_model_name_or_path = model.name_or_path  # PEFT reads it when it saves
        return adapted
    set_seed(training.seed)  # adapters are initialized randomly
    return add_adapters(model, settings.lora, "CAUSAL_LM", training.key, upcast)


def _base_folder(training: TrainingPlan) -> str | Path:
    return ensure_model_folder(training.base) or training.base


def add_adapters(
    network: Any, lora: Lora, task: Literal["CAUSAL_LM", "FEATURE_EXTRACTION"], key: str, upcast: bool = True
) -> Any:
    """Add the recipe's LoRA adapters to a network; `key` is that of the training's settings, for messages.

    `upcast` holds the adapters in fp32, whatever the type of the network. Raises UserError where no module fits.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        task_type=task,
    )
    try:
        return get_peft_model(network, config, autocast_adapter_dtype=upcast)
    except ValueError as error:
        linear = {name.rpartition(".")[2] for name, module in network.named_modules() if isinstance(module, nn.Linear)}
        raise UserError(
            f"{key}.lora.target_modules: {lora.target_modules} cannot be adapted: {str(error).splitlines()[0]}\n"
            f"This model's linear modules are: {', '.join(sorted(linear))}."
        ) from error
