"""What a question costs that is asked of a memory of documents: MBC, CMT and MAC, by the number of documents read.

First MBC at 1,665 documents: the released code lists every document's codes and computes keys and values of the whole
list anew for each question; ours counts codes and keeps the keys and values of the K codes (specs "mbc", section 6).
Both halves of that are also measured alone, and the largest difference of the results is printed. Then all three
methods with 10^2 to 10^5 documents, and the bytes that each carries for them. At last what does not depend on the
number of documents: encoder and language model, of the sizes of T5-small and distilgpt2 with random weights.

Banks and questions are random vectors; width 768, T = 12 vectors a document, four blocks, one question at a time. CMT
has the same sizes here (its own default is 8 vectors and two blocks), and k = 4. CPU seconds of one thread; all that is
compared takes turns in one process, in shuffled order. What takes too long or too much memory is left out, and said.

    python benchmarks/document_readout.py --repeats 15           about three minutes on one core, 8 GB of memory
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import document_training
import tables
import torch
from torch import Tensor

from clearn.parts.amortising import Aggregator, Cached
from clearn.parts.bank import Bank
from clearn.parts.code_memory import CodeMemory, Keep
from clearn.parts.codebook import Codebook, Quantiser
from clearn.parts.language import Prefix
from clearn.parts.matching import Matcher, best, cosines, log_shares

WIDTH, LATENTS, BLOCKS, CODES = 768, 12, 4, 512
STREAM, TARGET = 1665, 50.0
SIZES = (100, 1_000, 10_000, 100_000)
K = 4
QUESTION_SECONDS = 0.1  # of each turn, so that short questions are asked often
GIB = 1 << 30

Question = Callable[[Tensor], Tensor]
"""(1, T, D) queries -> (1, T, D), what they gathered; where matching alone is measured, indices of memories."""


def reading(aggregator: Aggregator, bank: Tensor | Cached, log_weights: Tensor | None = None) -> Question:
    """Ask one bank, of vectors or of keys and values; see `Aggregator`."""

    def gathered(queries: Tensor) -> Tensor:
        out: Tensor = aggregator(queries, bank, log_weights)
        return out

    return gathered


@dataclass(frozen=True)
class Turns:
    """Ways to answer, timed in turns.

    Attributes:
        ways: by name.
        queries: (n, 1, T, D).
        repeats: turns of each.
    """

    ways: dict[str, Question]
    queries: Tensor
    repeats: int

    def milliseconds(self) -> dict[str, list[float]]:
        """CPU time of one question in each turn of each way; the k-th turns of all ways belong together."""
        found: dict[str, list[float]] = {name: [] for name in self.ways}
        many = {name: self._questions(way) for name, way in self.ways.items()}
        rng = random.Random(0)
        for turn in range(self.repeats):
            for name in rng.sample(list(self.ways), len(self.ways)):
                gc.collect()
                started = time.process_time()
                for i in range(many[name]):
                    self.ways[name](self.queries[(turn + i) % len(self.queries)])
                found[name].append(1000 * (time.process_time() - started) / many[name])
        return found

    def _questions(self, way: Question) -> int:
        """How many make a turn; the first call, which allocates, is not looked at."""
        way(self.queries[0])
        started = time.process_time()
        way(self.queries[0])
        return max(1, round(QUESTION_SECONDS / max(time.process_time() - started, 1e-4)))


# MBC at one size.


def counted(quantiser: Quantiser, memory: CodeMemory) -> tuple[Tensor, Tensor]:
    """As `Mbc` reads: the codes met (1, k, D), and the logarithm of how often (1, k)."""
    met = memory.counts.nonzero()[:, 0]
    return quantiser.decode(met[:, None])[None], memory.counts[met].log()[None]


def code_memory(codes: Tensor, keep: Keep = Keep()) -> CodeMemory:
    """(N, T, 1) codes as MBC keeps them."""
    memory = CodeMemory(CODES, LATENTS, 1, keep)
    memory.add(range(len(codes)), codes)
    return memory


def drawn_codes(documents: int, rng: torch.Generator) -> Tensor:
    """(N, T, 1) int64; the code of rank r comes with odds of 1 / r, so that counts differ."""
    odds = 1 / torch.arange(1, CODES + 1, dtype=torch.float64)
    return torch.multinomial(odds, documents * LATENTS, replacement=True, generator=rng).reshape(-1, LATENTS, 1)


def fifty_times(aggregator: Aggregator, quantiser: Quantiser, queries: Tensor, repeats: int) -> dict[str, object]:
    """Read out 1,665 documents, with lists or counts, anew or kept."""
    codes = drawn_codes(STREAM, torch.Generator().manual_seed(1))
    bank = quantiser.decode(codes.flatten(0, 1))[None]  # (1, N T, D)
    few, log_counts = counted(quantiser, code_memory(codes))
    kept_bank, kept_few = aggregator.cache(bank), aggregator.cache(few)
    ways: dict[str, Question] = {
        "all codes listed, anew (published)": reading(aggregator, bank),
        "all codes listed, kept": reading(aggregator, kept_bank),
        "counted, anew": reading(aggregator, few, log_counts),
        "counted, kept (ours)": reading(aggregator, kept_few, log_counts),
    }
    published = next(iter(ways))
    wanted = ways[published](queries[0])
    gaps = {name: float((way(queries[0]) - wanted).abs().max()) for name, way in ways.items()}
    assert max(gaps.values()) < 1e-4, f"the ways gather other things: {gaps}"
    found = Turns(ways, queries, repeats).milliseconds()
    ratios = {name: [a / b for a, b in zip(found[published], own, strict=True)] for name, own in found.items()}
    tables.show(
        f"MBC's read-out of {STREAM:,} documents, {STREAM * LATENTS:,} codes of {CODES} ({len(log_counts[0])} met), "
        f"median of {repeats} turns (target: {TARGET:.0f} times)",
        ["", "ms a question", "x faster", "range", "largest difference"],
        [
            [
                name,
                f"{median(own):.2f}",
                f"{median(ratios[name]):.1f}",
                f"{min(ratios[name]):.1f} .. {max(ratios[name]):.1f}",
                f"{gaps[name]:.0e}",
            ]
            for name, own in found.items()
        ],
    )
    return {"ms": found, "ratio": {name: median(own) for name, own in ratios.items()}, "difference": gaps}


# All methods at many sizes.


def cmt_bank(documents: int, rng: torch.Generator) -> Bank:
    """Memories and keys as CMT keeps them: bfloat16 vectors, float16 keys; memories repeat after 1,000."""
    bank = Bank((LATENTS, WIDTH), "bfloat16", WIDTH)
    some = torch.randn(1_000, LATENTS, WIDTH, generator=rng).bfloat16()
    keys = torch.randn(documents, WIDTH, generator=rng)
    state = {
        "ids": torch.arange(documents),
        "rows": some.repeat(-(-documents // len(some)), 1, 1)[:documents],
        "keys": (keys / keys.norm(dim=1, keepdim=True)).half(),
        "met": torch.tensor(documents),
    }
    bank.load({**bank.state(), **state})
    return bank


def first(bank: Bank, n: int) -> Bank:
    """The bank's first rows, which share its memory."""
    some = Bank(bank.shape, bank.form, bank.key_width)
    state = {name: value[:n] if name in ("ids", "rows", "keys") else value for name, value in bank.state().items()}
    some.load({**state, "met": torch.tensor(n)})
    return some


def of_cmt(bank: Bank, matcher: Matcher, aggregator: Aggregator) -> dict[str, Question]:
    """How `Cmt` reads: match, fetch the k best, gather; and the match alone."""
    keys = bank.matching()

    def match(queries: Tensor) -> tuple[Tensor, Tensor]:
        scores = cosines(matcher.queries(queries), keys)
        chosen = best(scores, K)
        return chosen, scores.gather(1, chosen)

    def whole(queries: Tensor) -> Tensor:
        chosen, scores = match(queries)
        memories = bank.vectors(chosen)  # (1, k, m, D)
        weights = log_shares(scores, matcher.tau).repeat_interleave(LATENTS, dim=1)
        out: Tensor = aggregator(queries, memories.flatten(1, 2), weights)
        return out

    return {
        "CMT, match alone": lambda q: match(q)[0],
        "CMT, whole": whole,
    }


def cut(cached: Cached, size: int) -> Cached:
    """Keys and values of a bank's first vectors."""
    keys, values = ([one[:, :, :size] for one in part] for part in (cached.keys, cached.values))
    return Cached(tuple(keys), tuple(values))


def once(act: Callable[[], object]) -> float:
    """CPU milliseconds."""
    started = time.process_time()
    act()
    return 1000 * (time.process_time() - started)


@dataclass
class Grown:
    """What the sizes are compared by; a number for each size, or why there is none."""

    ms: dict[str, list[float | str]]
    once_ms: dict[str, list[float | str]]
    size_bytes: dict[str, list[int]]


def by_documents(
    aggregator: Aggregator, quantiser: Quantiser, queries: Tensor, repeats: int, most_seconds: float, most_gib: float
) -> Grown:
    """Ask all methods at all sizes."""
    rng = torch.Generator().manual_seed(2)
    matcher, codes = Matcher(WIDTH), drawn_codes(SIZES[-1], rng)
    memories = cmt_bank(SIZES[-1], rng)
    ways: dict[tuple[str, int], Question] = {}
    found = Grown({}, {}, {"MBC": [], "MBC, keep.index: false": [], "CMT": [], "MAC": []})
    before: dict[str, list[float | str]] = {"MBC, keys and values of the codes": [], "CMT, keys to float32": []}

    for n in SIZES:
        memory = code_memory(codes[:n])
        few, log_counts = counted(quantiser, memory)
        before["MBC, keys and values of the codes"].append(once(partial(aggregator.cache, few)))
        ways["MBC", n] = reading(aggregator, aggregator.cache(few), log_counts)
        bank = first(memories, n)
        before["CMT, keys to float32"].append(once(bank.matching))
        ways |= {(name, n): way for name, way in of_cmt(bank, matcher, aggregator).items()}
        book = quantiser.codebook.nbytes
        found.size_bytes["MBC"].append(book + weight(memory.state()))
        found.size_bytes["MBC, keep.index: false"].append(
            book + weight(code_memory(codes[:n], Keep(index=False)).state())
        )
        found.size_bytes["CMT"].append(bank.weigh(n))
        found.size_bytes["MAC"].append(Bank((LATENTS, WIDTH)).weigh(n))

    why_kept, why_anew, building = of_mac(aggregator, ways, queries, rng, most_seconds, most_gib)
    before["MAC, keys and values of the bank"] = building
    found.once_ms = before

    seconds = Turns({f"{name}|{n}": way for (name, n), way in ways.items()}, queries, repeats).milliseconds()
    for name in dict.fromkeys(name for name, _ in ways):
        whys = {"MAC, kept": why_kept, "MAC, anew (published)": why_anew}.get(name, {})
        found.ms[name] = [median(seconds[f"{name}|{n}"]) if (name, n) in ways else whys[n] for n in SIZES]
    return found


def of_mac(
    aggregator: Aggregator,
    ways: dict[tuple[str, int], Question],
    queries: Tensor,
    rng: torch.Generator,
    most_seconds: float,
    most_gib: float,
) -> tuple[dict[int, str], dict[int, str], list[float | str]]:
    """Add MAC's ways at the sizes that are feasible; say why others are not, and what keys and values take once."""
    inner = BLOCKS * 2 * WIDTH  # keys and values of a vector; 8 heads of 96 are as wide as D
    gib = {n: 4 * n * LATENTS * (WIDTH + inner) / GIB for n in SIZES}
    fitting = [n for n in SIZES if gib[n] <= most_gib]
    why_kept = {n: f"{gib[n]:.0f} GiB" for n in SIZES if n not in fitting}
    why_anew, building = dict[int, str](), list[float | str]()
    bank = torch.randn(1, fitting[-1] * LATENTS, WIDTH, generator=rng)
    last = 0.0
    for n in SIZES:
        estimate = last * 10 / 1000
        if n not in fitting or estimate > most_seconds:
            why_anew[n] = why_kept.get(n, f"~{estimate:.0f} s")
            last *= 10
            continue
        part = bank[:, : n * LATENTS]
        ways["MAC, anew (published)", n] = reading(aggregator, part)
        last = once(partial(ways["MAC, anew (published)", n], queries[0]))
    cached = Cached((), ())
    for n in fitting:
        started = time.process_time()
        cached = aggregator.cache(bank[:, : n * LATENTS])
        building.append(1000 * (time.process_time() - started))
    for n in fitting:
        ways["MAC, kept", n] = reading(aggregator, cut(cached, n * LATENTS))
    return why_kept, why_anew, building + [why_kept[n] for n in SIZES if n in why_kept]


def weight(state: dict[str, Tensor]) -> int:
    """Bytes of what is carried."""
    return sum(value.nbytes for value in state.values())


def show_sizes(found: Grown) -> dict[str, float]:
    """Print the tables; how many times dearer a question is at the largest size that was measured than at 10^2."""
    heads = ["", *(f"{n:,} documents" for n in SIZES)]
    growth: dict[str, float] = {}
    rows = []
    for name, cells in found.ms.items():
        numbers = [cell for cell in cells if isinstance(cell, float)]
        growth[name] = numbers[-1] / numbers[0]
        far = "" if len(numbers) == len(cells) else f" to {SIZES[len(numbers) - 1]:,}"
        rows.append([name, *map(cell_text, cells), f"{growth[name]:.1f}{far}"])
    tables.show(
        "CPU ms a question, everything behind the encoder and before the language model", [*heads, "x dearer"], rows
    )
    tables.show(
        "CPU ms once, for all questions that are asked together",
        heads,
        [[name, *map(cell_text, cells)] for name, cells in found.once_ms.items()],
    )
    tables.show(
        "Bytes of the memory, codebook included",
        heads,
        [[name, *(f"{one:,}" for one in cells)] for name, cells in found.size_bytes.items()],
    )
    return growth


def cell_text(cell: float | str) -> str:
    return cell if isinstance(cell, str) else f"{cell:.2f}"


# What does not depend on the documents.


def model_share(repeats: int) -> dict[str, float]:
    """CPU ms a question of T5-small, and of distilgpt2 for 16 tokens; 14 tokens of question."""
    with tempfile.TemporaryDirectory() as folder:
        net = document_training.reader(Path(folder)).eval()
    text = document_training.made_up(random.Random(3), 1, 2)[0].question.text
    z = net.amortiser.questions([text])
    tokens, prefix = [net.lm.words.question(text)], Prefix(*net.prefixes(z))

    def answer() -> None:
        with net.lm.using(net.lora):
            net.lm.generate(tokens, prefix)

    parts: dict[str, Callable[[], object]] = {
        "question encoder": lambda: net.amortiser.questions([text]),
        "prefix head": lambda: net.prefixes(z),
        f"language model, {net.lm.options.new_tokens} tokens": answer,
    }
    for act in parts.values():
        act()
    found = {name: median(once(act) for _ in range(repeats)) for name, act in parts.items()}
    tables.show("CPU ms a question, whatever was read", ["", "ms"], [[n, f"{ms:.1f}"] for n, ms in found.items()])
    return found


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=5.0, help="leave out what would take longer a question")
    parser.add_argument("--gib", type=float, default=4.0, help="leave out a MAC whose bank, keys and values are larger")
    parser.add_argument("--json", help="write the figures to this file, too")
    asked = parser.parse_args()

    torch.manual_seed(0)
    aggregator, quantiser = Aggregator(WIDTH, BLOCKS).eval(), Quantiser(CODES, WIDTH, Codebook()).eval()
    quantiser.codebook.copy_(torch.randn_like(quantiser.codebook))
    queries = torch.randn(20, 1, LATENTS, WIDTH)

    figures: dict[str, object] = {"repeats": asked.repeats}
    figures["mbc"] = fifty_times(aggregator, quantiser, queries, asked.repeats)
    found = by_documents(aggregator, quantiser, queries, asked.repeats, asked.seconds, asked.gib)
    growth = show_sizes(found)
    figures |= {"documents": SIZES, "ms": found.ms, "once_ms": found.once_ms, "bytes": found.size_bytes}
    figures |= {"growth": growth, "model_ms": model_share(asked.repeats)}
    if asked.json:
        Path(asked.json).write_text(json.dumps({"document_readout": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
