"""A language model and a text encoder that need no file: two random layers over three hundred plain words.

Their weights follow from a fixed seed alone, so every run has the same ones, as if they had been downloaded. They are
for tests, for a first look at a method, and for the stream of copying tasks, whose documents use these words only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from clearn.parts.language.loading import Loaded, quietly, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_FUNCTION = """
the of is what code a an and or to in on at by for from with as are was were be been has have had do does did not no
yes it its he she they we you i this that these those there here who whom whose which when where why how much many
more most less least than then now if but so all some any each every one two three four five six seven eight nine ten
first second third last next name number percent date year month day question answer document
"""
_THINGS = """
river mountain valley forest desert island lake ocean harbour bridge castle tower garden market village city capital
country border coast north south east west road railway airport station school college hospital library museum theatre
church temple palace prison factory mine farm mill bank court army navy king queen prince duke bishop judge doctor
nurse teacher student pilot sailor soldier farmer baker painter singer writer poet player captain leader minister
president mayor company union party council parliament treaty law tax trade export import price coin copper iron
silver gold tin lead zinc coal oil gas steam water fire wind rain snow storm cloud sun moon star planet comet apple
pear plum cherry lemon orange grape melon berry onion potato carrot pepper bean rice wheat corn oats bread butter
cheese milk honey sugar salt tea coffee wine beer horse cow sheep goat pig dog cat mouse rabbit fox wolf bear lion
tiger deer eagle falcon owl raven swan goose duck hen trout salmon shark whale seal crab ant bee spider snake turtle
red blue green yellow black white brown grey purple pink small large long short old new young high low deep wide
narrow round flat sharp soft hard warm cold dry wet bright dark quick slow heavy light stone brick glass paper wood
leather cotton wool silk rope wheel engine clock lamp mirror table chair door window roof wall floor ladder hammer
needle basket bottle kettle drum flute violin piano bell ticket letter stamp map flag crown ring
"""

FUNCTION = tuple(_FUNCTION.split())
THINGS = tuple(_THINGS.split())
DIGITS = tuple("0123456789")
MARKS = tuple(".,?!:;-'\"()%/$&")

WORDS: tuple[str, ...] = (*FUNCTION, *THINGS, *DIGITS, *MARKS)
"""Everything that the tiny vocabulary can say: plain lower-case words, digits and punctuation, no word twice."""

UNKNOWN, END, START, NEWLINE = "<unk>", "<eos>", "<cls>", "\n"
VOCABULARY = (UNKNOWN, END, START, NEWLINE, *WORDS)

LM_SEED, ENCODER_SEED = 20240801, 20240802
"""Any numbers: they fix what the built-in networks know, which is nothing."""


@torch.no_grad()
def tiny_lm(dtype: torch.dtype = torch.float32) -> Loaded:
    """Build the language model: a Llama of two layers, D = 64, 4 heads of which each 2 share keys and values.

    A network drawn as for training (deviation 0.02) hardly reacts to what stands in its cache. This one hands on what
    it attends to: the output projection of a head is the transpose of its value projection; embeddings, which are the
    output's weights too, are small beside what attention adds to them; and MLPs say little. An MLP from words to
    prefixes, trained on 160 words, makes it say 95 % of 40 others; with plain draws for all parts that was 45 %.
    """
    require("transformers", "tokenizers")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=VOCABULARY.index(END),
    )
    with quietly():
        net = LlamaForCausalLM(config)
        _draw(net, LM_SEED, embedding_std=0.25)
        for layer in net.model.layers:
            attention = layer.self_attn
            values = attention.v_proj.weight.view(2, 1, 16, 64).expand(-1, 2, -1, -1)  # each of 2 heads for 2 queries
            attention.o_proj.weight.copy_(values.reshape(64, 64).T)
            layer.mlp.down_proj.weight.mul_(0.05)
    net.set_attn_implementation("sdpa")
    for weight in net.parameters():  # not `net.to`, which would round the angles of the positions too
        weight.data = weight.data.to(dtype)
    return Loaded(net.requires_grad_(False).eval(), _tokenizer(start=False))


def tiny_encoder() -> Loaded:
    """Build the text encoder: a BERT of two layers, width 32."""
    require("transformers", "tokenizers")
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    with quietly():
        net = BertModel(config, add_pooling_layer=False)
        _draw(net, ENCODER_SEED, embedding_std=0.25)
    net.set_attn_implementation("sdpa")
    return Loaded(net.requires_grad_(False).eval(), _tokenizer(start=True))


@torch.no_grad()
def _draw(net: nn.Module, seed: int, embedding_std: float) -> None:
    """Draw matrices N(0, 1 / inputs), so that each keeps the size of what goes through; norms are 1, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        match module:
            case nn.Embedding():
                module.weight.normal_(0, embedding_std, generator=generator)
            case nn.Linear() if module.out_features != len(VOCABULARY):  # the head is the embedding, drawn already
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
            case _:
                pass


def _tokenizer(start: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer of words, single digits, marks and line ends; `start` puts one token before each text."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\d|[^\W\d]+|[^\w\s]"), behavior="removed", invert=True)
    if start:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{START} $A", special_tokens=[(START, ids[START])]
        )
    marks = {"cls_token": START} if start else {"eos_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=UNKNOWN, **marks)
