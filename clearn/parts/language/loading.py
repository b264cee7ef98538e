"""Networks and tokenizers from Hugging Face folders or names: checked, quietly, and never running a stranger's code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from clearn.errors import ConfigError, DataError
from clearn.parts.backbones.timm_models import aside

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Kind = Literal["language model", "text encoder"]

TINY = "tiny"
"""The name of the networks that need no file."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Loaded:
    """What came out of a folder.

    Attributes:
        net: in evaluation mode, its weights without gradient.
        tokenizer: of the same folder.
        stamp: names, sizes and times of the files of weights, which tell whether a folder was changed; empty where
            there is no folder.
    """

    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stamp: tuple[tuple[str, int, int], ...] = ()


def require(*packages: str) -> None:
    """Refuse to go on without the packages of the extra `language`.

    Raises:
        ConfigError: with the line that installs them.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ConfigError(
            f"language models need {', '.join(packages)}, but {', '.join(missing)} cannot be imported: "
            "pip install 'clearn[language]'"
        )


@contextmanager
def quietly() -> Iterator[None]:
    """Let transformers work without bars, log lines and draws from the global generator; put all back after."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with aside(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to the authors of checkpoints; what matters is checked below
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load(kind: Kind, option: str, name: str, dtype: torch.dtype) -> Loaded:
    """Load a network with its tokenizer.

    Args:
        kind: what it has to be.
        option: the config's name of `name`, for messages.
        name: a folder in Hugging Face's layout with .safetensors weights, or a name on the hub, which is looked for
            in the local cache first.
        dtype: to which its weights are rounded.

    Raises:
        ConfigError: transformers is missing, or the network is of another kind.
        DataError: the folder is not there, lacks files, or holds damaged or other weights.
    """
    require("transformers", "tokenizers")
    folder = _folder(option, name)
    source = name if folder is None else str(folder)
    with quietly():
        if folder is not None:
            return _from(kind, option, source, dtype, local=True)
        try:
            return _from(kind, option, source, dtype, local=True)
        except DataError:
            return _from(kind, option, source, dtype, local=False)


def _folder(option: str, name: str) -> Path | None:
    """Find the folder that a name means, with all that it must hold; None for a name on the hub."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if HUB_NAME.fullmatch(name):
            return None
        raise DataError(
            f"{option}={name} is no folder that can be found (looked for {folder.absolute()}): give a folder in "
            f"Hugging Face's layout, or '{TINY}' for the built-in network"
        )
    wanted = {
        "config.json": (folder / "config.json").is_file(),
        "weights (*.safetensors)": any(folder.glob("*.safetensors")),
        f"a tokenizer ({' or '.join(TOKENIZER_FILES)})": any((folder / file).is_file() for file in TOKENIZER_FILES),
    }
    if lacking := [what for what, there in wanted.items() if not there]:
        raise DataError(
            f"{option}={name} lacks {' and '.join(lacking)}: a model's folder holds config.json, .safetensors weights "
            "and a tokenizer; download the missing files into it"
        )
    return folder


def _from(kind: Kind, option: str, source: str, dtype: torch.dtype, local: bool) -> Loaded:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    how: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}  # Any: whatever transformers takes
    auto: Any = AutoModelForCausalLM if kind == "language model" else AutoModel
    try:
        config = AutoConfig.from_pretrained(source, **how)
        _check_kind(kind, option, source, config)
        net, found = auto.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
            **how,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, **how)
    except (ConfigError, DataError):
        raise
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{option}={source} could not be loaded: {_brief(error)}; give a folder in Hugging Face's layout that "
            f"transformers can read without network, or '{TINY}' for the built-in network"
        ) from error
    _check_weights(option, source, found, kind)
    if kind == "text encoder" and isinstance(getattr(net, "pooler", None), nn.Module):
        net.pooler = None  # nobody asks it, and checkpoints of sentence encoders often have no values for it
    for value in (*net.parameters(), *net.buffers()):  # they may be views into the file, which others can write to
        value.data = value.data.clone()
    return Loaded(net.requires_grad_(False).eval(), tokenizer, _stamp(source))


def _check_kind(kind: Kind, option: str, source: str, config: Any) -> None:  # Any: each model has its own config
    from transformers.models.auto import modeling_auto

    if kind == "language model":
        names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        wanted = "a decoder that continues text, such as SmolLM2 or GPT-2"
    else:
        names = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        wanted = "an encoder of text, such as MiniLM or BERT"
    if config.model_type not in names or config.is_encoder_decoder:
        what = f"{config.model_type}, an encoder-decoder" if config.is_encoder_decoder else config.model_type
        raise ConfigError(f"{option}={source} is no {kind} (its type is {what}): take {wanted}")


def _check_weights(option: str, source: str, found: dict[str, Any], kind: Kind) -> None:
    """Refuse weights that transformers would have drawn at random, but for an encoder's pooler, which is not used."""
    unused = ("pooler.",) if kind == "text encoder" else ()
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(unused))
    misshapen = sorted(str(key) for key in found["mismatched_keys"])
    if missing or misshapen:
        first = (missing + misshapen)[0]
        raise DataError(
            f"{option}={source} does not hold the weights that its config.json describes: {len(missing)} tensors are "
            f"not in it and {len(misshapen)} have another shape (first {first}); give weights and config of one model"
        )


def _brief(error: Exception) -> str:
    """The first line of a foreign message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _stamp(source: str) -> tuple[tuple[str, int, int], ...]:
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    facts = [(str(file.absolute()), file.stat()) for file in files]
    return tuple((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts)
