"""A training step of MBC as its released code takes it, against ours: passes for the log, and padding.

Networks of the sizes of distilgpt2 and T5-small with random weights, batches of 2, documents of 200 tokens. Ours is
`Mbc.episode` with trained T5s (option t5). The published way is written out below, on the same modules and weights:
documents are padded to 1,022 tokens, questions for the encoder to 104 and questions with answers to 128, the
vocabulary's matrix is applied everywhere, and each step runs the language model three times more without gradient, for
the log: the text before, the answer before, the text after. It is favoured where the released code is wrong: pads are
masked here, so both ways have the same loss and the same gradients, which is asserted before anything is timed.

Both are followed by the same clipping and the same step of Adam, timed apart. All ways take a step on the same rows in
each round, in shuffled order, timed in CPU seconds of one thread.

    python benchmarks/document_training.py --repeats 5            about five minutes on one core, 6 GB of memory
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import tables
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from clearn.parts.amortising import T5, KvLora
from clearn.parts.amortising.latents import EncoderDecoder
from clearn.parts.language import Lm, Prefix
from clearn.parts.language.loading import quietly
from clearn.parts.language.lora import Lora
from clearn.recipe import MetaRecipe
from clearn.stream import Document, Question, Row
from strategies.mbc import Mbc

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedTokenizerFast

DOCUMENT, QUESTION, SEQUENCE = 1022, 104, 128  # what the released code pads to
ASKED, ANSWERED = 14, 5  # tokens of a question, and of an answer with its end
TARGET = 3.0
WORDS = 5000
RECIPE = MetaRecipe(lr=1e-5, clip=100.0)  # as published


def reader(folder: Path) -> Mbc:
    """MBC as published beside distilgpt2, its networks drawn at random; no dropout, so that ways can be compared."""
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5Model

    torch.manual_seed(0)
    with quietly():
        GPT2LMHeadModel(GPT2Config(n_layer=6, bos_token_id=1, eos_token_id=1)).save_pretrained(folder / "lm")
        T5Model(T5Config(dropout_rate=0.0)).save_pretrained(folder / "t5")  # its defaults are T5-small
    for name, ends in (("lm", False), ("t5", True)):
        words(ends).save_pretrained(folder / name)
    t5 = str(folder / "t5")
    torch.manual_seed(0)
    return Mbc(
        lm=Lm(str(folder / "lm"), dtype="float32"),
        t5=T5(t5, t5, tokens=DOCUMENT),
        latents=12,
        prefix=2,
        blocks=4,
        codes=512,
        lora=KvLora(rank=16, alpha=32.0, last=6, dropout=0.0),
        meta=RECIPE,
    )


def words(ends: bool) -> PreTrainedTokenizerFast:
    """A tokenizer that makes each of "w0", "w1", .. one token; `ends` puts an end mark after a text, as T5's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(WORDS))])}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")


def made_up(rng: random.Random, n: int, tokens: int) -> list[Row]:
    """n documents of so many tokens, the encoder's end mark included, each with a question."""

    def text(length: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(length))

    documents = [Document(str(i), text(tokens - 1)) for i in range(n)]
    return [Row(one, Question(text(ASKED), one.id, answer=text(ANSWERED - 1))) for one in documents]


# The published way.


def as_published(net: Mbc, rows: Sequence[Row], log: bool) -> Tensor:
    """The loss of a batch; with what is computed for the log alone, by choice."""
    texts = [row.document.text for row in rows]
    encoders = (net.amortiser.document, net.amortiser.question)
    assert all(isinstance(one, EncoderDecoder) for one in encoders)
    found = net.quantiser(latents(encoders[0], texts, DOCUMENT, left=False))
    queries = latents(encoders[1], [row.question.text for row in rows], QUESTION, left=True)
    prefix = Prefix(*net.prefixes(net.aggregator(queries, found.vectors.flatten(0, 1)[None])))
    if log:
        with torch.no_grad():
            ids = [net.lm.words.tokens(text)[:DOCUMENT] for text in texts]
            text_losses(net, ids, None)
            answer_losses(net, rows, None)
            text_losses(net, ids, prefix)
    total: Tensor = answer_losses(net, rows, prefix).mean() + net.quantiser.options.weight * found.loss
    return total


def latents(encoder: nn.Module, texts: Sequence[str], length: int, left: bool) -> Tensor:
    """(b, T, D), from texts that are all padded to one length."""
    assert isinstance(encoder, EncoderDecoder)
    rows = [torch.tensor(encoder.tokenizer(text)["input_ids"][:length]) for text in texts]
    ids = torch.stack([pad(row, (length - len(row), 0) if left else (0, length - len(row))) for row in rows])
    states = encoder.net(
        input_ids=ids,
        attention_mask=(ids != encoder.tokenizer.pad_token_id).long(),
        decoder_inputs_embeds=encoder.queries.expand(len(texts), -1, -1),
        use_cache=False,
    ).last_hidden_state
    out: Tensor = encoder.positions(states)
    return out


def answer_losses(net: Mbc, rows: Sequence[Row], prefix: Prefix | None) -> Tensor:
    """(b,), from sequences of 128 tokens with logits at all of them."""
    asked = [net.lm.words.question(row.question.text) for row in rows]
    answers = [net.lm.words.answer(row.question.answer) for row in rows]
    given = [torch.tensor([*question, *answer]) for question, answer in zip(asked, answers, strict=True)]
    told = [torch.tensor([*[-100] * len(question), *answer]) for question, answer in zip(asked, answers, strict=True)]
    ids = torch.stack([pad(row, (0, SEQUENCE - len(row)), value=net.lm.words.eos) for row in given])
    labels = torch.stack([pad(row, (0, SEQUENCE - len(row)), value=-100) for row in told])
    return sequence_losses(net, ids, labels, prefix)


def text_losses(net: Mbc, texts: Sequence[Sequence[int]], prefix: Prefix | None) -> Tensor:
    """(b,), how well the language model foretells the documents themselves, each padded to 1,022 tokens."""
    rows = [torch.tensor(text) for text in texts]
    ids = torch.stack([pad(row, (0, DOCUMENT - len(row)), value=net.lm.words.eos) for row in rows])
    labels = torch.stack([pad(row, (0, DOCUMENT - len(row)), value=-100) for row in rows])
    return sequence_losses(net, ids, labels, prefix)


def sequence_losses(net: Mbc, ids: Tensor, labels: Tensor, prefix: Prefix | None) -> Tensor:
    """(b,): mean cross-entropy of each row's labels that are not -100; with a prefix LoRA is on."""
    lora = net.lm.loras["kv"]
    assert isinstance(lora, Lora)
    if prefix is None:
        logits = net.lm.net(input_ids=ids, use_cache=False).logits
    else:
        with lora.beside(net.lm.net):
            logits = net.lm.net(input_ids=ids, past_key_values=cache(prefix), use_cache=True).logits
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")  # 0 where -100
    return losses.sum(1) / (labels[:, 1:] != -100).sum(1)


def cache(prefix: Prefix) -> DynamicCache:
    """What the language model finds before its first token."""
    from transformers import DynamicCache

    made = DynamicCache()
    for layer in range(prefix.keys.shape[1]):
        made.update(prefix.keys[:, layer], prefix.values[:, layer], layer)
    return made


# Ways, and how they are compared.

Way = Callable[[Mbc, Sequence[Row]], Tensor]
WAYS: dict[str, Way] = {
    "as published": lambda net, rows: as_published(net, rows, log=True),
    "without the log's passes": lambda net, rows: as_published(net, rows, log=False),
    "ours: Mbc.episode": Mbc.episode,
}


def agree(net: Mbc, rows: Sequence[Row]) -> tuple[float, float]:
    """Hold both ways against each other on the same weights.

    Returns:
        How far their losses differ, as a share; and their gradients, as a share of each tensor's norm, at most.
    """
    kept = {name: value.clone() for name, value in net.quantiser.state_dict().items()}
    losses, gradients = [], []
    for way in (WAYS["as published"], WAYS["ours: Mbc.episode"]):
        net.quantiser.load_state_dict(kept)  # a pass in training mode counts codes, and replaces dead ones
        net.zero_grad(set_to_none=True)
        loss = way(net, rows)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: one.grad.clone() for name, one in net.named_parameters() if one.grad is not None})
    net.quantiser.load_state_dict(kept)
    net.zero_grad(set_to_none=True)
    published, ours = gradients
    assert published.keys() == ours.keys()
    assert len(ours) == sum(one.requires_grad for one in net.parameters())
    gap = max(float((published[name] - one).norm() / one.norm().clamp(min=1e-12)) for name, one in ours.items())
    assert abs(losses[0] - losses[1]) < 1e-4 * losses[1], f"the ways have other losses: {losses}"
    assert gap < 1e-2, f"the ways have other gradients: those of a tensor differ by {gap:.1e} of its norm"
    return abs(losses[0] - losses[1]) / losses[1], gap


def step(way: Way, net: Mbc, rows: Sequence[Row], optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Take one step; CPU seconds of loss and gradients, and of clipping and Adam."""
    gc.collect()
    started = time.process_time()
    way(net, rows).backward()
    between = time.process_time()
    nn.utils.clip_grad_norm_([one for one in net.parameters() if one.requires_grad], RECIPE.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    net.quantiser.settle(optimizer)
    return between - started, time.process_time() - between


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds, in each of which every way takes a step")
    parser.add_argument("--batch", type=int, default=2, help="rows a step")
    parser.add_argument("--tokens", type=int, default=200, help="of a document")
    parser.add_argument("--json", help="write the figures to this file, too")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        net = reader(Path(folder)).train()
    rng = random.Random(0)
    trained = [one for one in net.parameters() if one.requires_grad]
    optimizer = RECIPE.optimizer_for(trained)
    loss_gap, gap = agree(net, made_up(rng, asked.batch, asked.tokens))
    step(Mbc.episode, net, made_up(rng, asked.batch, asked.tokens), optimizer)  # Adam's moments, first allocations

    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(asked.repeats):
        rows = made_up(rng, asked.batch, asked.tokens)
        for name in rng.sample(list(WAYS), len(WAYS)):
            seconds[name].append(step(WAYS[name], net, rows, optimizer))

    published, bare, ours = (seconds[name] for name in WAYS)

    def ratio(slow: list[tuple[float, float]], fast: list[tuple[float, float]], whole: bool = True) -> float:
        """The median over rounds of how many times faster; without the optimiser where not `whole`."""
        parts = 2 if whole else 1
        return median(sum(a[:parts]) / sum(b[:parts]) for a, b in zip(slow, fast, strict=True))

    figures = {
        "batch": asked.batch,
        "document_tokens": asked.tokens,
        "repeats": asked.repeats,
        "trained_parameters": sum(one.numel() for one in trained),
        "loss_difference": loss_gap,
        "gradient_difference": gap,
        "seconds_passes": {name: median(passes for passes, _ in found) for name, found in seconds.items()},
        "seconds_optimizer": {name: median(adam for _, adam in found) for name, found in seconds.items()},
        "all_seconds": seconds,
        "ratio": ratio(published, ours),
        "ratio_without_optimizer": ratio(published, ours, whole=False),
        "log": ratio(published, bare),
        "padding": ratio(bare, ours),
        "log_without_optimizer": ratio(published, bare, whole=False),
        "padding_without_optimizer": ratio(bare, ours, whole=False),
        "target": TARGET,
    }
    tables.show(
        f"A training step of MBC, batch {asked.batch}, documents of {asked.tokens} tokens, median of {asked.repeats} "
        f"rounds: CPU time, one thread; {figures['trained_parameters']:,} trained parameters",
        ["", "s loss and gradients", "s clip and Adam", "s a step", "x slower than ours", "without Adam"],
        [
            [
                name,
                f"{median(passes for passes, _ in found):.2f}",
                f"{median(adam for _, adam in found):.2f}",
                f"{median(map(sum, found)):.2f}",
                f"{ratio(found, ours):.2f}",
                f"{ratio(found, ours, whole=False):.2f}",
            ]
            for name, found in seconds.items()
        ],
    )
    tables.show(
        f"Where it comes from (target: {TARGET:.0f} in all); losses differ by {loss_gap:.0e}, a tensor's gradients "
        f"by at most {gap:.0e} of its norm",
        ["x faster", "a step", "without Adam"],
        [
            ["no passes for the log", f"{figures['log']:.2f}", f"{figures['log_without_optimizer']:.2f}"],
            ["no padding, few logits", f"{figures['padding']:.2f}", f"{figures['padding_without_optimizer']:.2f}"],
            ["both", f"{figures['ratio']:.2f}", f"{figures['ratio_without_optimizer']:.2f}"],
        ],
    )
    if asked.json:
        Path(asked.json).write_text(json.dumps({"document_training": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
