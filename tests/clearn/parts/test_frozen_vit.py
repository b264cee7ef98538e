from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from clearn.errors import ConfigError, DataError
from clearn.parts.adapters import Adapter, AdapterBank, Bank
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.lora import LoraBank
from clearn.parts.prompts import Prefix
from clearn.state import content_hash
from clearn.stream import Inputs

torch.set_num_threads(1)

INPUTS = Inputs((3, 8, 8))
TINY = Vit("test_vit", weights=False, image_size=32)  # 6 blocks of width 64, patches of 16


def images(n: int = 4, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def fresh(inputs: Inputs = INPUTS, options: Vit = TINY, seed: int = 0) -> FrozenViT:
    torch.manual_seed(seed)
    return FrozenViT(inputs, options)


def checkpoint(folder: Path, name: str = "test_vit", seed: int = 1, **options: int) -> Path:
    """A file in timm's layout, with a classifier as published ones have."""
    torch.manual_seed(seed)
    path = folder / f"{name}.safetensors"
    save_file(timm.create_model(name, pretrained=False, **options).state_dict(), path)
    return path


LAST = {"rtol": 1e-5, "atol": 1e-5}
"""The last block computes the class token alone, so sums are taken in another order than timm's."""


def test_features_are_timms_own() -> None:
    vit = fresh()
    plain = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    plain.load_state_dict(vit.net.state_dict())
    x = vit.images(images())
    torch.testing.assert_close(vit(images()), plain(x), **LAST)
    torch.testing.assert_close(vit(images()), plain.forward_features(x)[:, 0], **LAST)  # after the final norm
    assert (vit.depth, vit.width, vit.image_size) == (6, 64, 32)


@pytest.mark.parametrize("name", ["test_vit2", "vit_tiny_patch16_224"])
def test_other_networks_of_timm_are_hosted_as_they_are(name: str) -> None:
    vit = fresh(options=Vit(name, False, 32))
    plain = timm.create_model(name, num_classes=0, img_size=32).eval()
    plain.load_state_dict(vit.net.state_dict())
    torch.testing.assert_close(vit(images(2)), plain(vit.images(images(2))), **LAST)


def test_a_fresh_adapter_is_an_exact_no_op_and_a_trained_one_stands_beside_the_mlp() -> None:
    vit = fresh()
    adapter = Adapter(vit.depth, vit.width, 4).eval()
    x = images()
    assert torch.equal(vit(x, adapter), vit(x))
    with torch.no_grad():
        adapter.up.normal_()

    seen: dict[int, torch.Tensor] = {}
    handles = []
    for index, block in enumerate(vit.net.blocks):  # the spec's other way to host adapters: hooks on plain blocks

        def before(_: torch.nn.Module, args: tuple[torch.Tensor], index: int = index) -> None:
            seen[index] = args[0]

        def after(_: torch.nn.Module, __: object, out: torch.Tensor, index: int = index) -> torch.Tensor:
            return out + adapter.branch(index, seen[index])

        handles += [block.norm2.register_forward_pre_hook(before), block.register_forward_hook(after)]
    hooked = vit(x)
    for handle in handles:
        handle.remove()
    assert torch.equal(vit(x, adapter), hooked)
    assert not torch.allclose(hooked, vit(x))


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])  # the second pools all tokens, so all are computed
def test_the_last_block_computes_what_is_read(name: str) -> None:
    vit, rows = fresh(options=Vit(name, False, 32)), []
    vit.net.blocks[-1].mlp.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[1]))
    vit(images(2))
    vit(images(2), Adapter(vit.depth, vit.width, 4))
    everything = vit.net.forward_features(vit.images(images(2))).shape[1]
    assert rows == [1 if name == "test_vit" else everything] * 2 + [everything]
    assert vit.net.blocks[-1].n_read is None  # as timm has it, between two passes


@pytest.mark.parametrize("kind", [AdapterBank, LoraBank])
def test_what_adapters_share_is_computed_once(kind: type[Bank]) -> None:
    vit, bank = fresh(), kind(6, 64, 4)
    for _ in range(3):
        adapter = bank.fresh()
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.normal_(std=0.1)
        bank.grow()
        bank.add(adapter)
    x, rows, which = images(), torch.tensor([3, 1]), torch.tensor([0, 2])
    embedded: list[int] = []
    vit.net.patch_embed.register_forward_hook(lambda _, args, __: embedded.append(len(args[0])))
    begun = vit.begin(x, bank.at)
    first, some = vit.resume(begun, bank.one(1)), vit.resume(begun[rows], bank.select(which))
    assert embedded == [4]
    assert torch.equal(first, vit(x, bank.one(1)))
    torch.testing.assert_close(some, vit(x[rows], bank.select(which)), rtol=1e-5, atol=1e-5)
    assert (begun.after is None) == (kind is LoraBank)  # LoRA is in the attention already
    assert not torch.allclose(some, vit(x[rows]))


def test_layer_scale_does_not_touch_the_branch() -> None:
    name = "vit_small_patch14_dinov2"
    vit = fresh(options=Vit(name, False, 14))
    with torch.no_grad():
        for block in vit.net.blocks:
            block.ls1.gamma.zero_()
            block.ls2.gamma.zero_()
        adapter = Adapter(vit.depth, vit.width, 1).eval()
        adapter.up_bias.fill_(1.0)
        tokens = {}
        vit.net.norm.register_forward_pre_hook(lambda _, args: tokens.update(last=args[0]))
        vit(images(1))
        plain = tokens["last"]
        vit(images(1), adapter)
    torch.testing.assert_close(tokens["last"], plain + 12 * 0.1)  # no branch but the adapters' is left


def test_each_image_goes_through_its_own_set() -> None:
    vit, bank = fresh(), AdapterBank(6, 64, 4)
    for seed in range(3):
        torch.manual_seed(seed)
        adapter = Adapter(6, 64, 4)
        with torch.no_grad():
            adapter.up.normal_()
        bank.grow()
        bank.add(adapter)
    which, x = torch.tensor([2, 0, 1, 0]), images()
    routed = vit(x, bank.select(which))
    alone = torch.cat([vit(x[i : i + 1], bank.one(t)) for i, t in enumerate(which.tolist())])
    torch.testing.assert_close(routed, alone)
    assert not torch.allclose(routed[0], vit(x, bank.one(0))[0])


def test_nothing_of_it_trains_and_adapters_get_gradients_through_it() -> None:
    vit = fresh().train()
    assert not any(module.training for module in vit.modules())
    assert not any(parameter.requires_grad for parameter in vit.parameters())
    adapter = Adapter(6, 64, 4)
    vit(images(), adapter).sum().backward()
    assert adapter.up.grad is not None
    assert adapter.up.grad.any()
    assert all(block.beside is None for block in vit.net.blocks)


def test_a_branch_that_fails_leaves_the_network_plain() -> None:
    vit, x = fresh(), images()
    plain = vit(x)
    with pytest.raises(RuntimeError):
        vit(x, Adapter(6, 32, 4))  # of another width
    assert torch.equal(vit(x), plain)


def prefixes(*blocks: int, n: int = 4, rows: int = 3, width: int = 64) -> dict[int, Prefix]:
    rng = torch.Generator().manual_seed(2)
    return {
        block: Prefix(*torch.randn(2, n, rows, width, generator=rng).mul(3).unbind())  # enough to be attended to
        for block in blocks
    }


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "vit_small_patch14_dinov2", "vit_tiny_patch16_224"])
def test_an_empty_prefix_gives_the_plain_network(name: str) -> None:
    vit = fresh(options=Vit(name, False, 28 if "dino" in name else 32))
    empty = prefixes(0, 3, rows=0, width=vit.width)
    torch.testing.assert_close(vit(images(), prefixes=empty), vit(images()), rtol=1e-6, atol=1e-6)
    assert torch.equal(vit(images(), prefixes={}), vit(images()))


def test_each_image_attends_to_its_own_prefix_in_the_blocks_that_have_one() -> None:
    vit, x, both = fresh(), images(), prefixes(1, 4)
    together = vit(x, prefixes=both)
    alone = torch.cat(
        [
            vit(x[i : i + 1], prefixes={b: Prefix(p.keys[i : i + 1], p.values[i : i + 1]) for b, p in both.items()})
            for i in range(4)
        ]
    )
    torch.testing.assert_close(together, alone)
    for fewer in ({1: both[1]}, {4: both[4]}, {2: both[1], 4: both[4]}, {}):
        assert not torch.allclose(vit(x, prefixes=fewer), together, atol=1e-4)
    swapped = {block: Prefix(part.values, part.keys) for block, part in both.items()}
    assert not torch.allclose(vit(x, prefixes=swapped), together, atol=1e-4)
    assert all(block.prefix is None for block in vit.net.blocks)


def test_a_prefix_equals_hooks_that_lengthen_keys_and_values_of_timms_own_network() -> None:
    vit, both = fresh(), prefixes(1)
    plain = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    plain.load_state_dict(vit.net.state_dict())
    attn = plain.blocks[1].attn

    def lengthened(_: torch.nn.Module, args: tuple[torch.Tensor], __: object) -> torch.Tensor:
        d = args[0].shape[2]
        q, k, v = attn.qkv(args[0]).split(d, dim=2)
        k, v = torch.cat([both[1].keys, k], 1), torch.cat([both[1].values, v], 1)
        size, heads = d // attn.num_heads, []
        for start in range(0, d, size):
            part = slice(start, start + size)
            shares = (q[..., part] @ k[..., part].mT / size**0.5).softmax(2)
            heads.append(shares @ v[..., part])
        return attn.proj(torch.cat(heads, 2))

    attn.register_forward_hook(lengthened)
    torch.testing.assert_close(vit(images(), prefixes=both), plain(vit.images(images())), rtol=1e-4, atol=1e-5)


def test_prefixes_and_adapters_stand_together() -> None:
    vit, x, both = fresh(), images(), prefixes(0, 5)
    adapter = Adapter(6, 64, 4).eval()
    assert torch.equal(vit(x, adapter, both), vit(x, prefixes=both))
    with torch.no_grad():
        adapter.up.normal_()
    assert not torch.allclose(vit(x, adapter, both), vit(x, prefixes=both))
    assert not torch.allclose(vit(x, adapter, both), vit(x, adapter))


def test_prefixes_get_gradients_and_one_that_fails_leaves_the_network_plain() -> None:
    vit, x = fresh(), images()
    rows = torch.randn(4, 3, 64, requires_grad=True)
    vit(x, prefixes={2: Prefix(rows, rows)}).sum().backward()
    assert rows.grad is not None
    assert bool(rows.grad.any())
    plain = vit(x)
    with pytest.raises(RuntimeError):
        vit(x, prefixes=prefixes(2, n=3))
    assert torch.equal(vit(x), plain)


def test_tokens_stand_behind_the_class_token_with_its_position() -> None:
    vit, x = fresh(), images()
    tokens = torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(1))
    net = vit.net
    start = net.patch_embed(vit.images(x)).reshape(4, -1, 64) + net.pos_embed[:, 1:]
    whole = torch.cat(
        [(net.cls_token + net.pos_embed[:, :1]).expand(4, -1, -1), tokens + net.pos_embed[:, :1], start], 1
    )
    for block in net.blocks:
        whole = whole + block.attn(block.norm1(whole))
        whole = whole + block.mlp(block.norm2(whole))
    torch.testing.assert_close(vit.prompted(x, tokens), net.norm(whole)[:, 1:4])
    each = torch.cat([vit.prompted(x[i : i + 1], tokens[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(vit.prompted(x, tokens), each)
    moved = vit.prompted(x, tokens[:, [2, 0, 1]])  # all at one position, so their order is nothing to them
    torch.testing.assert_close(moved, vit.prompted(x, tokens)[:, [2, 0, 1]])
    assert vit.prompted(x, tokens[:, :0]).shape == (4, 0, 64)


def test_a_token_like_the_class_token_ends_like_it() -> None:
    """Registers behind the class token, and a class token without a position, are no obstacle."""
    for name in ("test_vit", "vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224"):
        vit = fresh(options=Vit(name, False, 28 if "dino" in name else 32))
        out = vit.prompted(images(2), vit.net.cls_token.expand(2, 2, -1))
        torch.testing.assert_close(out[:, 0], out[:, 1])
        seen = {}
        handle = vit.net.norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.update(x=args[0]))
        vit.prompted(images(2), vit.net.cls_token.expand(2, 2, -1))
        handle.remove()
        torch.testing.assert_close(seen["x"][:, 0], seen["x"][:, 1])


def test_networks_that_cannot_take_prompts_say_so() -> None:
    vit = fresh()
    assert vit.cannot_take_tokens() == []
    assert vit.cannot_take_prefixes("blocks", (0, 5)) == []
    for wrong in ((0, 6), (-1,), (2, 2), ()):
        (words,) = vit.cannot_take_prefixes("blocks", wrong)
        assert words == f"blocks={list(wrong)} must be one or more different blocks in [0, 5]"
    other = fresh(options=Vit("vit_dwee_patch16_reg1_gap_256", False, 32))
    assert "no class token" in other.cannot_take_tokens()[0]
    assert "not DiffAttention" in other.cannot_take_prefixes("blocks", (0,))[0]
    assert other(images()).isfinite().all()


def test_stored_images_become_what_the_checkpoint_was_trained_on() -> None:
    cfg = timm.get_pretrained_cfg("test_vit")
    assert cfg is not None
    mean, std = torch.tensor(cfg.mean).view(3, 1, 1), torch.tensor(cfg.std).view(3, 1, 1)
    same = images(side=32)
    vit, none = fresh(), fresh(options=Vit("test_vit", False, 32, "none"))
    torch.testing.assert_close(vit.images(same), (same / 255 - mean) / std)
    torch.testing.assert_close(none.images(same), same / 255)
    floats = fresh(Inputs((3, 32, 32), "float32"), Vit("test_vit", False, 32, "none"))
    torch.testing.assert_close(floats.images(same / 255), same / 255)
    grey = fresh(Inputs((1, 8, 8)), Vit("test_vit", False, 32, "none"))
    seen = grey.images(images(channels=1))
    assert seen.shape == (4, 3, 32, 32)
    assert torch.equal(seen[:, 0], seen[:, 2])
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    assert not any(name.startswith(("mean", "std")) for name in vit.state_dict())


def test_fresh_weights_come_from_the_global_generator_and_are_carried() -> None:
    one, same, other = fresh(seed=0), fresh(seed=0), fresh(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one(images()), other(images()))
    assert one.pretrained_hashes == {}


def test_a_checkpoint_is_read_resampled_and_known_by_its_content(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)  # for 160 pixels: 10 x 10 positions
    torch.manual_seed(5)
    vit = FrozenViT(INPUTS, Vit("test_vit", str(path), 32))
    state = torch.random.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(state, torch.random.get_rng_state())  # reading draws nothing
    ours = timm.create_model(
        "test_vit", pretrained=True, num_classes=0, img_size=32, pretrained_cfg_overlay={"file": str(path)}
    ).eval()
    torch.testing.assert_close(vit(images()), ours(vit.images(images())), **LAST)
    assert vit.net.pos_embed.shape == (1, 5, 64)
    assert vit.pretrained_hashes == {name: content_hash(value) for name, value in vit.state_dict().items()}
    assert len(vit.pretrained_hashes) > 50


def test_two_of_one_checkpoint_share_no_memory_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    options = Vit("test_vit", str(path), 32)
    one, other = FrozenViT(INPUTS, options), FrozenViT(INPUTS, options)
    with torch.no_grad():
        one.net.norm.weight.zero_()
    assert other.net.norm.weight.any()
    before = other.pretrained_hashes
    checkpoint(tmp_path, seed=2)
    assert FrozenViT(INPUTS, options).pretrained_hashes != before


def test_the_checkpoints_own_size_is_the_default() -> None:
    assert fresh(options=Vit("test_vit", False)).image_size == 160


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Vit("test_vit", False, 40), r"image_size=40 must be a multiple .* 16 x 16 pixels: write 32"),
        (Vit("test_vit", False, 8), r"image_size=8 must be a multiple .*: write 16"),
        (Vit("vit_smal", False), "did you mean"),
        (Vit("vit_base_patch16_224.nonsense", False), "cannot be built by timm"),
        (Vit("resnet18", False), "no plain vision transformer.*ResNet"),
        (Vit("vit_relpos_small_patch16_224", False), "no plain vision transformer"),
        (Vit("vit_small_patch16_18x2_224", False), "no plain vision transformer"),
    ],
    ids=lambda part: part.name if isinstance(part, Vit) else "",
)
def test_networks_and_sizes_that_cannot_be_are_refused(options: Vit, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FrozenViT(INPUTS, options)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="image_size=0"):
        Vit(image_size=0)


@pytest.mark.parametrize("shape", [(64,), (4, 8, 8)], ids=str)
def test_vectors_and_odd_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"images of shape \(1 or 3, height, width\)"):
        FrozenViT(Inputs(shape, "float32"), TINY)


def test_a_missing_file_and_one_of_another_network_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vit\.weights=.*nowhere\.safetensors"):
        FrozenViT(INPUTS, Vit("test_vit", str(tmp_path / "nowhere.safetensors"), 32))
    path = checkpoint(tmp_path, "test_vit2", img_size=160)
    with pytest.raises(DataError, match=r"test_vit2\.safetensors does not hold the weights of test_vit:"):
        FrozenViT(INPUTS, Vit("test_vit", str(path), 32))
    wider = checkpoint(tmp_path, "vit_tiny_patch16_224")
    with pytest.raises(DataError, match="have another shape"):
        FrozenViT(INPUTS, Vit("test_vit", str(wider), 32))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors at all")
    with pytest.raises(DataError, match=r"broken\.safetensors"):
        FrozenViT(INPUTS, Vit("test_vit", str(broken), 32))
    lacking = tmp_path / "lacking.safetensors"
    save_file({"norm.weight": torch.ones(64)}, lacking)
    with pytest.raises(DataError, match="are not in it"):
        FrozenViT(INPUTS, Vit("test_vit", str(lacking), 32))


def test_only_passes_without_anything_beside_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def compiled(plain: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape))
            return plain(x)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    vit, plain, x = fresh(options=replace(TINY, compile=True)), fresh(), images()
    assert torch.equal(vit(x), plain(x))
    assert len(seen) == 1
    prefix = Prefix(*(torch.zeros(4, 1, vit.width) for _ in range(2)))
    vit(x, prefixes={0: prefix})
    assert len(seen) == 1
    assert set(vit.state_dict()) == set(plain.state_dict())


@pytest.mark.slow
def test_compiled_features_are_those_of_the_plain_network() -> None:
    vit, plain, x = fresh(options=replace(TINY, compile=True)), fresh(), images()
    with torch.no_grad():
        torch.testing.assert_close(vit(x), plain(x), atol=1e-4, rtol=1e-4)
