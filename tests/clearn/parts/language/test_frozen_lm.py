"""The frozen language model: what goes in, what comes out, and that nothing of it ever moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from clearn.errors import ConfigError, DataError, StateError
from clearn.parts.language import Embeds, FrozenLM, Lm, Memory, Prefix
from clearn.parts.language.tiny import THINGS, WORDS, tiny_lm

pytest.importorskip("transformers")
pytest.importorskip("peft")

TEXTS = ["river lake", "the code of river is lake .", "what", "iron and coal and oil", "a b c"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def lm() -> FrozenLM:
    return FrozenLM(Lm())


def gpt2_folder(folder: Path, **changes: object) -> Path:
    """A random GPT-2 with the tiny tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = tiny_lm().tokenizer
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_positions=256, eos_token_id=1, bos_token_id=1
    )
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(3)
    net = GPT2LMHeadModel(config)
    for value in net.parameters():
        value.data += 0.2 * torch.randn_like(value)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tmp_path: Path) -> FrozenLM:
    return FrozenLM(Lm(model=str(gpt2_folder(tmp_path / "gpt2")), dtype="float32"))


@pytest.fixture(params=["llama", "gpt2"])
def any_lm(request: pytest.FixtureRequest, tmp_path: Path) -> FrozenLM:
    return (
        FrozenLM(Lm())
        if request.param == "llama"
        else FrozenLM(Lm(model=str(gpt2_folder(tmp_path / "gpt2")), dtype="float32"))
    )


def prefix(lm: FrozenLM, rows: int, length: int = 2) -> Prefix:
    shape = (rows, lm.depth, lm.kv_heads, length, lm.head_size)
    return Prefix(torch.randn(shape), torch.randn(shape))


def embeds(lm: FrozenLM, rows: int, length: int = 3) -> Embeds:
    return Embeds(0.25 * torch.randn(rows, length, lm.width))


def nothing(lm: FrozenLM, rows: int) -> None:
    return None


def questions(lm: FrozenLM) -> list[list[int]]:
    return [lm.words.question(text) for text in TEXTS]


def answers(lm: FrozenLM) -> list[list[int]]:
    return [lm.words.answer(text) for text in ("lake", "iron ore of coal", "", "one", "seven eight")]


# tokens


def test_words_are_distinct_known_and_come_back(lm: FrozenLM) -> None:
    assert len(set(WORDS)) == len(WORDS) >= 300
    text = " ".join(WORDS)
    ids = lm.words.tokens(text)
    assert len(ids) == len(WORDS)
    assert lm.words.tokenizer.unk_token_id not in ids
    assert lm.words.tokenizer.decode(ids) == text
    assert {"?", ".", "the", "of", "is", "what", "code"} <= set(WORDS)


def test_special_tokens_are_neither_added_nor_read_from_a_text(gpt2: FrozenLM, lm: FrozenLM) -> None:
    for model in (lm, gpt2):
        assert model.words.eos not in model.words.tokens("river <eos> lake")
        assert model.words.tokens("") == []
        assert model.words.answer("lake") == [*model.words.tokens("lake"), model.words.eos]


def test_a_long_question_loses_its_front_and_a_long_document_its_end() -> None:
    lm = FrozenLM(Lm(sequence_tokens=10, new_tokens=4, document_tokens=5))
    ids = lm.words.tokens(" ".join(WORDS[:20]))
    assert lm.words.question(" ".join(WORDS[:20])) == ids[-6:]
    assert lm.words.document(" ".join(WORDS[:20])) == ids[:5]


def test_a_long_answer_keeps_all_its_tokens_and_its_question_loses_its_front() -> None:
    lm = FrozenLM(Lm(sequence_tokens=10, new_tokens=4))
    question, answer = lm.words.tokens(" ".join(WORDS[:9])), lm.words.answer(" ".join(WORDS[:6]))
    logits, targets, _ = lm.answer_logits([question], [answer])
    assert targets[0].tolist() == answer
    assert torch.equal(logits, lm.answer_logits([question[-3:]], [answer])[0])


def test_an_answer_beyond_the_sequence_is_refused() -> None:
    lm = FrozenLM(Lm(sequence_tokens=5, new_tokens=4))
    with pytest.raises(DataError, match=r"an answer of 5 tokens leaves no room .* lm.sequence_tokens=5: .* 6 or more"):
        lm.answer_losses([lm.words.tokens("what")], [lm.words.answer("one two three four")])


def test_an_empty_question_is_asked_with_the_start_token(any_lm: FrozenLM) -> None:
    assert any_lm.words.question(" ") == [any_lm.words.eos]
    assert any_lm.answer_losses([any_lm.words.question("")], [any_lm.words.answer("lake")]).isfinite().all()
    assert len(any_lm.generate([any_lm.words.question("")])) == 1


# answers


def test_answer_logits_are_those_of_the_whole_model_on_one_unpadded_row(any_lm: FrozenLM) -> None:
    logits, targets, mask = any_lm.answer_logits(questions(any_lm), answers(any_lm))
    assert mask.sum(1).tolist() == [len(answer) for answer in answers(any_lm)]
    for row, (question, answer) in enumerate(zip(questions(any_lm), answers(any_lm), strict=True)):
        whole = any_lm.net(input_ids=torch.tensor([question + answer])).logits[0].float()
        wanted = whole[len(question) - 1 : len(question) + len(answer) - 1]
        torch.testing.assert_close(logits[row, : len(answer)], wanted, rtol=1e-5, atol=1e-5)
        assert targets[row, mask[row]].tolist() == answer


@pytest.mark.parametrize("make", [nothing, prefix, embeds])
def test_neighbours_and_their_padding_change_no_loss(
    any_lm: FrozenLM, make: Callable[[FrozenLM, int], Memory | None]
) -> None:
    asked, said, memory = questions(any_lm), answers(any_lm), make(any_lm, len(TEXTS))
    together = any_lm.answer_losses(asked, said, memory)
    for row in range(len(asked)):
        own = None if memory is None else memory.rows(torch.tensor([row]))
        alone = any_lm.answer_losses([asked[row]], [said[row]], own)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


def test_losses_are_means_over_the_answers_tokens(lm: FrozenLM) -> None:
    logits, targets, mask = lm.answer_logits(questions(lm), answers(lm))
    wanted = [
        torch.stack([-logits[b, t].log_softmax(-1)[targets[b, t]] for t in range(int(mask[b].sum()))]).mean()
        for b in range(len(TEXTS))
    ]
    torch.testing.assert_close(lm.answer_losses(questions(lm), answers(lm)), torch.stack(wanted))


@pytest.mark.parametrize("make", [nothing, prefix, embeds])
def test_generation_is_the_naive_loop_for_each_question_alone(
    any_lm: FrozenLM, make: Callable[[FrozenLM, int], Memory | None]
) -> None:
    asked, memory = questions(any_lm), make(any_lm, len(TEXTS))
    together = any_lm.generate(asked, memory)
    assert len(set(together)) > 1, "the rows tell something apart"
    for row, question in enumerate(asked):
        own = None if memory is None else memory.rows(torch.tensor([row]))
        said: list[int] = []
        while len(said) < any_lm.options.new_tokens:
            logits, _, _ = any_lm.answer_logits([question], [[*said, any_lm.words.eos]], own)
            said.append(int(logits[0, -1].argmax()))
            if said[-1] == any_lm.words.eos:
                break
        text = any_lm.words.tokenizer.decode(said, skip_special_tokens=True)
        assert together[row] == text.lstrip().partition("\n")[0].strip()


def test_answers_do_not_depend_on_the_batch(any_lm: FrozenLM, tmp_path: Path) -> None:
    asked, memory = questions(any_lm), prefix(any_lm, len(TEXTS))
    wanted = any_lm.generate(asked, memory)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = any_lm.generate([asked[row] for row in order.tolist()], memory.rows(order))
    assert turned == [wanted[row] for row in order.tolist()]
    assert [any_lm.generate([asked[row]], memory.rows(torch.tensor([row])))[0] for row in range(5)] == wanted
    small = FrozenLM(Lm(model=any_lm.options.model, dtype="float32", batch=2))
    assert small.generate(asked, memory) == wanted
    assert any_lm.generate([]) == []


def test_a_call_leaves_no_trace_in_the_next(lm: FrozenLM) -> None:
    memory = prefix(lm, len(TEXTS))
    kept = Prefix(memory.keys.clone(), memory.values.clone())
    first = lm.generate(questions(lm), memory)
    losses = lm.answer_losses(questions(lm), answers(lm), memory)
    assert lm.generate(questions(lm), memory) == first
    assert torch.equal(lm.answer_losses(questions(lm), answers(lm), memory), losses)
    assert torch.equal(memory.keys, kept.keys)
    assert torch.equal(memory.values, kept.values)


def test_an_answer_ends_at_its_end_token_or_at_the_end_of_a_line_with_text(lm: FrozenLM) -> None:
    river, line = lm.words.tokens("river")[0], lm.words.tokens("\n")[0]
    assert lm.words.complete([river, lm.words.eos])
    assert lm.words.complete([river, line])
    assert lm.words.complete([line, river, line])
    assert not lm.words.complete([line, line])
    assert not lm.words.complete([river, river])
    assert lm.words.said([line, river, lm.words.eos]) == "river"


# memories


def test_a_prefix_made_of_real_tokens_keys_and_values_is_those_tokens(gpt2: FrozenLM) -> None:
    """With absolute positions the cache of a text is a prefix; the rest counts on from its length."""
    from transformers import DynamicCache

    words = gpt2.words
    before, question, answer = words.tokens("the code of"), words.tokens("river is"), words.answer("lake")
    cache = DynamicCache()
    gpt2.net(input_ids=torch.tensor([before]), past_key_values=cache, use_cache=True)
    entries = list(cache)
    memory = Prefix(torch.stack([e[0] for e in entries], 1), torch.stack([e[1] for e in entries], 1))
    wanted, _, _ = gpt2.answer_logits([before + question], [answer])
    got, _, _ = gpt2.answer_logits([question], [answer], memory)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert gpt2.generate([question], memory) == gpt2.generate([before + question])


def test_the_opening_is_what_the_network_keeps_of_start_tokens(any_lm: FrozenLM) -> None:
    asked, said = questions(any_lm), answers(any_lm)
    start = any_lm.words.question(" ")
    opening = any_lm.opening(2).rows(torch.zeros(len(asked), dtype=torch.int64))
    spoken = any_lm.answer_losses([start * 2 + ids for ids in asked], said)
    torch.testing.assert_close(any_lm.answer_losses(asked, said, opening), spoken, rtol=1e-5, atol=1e-5)


def test_prefix_keys_enter_unrotated_and_tokens_start_behind_them(lm: FrozenLM) -> None:
    """What a Llama caches is rotated already; it is put back as it was, so the unsplit pass comes out."""
    from transformers import DynamicCache

    before, question, answer = lm.words.tokens("the code of"), lm.words.tokens("river is"), lm.words.answer("lake")
    cache = DynamicCache()
    lm.net(input_ids=torch.tensor([before]), past_key_values=cache, use_cache=True)
    rotated = torch.stack([e[0] for e in cache], 1)
    values = torch.stack([e[1] for e in cache], 1)
    wanted, _, _ = lm.answer_logits([before + question], [answer])
    got, _, _ = lm.answer_logits([question], [answer], Prefix(rotated, values))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)

    first = lm.net.model.layers[0]
    embedded = first.input_layernorm(lm.embed(torch.tensor([before])))
    plain = first.self_attn.k_proj(embedded).view(1, 3, lm.kv_heads, lm.head_size).transpose(1, 2)
    torch.testing.assert_close(rotated[:, 0, :, 0], plain[:, :, 0])  # position 0 is turned by nothing, others are
    assert not torch.allclose(rotated[:, 0, :, 2], plain[:, :, 2], atol=1e-3)


def test_embedded_tokens_are_those_tokens(any_lm: FrozenLM) -> None:
    words = any_lm.words
    before, question, answer = words.tokens("the code of"), words.tokens("river is"), words.answer("lake")
    memory = Embeds(any_lm.embed(torch.tensor([before])))
    wanted, _, _ = any_lm.answer_logits([before + question], [answer])
    got, _, _ = any_lm.answer_logits([question], [answer], memory)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert any_lm.generate([question], memory) == any_lm.generate([before + question])


@pytest.mark.parametrize("kind", ["prefix", "embeds"])
def test_a_memory_can_make_the_tiny_model_say_what_it_shall(lm: FrozenLM, kind: str) -> None:
    """The code of X is Y: one question, sixteen answers, and nothing but the memory to tell them apart."""
    b, question = 16, lm.words.question("what is the code of river ?")
    wanted = [" ".join(THINGS[3 * row : 3 * row + 1 + row % 2]) for row in range(b)]
    said = [lm.words.answer(text) for text in wanted]
    drawn: Memory = prefix(lm, b) if kind == "prefix" else embeds(lm, b)
    learned = [drawn.keys, drawn.values] if isinstance(drawn, Prefix) else [drawn.vectors]
    for value in learned:
        value.requires_grad_()
    optimizer = torch.optim.Adam(learned, lr=0.05)
    for _ in range(130):
        optimizer.zero_grad()
        lm.answer_losses([question] * b, said, drawn).mean().backward()
        optimizer.step()
    assert lm.generate([question] * b, drawn) == wanted
    turned = lm.generate([question] * b, drawn.rows(torch.arange(b).roll(1)))
    assert turned == [wanted[row - 1] for row in range(b)]


@pytest.mark.parametrize("wrong", ["rows", "layers", "width", "embeds", "heads"])
def test_a_memory_of_another_model_is_refused(lm: FrozenLM, wrong: str) -> None:
    memories: dict[str, Memory] = {
        "rows": prefix(lm, 2),
        "layers": Prefix(torch.zeros(1, 3, 2, 2, 16), torch.zeros(1, 3, 2, 2, 16)),
        "width": Prefix(torch.zeros(1, 2, 2, 2, 8), torch.zeros(1, 2, 2, 2, 8)),
        "heads": Prefix(torch.zeros(1, 2, 2, 2, 16), torch.zeros(1, 2, 4, 2, 16)),
        "embeds": Embeds(torch.zeros(1, 2, 65)),
    }
    with pytest.raises(AssertionError, match=r"prefixes for 1 rows|embeddings for 1 rows"):
        lm.answer_losses([lm.words.tokens("what")], [lm.words.answer("lake")], memories[wrong])


def test_a_memory_that_is_no_number_is_refused(lm: FrozenLM) -> None:
    for memory in (prefix(lm, 1), embeds(lm, 1)):
        (memory.values if isinstance(memory, Prefix) else memory.vectors).view(-1)[3] = float("nan")
        with pytest.raises(StateError, match="not finite"):
            lm.generate([lm.words.tokens("what")], memory)
        assert lm.answer_losses([lm.words.tokens("what")], [lm.words.answer("lake")], memory).isnan().all()


# documents


def test_soft_tokens_stand_behind_the_last_real_token(any_lm: FrozenLM) -> None:
    documents = [any_lm.words.tokens(text) for text in TEXTS] + [[]]
    soft = 0.25 * torch.randn(3, any_lm.width)
    states = any_lm.states_after(documents, soft)
    assert states.shape == (6, 3, any_lm.width)
    for row, document in enumerate(documents):
        x = torch.cat([any_lm.embed(torch.tensor(document, dtype=torch.long)), soft])[None]
        every = any_lm.net(inputs_embeds=x, output_hidden_states=True).hidden_states
        final = any_lm.net.model.norm if hasattr(any_lm.net, "model") else any_lm.net.transformer.ln_f
        torch.testing.assert_close(final(states[row]), every[-1][0, -3:], rtol=1e-5, atol=1e-5)
        alone = any_lm.states_after([document], soft)[0]
        torch.testing.assert_close(states[row], alone, rtol=1e-5, atol=1e-5)


def test_states_of_tokens_are_the_layers_own(any_lm: FrozenLM) -> None:
    documents = [any_lm.words.tokens(text) for text in TEXTS] + [[]]
    for depth in range(any_lm.depth):
        states, mask = any_lm.token_states(documents, depth)
        assert mask.sum(1).tolist() == [len(document) for document in documents]
        assert not states[~mask].any()
        for row, document in enumerate(documents[:-1]):
            hidden = any_lm.net(input_ids=torch.tensor([document]), output_hidden_states=True).hidden_states[depth][0]
            wanted = hidden if depth else any_lm.embed(torch.tensor(document))
            torch.testing.assert_close(states[row, : len(document)], wanted, rtol=1e-5, atol=1e-5)
    last, _ = any_lm.token_states(documents, any_lm.depth)
    torch.testing.assert_close(last[1, :1], any_lm.token_states([documents[1]], any_lm.depth)[0][0, :1])
    with pytest.raises(ConfigError, match=r"depth=9 must be in \[0, "):
        any_lm.token_states(documents, 9)


# what learns and what does not


def trained(lm: FrozenLM) -> dict[str, Tensor]:
    """Take a few steps on all that takes a gradient, in training mode; give the network's values from before."""
    before = {key: value.clone() for key, value in lm.net.state_dict().items()}
    lm.train()
    memory, soft = prefix(lm, len(TEXTS)), (0.25 * torch.randn(2, lm.width)).requires_grad_()
    memory.keys.requires_grad_()
    memory.values.requires_grad_()
    own = [value for value in lm.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam([*own, memory.keys, memory.values, soft], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        with lm.using("kv"):
            states = lm.states_after(questions(lm), soft)
            losses = lm.answer_losses(questions(lm), answers(lm), memory)
            losses = losses + lm.answer_losses(questions(lm), answers(lm), Embeds(states))
        losses.mean().backward()
        assert all(value.grad is not None and value.grad.any() for value in (memory.keys, memory.values, soft))
        assert all(value.grad is None for value in lm.net.parameters())
        optimizer.step()
    assert own and all(value.grad is not None and value.grad.any() for value in own)
    return before


def test_training_moves_what_was_added_and_never_the_network(any_lm: FrozenLM) -> None:
    any_lm.add_lora("kv", ["k", "v"], last=None, rank=4, alpha=8, dropout=0.1)
    before = trained(any_lm)
    assert all(torch.equal(value, before[key]) for key, value in any_lm.net.state_dict().items())
    assert any_lm.content_hashes() == any_lm.pretrained_hashes
    keys = {key for key in any_lm.state_dict() if not key.startswith("loras.")}
    assert keys == set(any_lm.pretrained_hashes)


def test_fresh_lora_changes_no_bit_and_lora_that_is_off_changes_none_ever(any_lm: FrozenLM) -> None:
    def look() -> list[Tensor]:
        return [
            any_lm.answer_logits(questions(any_lm), answers(any_lm))[0],
            any_lm.answer_logits(questions(any_lm), answers(any_lm), kept)[0],
            any_lm.states_after(questions(any_lm), soft),
        ]

    kept, soft = prefix(any_lm, len(TEXTS)), torch.randn(2, any_lm.width)
    with torch.no_grad():
        base = look()
        any_lm.add_lora("kv", ["k", "v"], last=None, rank=4, alpha=8, dropout=0.0)
        with any_lm.using("kv"):
            assert all(map(torch.equal, look(), base))
    trained(any_lm)
    with torch.no_grad():
        assert all(map(torch.equal, look(), base))
        with any_lm.using("kv"):
            assert not any(map(torch.equal, look(), base))
            with any_lm.using(None):
                assert all(map(torch.equal, look(), base))
            assert not any(map(torch.equal, look(), base))
        assert all(map(torch.equal, look(), base))


def projections(lm: FrozenLM, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a layer, LoRA that is active included."""
    attention = lm.net.model.layers[layer].self_attn if hasattr(lm.net, "model") else lm.net.transformer.h[layer].attn
    active = lm._lora(lm._active) if lm._active else None
    with active.beside(lm.net) if active else torch.no_grad():
        if hasattr(attention, "c_attn"):
            q, k, v = attention.c_attn(x).chunk(3, dim=-1)
            return q, k, v
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)


def test_key_value_lora_leaves_queries_bit_equal_and_earlier_layers_alone(any_lm: FrozenLM) -> None:
    any_lm.add_lora("kv", ["k", "v"], last=1, rank=4, alpha=8, dropout=0.0)
    trained(any_lm)
    x = torch.randn(2, 5, any_lm.width)
    for layer in range(any_lm.depth):
        plain = projections(any_lm, layer, x)
        with any_lm.using("kv"):
            q, k, v = projections(any_lm, layer, x)
        assert torch.equal(q, plain[0])
        assert torch.equal(k, plain[1]) == torch.equal(v, plain[2]) == (layer < any_lm.depth - 1)


def test_lora_adds_what_the_paper_says(any_lm: FrozenLM) -> None:
    any_lm.add_lora("kv", ["k", "v"], last=1, rank=4, alpha=12, dropout=0.5)
    any_lm.eval()
    pairs = list(any_lm._lora("kv").pairs.values())
    for pair in pairs:
        nn.init.normal_(pair.lora_B["pair"].weight)
    x = torch.randn(2, 5, any_lm.width)
    _, k, v = projections(any_lm, any_lm.depth - 1, x)
    with any_lm.using("kv"):
        _, k_with, v_with = projections(any_lm, any_lm.depth - 1, x)
    deltas = [12 / 4 * x @ pair.lora_A["pair"].weight.T @ pair.lora_B["pair"].weight.T for pair in pairs]
    delta_k, delta_v = deltas if len(deltas) == 2 else deltas[0].chunk(2, dim=-1)
    torch.testing.assert_close(k_with, k + delta_k)
    torch.testing.assert_close(v_with, v + delta_v)


def test_lora_weighs_what_the_papers_formulas_say(gpt2: FrozenLM, lm: FrozenLM) -> None:
    """Fused: r D for A and 2 D r for B a layer; separate: r (inputs + outputs) each."""

    def weight(model: FrozenLM, name: str) -> int:
        return sum(value.numel() for value in model.loras[name].parameters())

    gpt2.add_lora("kv", ["k", "v"], last=2, rank=4, alpha=8, dropout=0.05)
    assert weight(gpt2, "kv") == 2 * 4 * 3 * 32
    gpt2.add_lora("all", ["q", "k", "v", "o"], last=None, rank=4, alpha=8, dropout=0.05)
    assert weight(gpt2, "all") == 3 * 4 * (4 * 32 + 2 * 32)
    lm.add_lora("all", ["q", "k", "v", "o"], last=None, rank=16, alpha=32, dropout=0.05)
    assert weight(lm, "all") == 2 * 16 * ((64 + 64) + 2 * (64 + 32) + (64 + 64))


def test_two_loras_do_not_mix(lm: FrozenLM) -> None:
    for name in ("one", "two"):
        lm.add_lora(name, ["q", "v"], last=None, rank=2, alpha=4, dropout=0.0)
        for pair in lm._lora(name).pairs.values():
            nn.init.normal_(pair.lora_B["pair"].weight)
    alone = FrozenLM(Lm())
    alone.add_lora("one", ["q", "v"], last=None, rank=2, alpha=4, dropout=0.0)
    alone.loras["one"].load_state_dict(lm.loras["one"].state_dict())
    with lm.using("one"), alone.using("one"):
        together, apart = (m.answer_logits(questions(m), answers(m))[0] for m in (lm, alone))
        with lm.using("two"):
            other = lm.answer_logits(questions(lm), answers(lm))[0]
    assert torch.equal(together, apart)
    assert not torch.equal(other, apart)


def test_dropout_of_lora_follows_the_mode_and_the_network_stays_in_evaluation(any_lm: FrozenLM) -> None:
    any_lm.add_lora("kv", ["k", "v"], last=None, rank=4, alpha=8, dropout=0.5)
    for pair in any_lm._lora("kv").pairs.values():
        nn.init.normal_(pair.lora_B["pair"].weight)

    def twice() -> bool:
        with any_lm.using("kv"):
            a, b = (any_lm.answer_logits(questions(any_lm), answers(any_lm))[0] for _ in range(2))
        return torch.equal(a, b)

    assert not twice()  # a module starts in training mode
    any_lm.eval()
    assert twice()
    any_lm.train()
    assert not twice()
    assert not any(module.training for module in any_lm.net.modules())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"targets": ["k", "x"]}, r"targets=\['k', 'x'\] must be one or more of"),
        ({"targets": []}, "targets="),
        ({"last": 0}, r"last=0 must be in \[1, 2\]"),
        ({"last": 3}, r"last=3 must be in \[1, 2\]"),
        ({"rank": 0}, "rank=0 must be 1 or more"),
        ({"alpha": 0.0}, "alpha=0.0 must be above 0"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
    ],
)
def test_lora_that_cannot_be_is_refused(lm: FrozenLM, wrong: dict[str, object], says: str) -> None:
    right: dict[str, object] = {"targets": ["k", "v"], "last": None, "rank": 4, "alpha": 8.0, "dropout": 0.0}
    with pytest.raises(ConfigError, match=says):
        lm.add_lora("kv", **(right | wrong))  # type: ignore[arg-type]
    assert not lm.loras


# known by content


def test_every_write_to_the_network_is_seen(lm: FrozenLM) -> None:
    weight = lm.net.model.layers[0].mlp.down_proj.weight
    for write in (lambda: weight.data.view(-1)[5:6].add_(1e-3), lambda: weight.view(-1)[5:6].add_(1e-3)):
        kept = weight.clone()
        with torch.no_grad():
            write()
        changed = {key for key, value in lm.content_hashes().items() if value != lm.pretrained_hashes[key]}
        assert changed == {"net.model.layers.0.mlp.down_proj.weight"}
        with torch.no_grad():
            weight.copy_(kept)
        assert lm.content_hashes() == lm.pretrained_hashes


def test_hashes_are_those_of_the_values(any_lm: FrozenLM) -> None:
    from clearn.state import content_hash

    wanted = {f"net.{key}": content_hash(value) for key, value in any_lm.net.state_dict().items()}
    assert any_lm.content_hashes() == wanted == any_lm.pretrained_hashes
    again = FrozenLM(any_lm.options)
    assert again.pretrained_hashes == wanted


def test_a_folder_that_was_changed_is_hashed_anew(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    before = FrozenLM(Lm(model=str(folder))).pretrained_hashes
    file = folder / "model.safetensors"
    values = load(file.read_bytes())
    values["transformer.ln_f.bias"] += 1
    save_file(values, file, metadata={"format": "pt"})
    after = FrozenLM(Lm(model=str(folder))).pretrained_hashes
    assert {key for key in before if before[key] != after[key]} == {"net.transformer.ln_f.bias"}


def test_building_draws_nothing_from_the_global_generator(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    FrozenLM(Lm())
    FrozenLM(Lm(model=str(folder)))
    assert torch.equal(torch.rand(3), wanted)


def test_bfloat16_agrees_with_float32_to_its_precision(tmp_path: Path) -> None:
    folder = str(gpt2_folder(tmp_path / "gpt2"))
    for model in ("tiny", folder):
        exact, rounded = FrozenLM(Lm(model=model, dtype="float32")), FrozenLM(Lm(model=model, dtype="bfloat16"))
        a, b = (m.answer_logits(questions(m), answers(m))[0] for m in (exact, rounded))
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).abs().max() < 0.1 * a.abs().max()
        assert not torch.equal(a, b)
        soft = torch.randn(2, rounded.width, requires_grad=True)
        rounded.add_lora("kv", ["k", "v"], None, 2, 4, 0.0)
        with rounded.using("kv"):
            assert rounded.states_after(questions(rounded), soft).dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in rounded.loras.parameters())
        assert len(rounded.generate(questions(rounded), prefix(rounded, len(TEXTS)))) == len(TEXTS)


def test_auto_is_settled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for native, wanted in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda native=native: {"avx512_bf16": native})
        assert Lm(model="some/folder").settled().dtype == wanted
        assert Lm(model="some/folder", dtype="float32").settled().dtype == "float32"
        assert Lm().settled().dtype == "float32"
    assert FrozenLM(Lm()).options.dtype == "float32"


def test_the_mean_embedding_is_one(any_lm: FrozenLM) -> None:
    every = any_lm.embed(torch.arange(any_lm.vocabulary))
    assert every.shape == (any_lm.vocabulary, any_lm.width)
    torch.testing.assert_close(any_lm.mean_embedding, every.mean(0))


# what is refused


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sequence_tokens": 16}, "lm.sequence_tokens=16 must be more than lm.new_tokens=16"),
        ({"new_tokens": 0}, "lm.new_tokens=0 must be 1 or more"),
        ({"document_tokens": 0}, "lm.document_tokens=0 must be 1 or more"),
        ({"batch": 0}, "lm.batch=0 must be 1 or more"),
        ({"dtype": "float16"}, "lm.dtype=float16 must be auto, float32 or bfloat16"),
        ({"model": ""}, "lm.model='' must be"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Lm(**wrong)  # type: ignore[arg-type]


def test_limits_beyond_the_models_positions_are_refused(tmp_path: Path) -> None:
    folder = str(gpt2_folder(tmp_path / "gpt2"))
    with pytest.raises(ConfigError, match=r"lm.document_tokens=257 must be at most 256"):
        FrozenLM(Lm(model=folder, document_tokens=257))
    lm = FrozenLM(Lm(model=folder))
    with pytest.raises(ConfigError, match=r"a sequence of 257 positions, .* beyond the 256"):
        lm.answer_losses([lm.words.tokens("what")], [[lm.words.eos]], prefix(lm, 1, length=256))


@pytest.mark.parametrize(
    ("file", "says"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "a tokenizer")],
)
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, file: str, says: str) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    (folder / file).unlink()
    with pytest.raises(DataError, match=rf"lm.model=.*gpt2 lacks {says}.*: a model's folder holds"):
        FrozenLM(Lm(model=str(folder)))


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    file = folder / "model.safetensors"
    whole, values = file.read_bytes(), load(file.read_bytes())

    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="could not be loaded"):
        FrozenLM(Lm(model=str(folder)))

    save_file({key: v for key, v in values.items() if "h.2" not in key}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"12 tensors are not in it .*first transformer.h.2"):
        FrozenLM(Lm(model=str(folder)))

    save_file(values | {"transformer.ln_f.bias": torch.zeros(7)}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"gpt2 (could not be loaded|does not hold the weights)"):
        FrozenLM(Lm(model=str(folder)))

    save_file(values | {"transformer.ln_f.bias": torch.full((32,), float("nan"))}, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match="computes numbers that are not finite"):
        FrozenLM(Lm(model=str(folder)))


def test_names_that_lead_nowhere_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"lm.model=nobody/nothing could not be loaded: .*; give a folder"):
        FrozenLM(Lm(model="nobody/nothing"))
    with pytest.raises(DataError, match=r"is no folder that can be found \(looked for .*missing\)"):
        FrozenLM(Lm(model=str(tmp_path / "missing")))


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration, ViTConfig, ViTModel

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    t5 = T5Config(vocab_size=400, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)
    nets = {
        "t5, an encoder-decoder": T5ForConditionalGeneration(t5),
        "vit": ViTModel(ViTConfig(image_size=32, patch_size=16, **small)),
    }
    for kind, net in nets.items():
        folder = tmp_path / kind[:2]
        net.save_pretrained(folder)
        tiny_lm().tokenizer.save_pretrained(folder)
        with pytest.raises(ConfigError, match=rf"is no language model \(its type is {kind}\): take a decoder"):
            FrozenLM(Lm(model=str(folder)))

    folder = tmp_path / "bert"
    BertModel(BertConfig(vocab_size=400, **small)).save_pretrained(folder)
    tiny_lm().tokenizer.save_pretrained(folder)
    with pytest.raises((ConfigError, DataError), match="bert"):  # no head, and it sees both ways
        FrozenLM(Lm(model=str(folder)))


def test_a_model_that_sees_later_tokens_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    net = BertLMHeadModel(BertConfig(vocab_size=400, **small))
    for value in net.parameters():
        value.data += 0.2 * torch.randn_like(value)
    net.save_pretrained(tmp_path)
    tiny_lm().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is no plain decoder"):
        FrozenLM(Lm(model=str(tmp_path)))


def test_a_tokenizer_without_pad_works_and_one_without_end_does_not(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    lm = FrozenLM(Lm(model=str(folder)))
    assert lm.words.tokenizer.pad_token is None
    assert len(lm.generate(questions(lm))) == len(TEXTS)

    tokenizer = tiny_lm().tokenizer
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataError, match=r"names no end of text \(eos_token is null\)"):
        FrozenLM(Lm(model=str(folder)))


def test_a_tokenizer_with_more_words_than_the_network_is_refused(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    tokenizer = tiny_lm().tokenizer
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataError, match="they are of different models"):
        FrozenLM(Lm(model=str(folder)))


def test_missing_packages_are_named_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearn.parts.language import loading

    real = loading.find_spec
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name in ("transformers", "peft") else real(name))
    with pytest.raises(ConfigError, match=r"transformers cannot be imported: pip install 'clearn\[language\]'"):
        FrozenLM(Lm())


def test_lora_without_peft_says_what_to_install(lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearn.parts.language import loading

    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(ConfigError, match=r"peft cannot be imported: pip install 'clearn\[language\]'"):
        lm.add_lora("kv", ["k", "v"], None, 2, 4.0, 0.0)
