"""Networks as rows of groups: counts, numbers, cuts, shapes and refusals."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clearn.errors import ConfigError, DataError
from clearn.parts.backbones import Blueprint, blueprint
from clearn.parts.backbones.cifar_resnet import BasicBlock
from clearn.parts.backbones.names import BACKBONES
from clearn.parts.backbones.normalise import Normalise
from clearn.parts.backbones.timm_models import Group, content_hash, pretrained_stages
from clearn.parts.nets import GrowingHead, HeadedNet
from clearn.state import content_hash as state_hash
from clearn.stream import Inputs

CIFAR = Inputs((3, 32, 32), mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
SMALL = ("convnet2", "mlp", "resnet8", "resnet14", "resnet20", "resnet26", "resnet32")
NETS = tuple(name for name in BACKBONES if name != "timm/NAME")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def images(size: int, channels: int = 3) -> Inputs:
    return Inputs((channels, size, size))


def params(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules hold equal values in equal order, whatever the names."""
    left, right = list(a.state_dict().values()), list(b.state_dict().values())
    return len(left) == len(right) and all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


# ---- numbers: counts, MEMO assembly, fingerprints


@dataclass
class Memo:
    """MEMO's network written down once more: shared part, a block per task, classifier, extra head."""

    shared: nn.Module
    blocks: list[nn.Module]
    head: nn.Linear
    extra: nn.Linear

    def modules(self) -> nn.ModuleList:
        return nn.ModuleList([self.shared, *self.blocks, self.head, self.extra])


def memo(plan: Blueprint, blocks: int, new: int = 2) -> Memo:
    shared, specialized = plan.split()
    head = nn.Linear(blocks * plan.width, new * blocks)
    return Memo(shared(), [specialized() for _ in range(blocks)], head, nn.Linear(plan.width, new + 1))


def test_memo_counts_while_learning_two_classes_a_task() -> None:
    trainable, total = [], []
    for b in range(1, 6):
        net = memo(blueprint("resnet14", CIFAR), b)
        for block in net.blocks[:-1]:
            block.requires_grad_(False)
        total.append(params(net.modules()))
        trainable.append(sum(p.numel() for p in net.modules().parameters() if p.requires_grad))
    assert total == [172_181, 302_103, 432_281, 562_715, 693_405]
    assert trainable == [172_181, 172_567, 173_209, 174_107, 175_261]


# computed on the papers' own nets: image size, mean g, mean, first and last of block 1, mean of block 2,
# z_0, z_3, extra logit
FINGERPRINTS = {
    "convnet2": (
        32,
        0.02445523487,
        0.02826600305,
        0.02826600305,
        0.02826600305,
        0.01413300153,
        0.2713536293,
        1.085414517,
        0.09045120977,
    ),
    "resnet14": (
        32,
        0.02178532879,
        0.04617286244,
        0.06912428712,
        0.03556994936,
        0.01710369564,
        0.4049699717,
        1.619879887,
        0.1094636521,
    ),
    "resnet32": (
        32,
        0.06014754801,
        1.201578594,
        1.246775191,
        1.171911475,
        0.09809710633,
        8.317924482,
        33.27169793,
        0.6278214805,
    ),
    "resnet18": (
        64,
        733.5645552,
        191350.8604,
        191350.8604,
        191350.8604,
        14455.83136,
        10537302.62,
        42149210.47,
        740138.5658,
    ),
}


def fill(module: nn.Module, weight: float) -> nn.Module:
    for part in module.double().modules():
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.weight, weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        if isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
            assert part.eps == 1e-5
    return module.eval()


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprint(name: str) -> None:
    size, *wanted = FINGERPRINTS[name]
    plan = blueprint(name, images(size))
    net = memo(plan, blocks=2)
    fill(net.shared, 0.002), fill(net.blocks[0], 0.002), fill(net.blocks[1], 0.001)
    rows = torch.tensor([[0.1], [0.2], [0.3], [0.4]], dtype=torch.float64).expand(4, 2 * plan.width)
    c, i, j = torch.meshgrid(*(torch.arange(n) for n in (3, size, size)), indexing="ij")
    x = ((((c + 1) * (i * size + j)) % 7).double() / 7)[None]

    with torch.no_grad():
        g = net.shared(x)
        first, second = (block(g) for block in net.blocks)  # (1, d) each
        z = torch.cat([first, second], 1) @ rows.T  # (1, 4)
    got = (
        g.mean(),
        first.mean(),
        first[0, 0],
        first[0, -1],
        second.mean(),
        z[0, 0],
        z[0, 3],
        0.1 * second.sum(),
    )
    assert [float(value) for value in got] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_block_in_place_arithmetic_leaves_values_and_gradients_alone(stride: int) -> None:
    torch.manual_seed(0)
    block = BasicBlock(4, 4 * stride, stride).double()
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64, requires_grad=True)

    def naive(x: Tensor) -> Tensor:
        y = F.conv2d(x, block.conv1.weight, stride=stride, padding=1)
        y = torch.relu(F.batch_norm(y, None, None, block.bn1.weight, block.bn1.bias, training=True))
        y = F.conv2d(y, block.conv2.weight, padding=1)
        y = F.batch_norm(y, None, None, block.bn2.weight, block.bn2.bias, training=True)
        shortcut = x[:, :, ::stride, ::stride]
        zeros = torch.zeros(3, y.shape[1] - 4, *shortcut.shape[2:], dtype=x.dtype)
        return torch.relu(y + torch.cat([shortcut, zeros], 1))

    leaves = [x, *block.parameters()]
    got, want = block(x), naive(x)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(want)
    ours, theirs = (torch.autograd.grad(out, leaves, weights) for out in (got, want))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_cifar_resnet_initial_values() -> None:
    torch.manual_seed(0)
    net = blueprint("resnet32", CIFAR).whole()
    convolutions = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 31
    for part in convolutions:
        std, n = math.sqrt(2 / (9 * part.out_channels)), part.weight.numel()
        assert part.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * n))  # 4 standard errors
        assert abs(part.weight.mean().item()) < 4 * std / math.sqrt(n)


def test_imagenet_resnet_starts_with_live_branches() -> None:
    torch.manual_seed(0)
    net = blueprint("resnet10", images(32)).whole()
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 12
    for part in norms:
        state = part.state_dict()
        assert bool((state["weight"] == 1).all()) and not state["bias"].any()
        assert not state["running_mean"].any() and bool((state["running_var"] == 1).all())
        assert state["num_batches_tracked"] == 0
    convolutions = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 12
    for conv in convolutions:
        std = math.sqrt(2 / (conv.out_channels * conv.kernel_size[0] ** 2))
        assert conv.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * conv.weight.numel()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_resnet_computes_what_timm_computes(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = blueprint(name, images(32)).whole().eval(), timm.create_model(name, num_classes=0).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


# ---- rows of groups


@pytest.mark.parametrize("name", [*SMALL, "convnet4", "resnet10", "resnet18", "timm/convnext_atto"])
def test_split_and_whole_agree(name: str) -> None:
    plan = blueprint(name, CIFAR)
    count, x = len(plan.stages), torch.rand(2, 3, 32, 32)

    torch.manual_seed(7)
    whole = plan.whole()
    after = torch.rand(1)
    torch.manual_seed(7)
    generalized, specialized = plan.split(count)
    shared, own = generalized(), specialized()
    assert isinstance(shared, nn.Identity)
    assert same(whole, own) and whole.state_dict().keys() == own.state_dict().keys()
    assert torch.equal(after, torch.rand(1))  # as many draws

    torch.manual_seed(7)
    generalized, specialized = plan.split()
    shared, own = generalized(), specialized()
    with torch.no_grad():
        want, got = whole.eval()(x), own.eval()(shared.eval()(x))
    assert want.shape == (2, plan.width) and torch.equal(got, want)


@pytest.mark.parametrize("name", ["resnet14", "resnet10", "mlp"])
def test_every_call_draws_anew_and_shares_nothing(name: str) -> None:
    plan = blueprint(name, images(8))
    torch.manual_seed(0)
    a, b = plan.stages[-1](), plan.stages[-1]()
    assert not same(a, b)
    torch.manual_seed(0)
    assert same(a, plan.stages[-1]())
    assert a.state_dict().keys() == b.state_dict().keys()
    pointers = [value.data_ptr() for module in (a, b) for value in module.state_dict().values()]
    assert len(set(pointers)) == len(pointers)


def test_group_counts_of_the_papers() -> None:
    counts = {name: len(blueprint(name, images(32)).stages) for name in NETS}
    assert counts == {
        "convnet2": 2,
        "convnet4": 4,
        "mlp": 2,
        **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet26", "resnet32", "cosine_resnet32"), 4),
        **dict.fromkeys(("resnet10", "resnet18", "resnet34", "resnet50"), 5),
    }


def test_resnet8_is_one_block_a_stage() -> None:
    # stem 432 + 32, stages 16: 4,608 + 64, 32: 13,824 + 128, 64: 55,296 + 256
    assert params(blueprint("resnet8", CIFAR).whole()) == 464 + 4_672 + 13_952 + 55_552 == 74_640


def test_cosine_resnet32_has_two_projections_more_and_signed_features() -> None:
    net = blueprint("cosine_resnet32", CIFAR).whole()
    # 1x1 convolutions 16 -> 32 and 32 -> 64, each with a norm
    assert params(net) == 463_504 + (512 + 64) + (2_048 + 128) == 466_256
    convolutions = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert [part.kernel_size for part in convolutions].count((1, 1)) == 2
    for part in convolutions:
        std = math.sqrt(2 / (math.prod(part.kernel_size) * part.out_channels))
        assert part.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * part.weight.numel()))
    with torch.no_grad():
        features = net.eval()(torch.randn(4, 3, 32, 32))
    assert features.shape == (4, 64)
    assert bool((features < 0).any())
    assert bool((features > 0).any())


@pytest.mark.parametrize("signed", [False, True])
def test_projected_block_by_hand(signed: bool) -> None:
    torch.manual_seed(0)
    block, x = BasicBlock(4, 8, 2, projected=True, signed=signed).double(), torch.randn(3, 4, 7, 7).double()
    assert block.projection is not None
    convolution, norm = block.projection
    assert isinstance(convolution, nn.Conv2d)

    def normed(y: Tensor, layer: nn.Module) -> Tensor:
        assert isinstance(layer, nn.BatchNorm2d)
        return F.batch_norm(y, None, None, layer.weight, layer.bias, training=True)

    y = torch.relu(normed(F.conv2d(x, block.conv1.weight, stride=2, padding=1), block.bn1))
    y = normed(F.conv2d(y, block.conv2.weight, padding=1), block.bn2)
    y = y + normed(F.conv2d(x, convolution.weight, stride=2), norm)
    torch.testing.assert_close(block(x), y if signed else torch.relu(y), rtol=1e-12, atol=1e-12)
    assert BasicBlock(8, 8, 1, projected=True).projection is None


def test_maps_after_each_stage() -> None:
    """Three stages of the CIFAR nets, four of the ImageNet nets, every block of a convnet; never the stem."""
    shapes = {}
    for name in ("cosine_resnet32", "resnet14", "resnet18", "convnet2"):
        net = HeadedNet(images(32), name, False, lambda width: GrowingHead()).eval()
        with torch.no_grad():
            features, maps = net.features_and_maps(x := torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
            assert torch.equal(features, net.features(x))
            torch.testing.assert_close(maps[-1].mean((2, 3)), features)
        shapes[name] = [tuple(found.shape[1:]) for found in maps]
    cifar = [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert shapes == {
        "cosine_resnet32": cifar,
        "resnet14": cifar,
        "resnet18": [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)],
        "convnet2": [(64, 16, 16), (64, 8, 8)],
    }
    assert blueprint("mlp", CIFAR).first_stage is None


def test_memo_2_shares_one_group_less() -> None:
    generalized, specialized = blueprint("resnet32", CIFAR).split(2)
    assert params(generalized()) == 112_016 - 88_192
    assert params(specialized()) == 351_488 + 88_192


@pytest.mark.parametrize("specialized", [0, 5, -1])
def test_split_out_of_range(specialized: int) -> None:
    with pytest.raises(ConfigError, match=r"must lie in \[1, 4\]: resnet32 has 4 groups"):
        blueprint("resnet32", CIFAR).split(specialized)


# ---- inputs


@pytest.mark.parametrize("name", [*SMALL, "resnet10"])
@pytest.mark.parametrize("channels,size", [(1, 8), (1, 28), (3, 17), (3, 32), (4, 5)])
def test_any_channels_and_sizes(name: str, channels: int, size: int) -> None:
    plan = blueprint(name, images(size, channels))
    net = plan.whole()
    x = torch.rand(2, channels, size, size, requires_grad=True)
    features = net(x)
    assert features.shape == (2, plan.width) and features.dtype == torch.float32
    features.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    net.eval()
    with torch.no_grad():
        assert bool((net(x) >= 0).all())


def test_grey_images_are_laid_out_channels_last_too() -> None:
    stem = blueprint("resnet14", images(28, channels=1)).stages[0]()
    out = stem(torch.rand(2, 1, 28, 28))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert all(value.is_contiguous() for value in stem.state_dict().values())


def test_layout_changes_nothing_but_rounding() -> None:
    torch.manual_seed(0)
    net, x = (
        blueprint("resnet20", CIFAR).whole().double().eval(),
        torch.randn(2, 3, 32, 32, dtype=torch.float64),
    )
    stem = list(net[0].children())
    plain = nn.Sequential(nn.Sequential(*stem[1:]), *net[1:])  # without the layout module
    torch.testing.assert_close(net(x), plain(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name,least", [("convnet2", 4), ("convnet4", 31)])
def test_least_size_is_exact(name: str, least: int) -> None:
    net = blueprint(name, images(least)).whole().eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, least, least)).isfinite().all()
    with pytest.raises(ConfigError, match=f"{name} needs images of at least {least}x{least}, got shape"):
        blueprint(name, images(least - 1))


@pytest.mark.parametrize("name", ["resnet32", "convnet2", "resnet18", "timm/resnet26"])
def test_vectors_are_refused_by_image_nets(name: str) -> None:
    with pytest.raises(ConfigError, match=r"needs images .* got inputs of shape \(64,\): take backbone mlp"):
        blueprint(name, Inputs((64,), "float32"))


def test_mlp_takes_vectors() -> None:
    plan = blueprint("mlp", Inputs((64,), "float32"))
    assert plan.width == 100 and params(plan.whole()) == 64 * 100 + 100 + 100 * 100 + 100
    assert plan.whole()(torch.rand(3, 64)).shape == (3, 100)


@pytest.mark.parametrize("name,near", [("renset32", "resnet32"), ("ResNet18", "resnet18"), ("convnet3", "convnet")])
def test_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"no backbone '{name}'; did you mean '{near}"):
        blueprint(name, CIFAR)


def test_every_listed_name_is_built_and_the_listing_needs_no_torch() -> None:
    with torch.device("meta"):
        for name in NETS:
            assert params(blueprint(name, images(64)).whole()) > 0
    code = (
        "import sys, clearn.parts.backbones, clearn.parts.backbones.names;"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Normalise


def test_normalise_uint8_by_hand() -> None:
    first = Normalise(CIFAR)
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (CIFAR.mean, CIFAR.std))
    got = first(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), (x.double() / 255 - mean) / std, rtol=1e-6, atol=1e-6)


def test_normalise_carries_nothing() -> None:
    first = Normalise(CIFAR)
    assert not first.state_dict() and not list(first.parameters())
    assert Normalise(CIFAR).double()(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).dtype == torch.float64


def test_normalise_without_mean_and_std() -> None:
    x = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert Normalise(Inputs((1, 1, 2)))(x).flatten().tolist() == [0.0, 1.0]
    vector = torch.rand(4, 6)
    assert Normalise(Inputs((6,), "float32"))(vector) is vector


def test_normalise_float_vectors_and_images() -> None:
    vectors = Inputs((2,), "float32", mean=(1.0, 2.0), std=(2.0, 4.0))
    assert Normalise(vectors)(torch.tensor([[3.0, 2.0]])).tolist() == [[1.0, 0.0]]
    pictures = Inputs((1, 1, 1), "float32", mean=(0.5,), std=(0.25,))
    assert Normalise(pictures)(torch.ones(1, 1, 1, 1)).item() == 2.0


@pytest.mark.parametrize(
    "inputs,what",
    [
        (Inputs((3, 8, 8), mean=(0.5,)), "mean must have one value for each of 3 channels"),
        (Inputs((1, 8, 8), std=(0.0,)), "std must be above 0"),
    ],
)
def test_normalise_refuses(inputs: Inputs, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Normalise(inputs)


# ---- timm models


@pytest.mark.parametrize(
    "name,size,groups,width",
    [
        ("timm/resnet26", 32, 5, 2048),
        ("timm/convnext_atto", 32, 5, 320),
        ("timm/regnetx_002", 32, 5, 368),
        ("timm/efficientnet_lite0", 32, 8, 1280),
        ("timm/mobilenetv3_small_050", 32, 7, 1024),
        ("timm/vit_tiny_patch16_224", 32, 13, 192),
    ],
)
def test_timm_groups_compute_what_the_model_computes(name: str, size: int, groups: int, width: int) -> None:
    plan = blueprint(name, images(size))
    assert (len(plan.stages), plan.width) == (groups, width)
    net = plan.whole().eval()
    resized = size if "vit" in name else None
    model = timm.create_model(name.removeprefix("timm/"), num_classes=0, img_size=resized)
    assert params(net) == params(model)
    with torch.no_grad():
        assert net(torch.rand(2, 3, size, size)).shape == (2, width)


def test_proving_a_cut_moves_no_random_number() -> None:
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    blueprint("timm/convnext_femto", images(32))
    assert torch.equal(torch.rand(4), want)


@pytest.mark.parametrize("name", ["timm/densenet121", "timm/inception_v3"])
def test_timm_model_without_a_row_of_stages(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be cut into stem, stages and pooling"):
        blueprint(name, images(96))


def test_unknown_timm_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no model 'resnet62'; did you mean 'timm/resnet"):
        blueprint("timm/resnet62", CIFAR)


def test_timm_model_refuses_images_too_small() -> None:
    with pytest.raises(ConfigError, match=r"timm/convnext_atto cannot take inputs of shape \(3, 8, 8\)"):
        blueprint("timm/convnext_atto", images(8))


# ---- pretrained


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-shaped weights of a ResNet10 with its classifier, as a file in timm's layout."""
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("weights") / "resnet10.safetensors"
    save_file(timm.create_model("resnet18", layers=(1, 1, 1, 1)).state_dict(), path)
    return path


def test_pretrained_values_do_not_depend_on_order_or_seed(weights: Path) -> None:
    plan = blueprint("resnet10", images(32), str(weights))
    torch.manual_seed(1)
    want = torch.rand(3)
    torch.manual_seed(1)
    forward = [build() for build in plan.stages]
    backward = [build() for build in reversed(plan.stages)][::-1]
    again = blueprint("resnet10", images(32), str(weights)).whole()
    assert torch.equal(torch.rand(3), want)  # nothing drawn
    for a, b, c in zip(forward, backward, again, strict=True):
        assert same(a, b) and same(a, c)

    model = timm.create_model("resnet18", layers=(1, 1, 1, 1), num_classes=0)
    file = {k: v for k, v in load_file(weights).items() if not k.startswith("fc.")}
    model.load_state_dict(file)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(nn.Sequential(*forward).eval()(x), model.eval()(x))


def test_pretrained_hashes_tell_touched_leaves(weights: Path) -> None:
    last = blueprint("resnet10", images(32), str(weights)).stages[-1]()
    assert isinstance(last, Group)
    state = last.state_dict()
    assert last.pretrained_hashes.keys() == state.keys() and len(state) == 18
    assert all(last.pretrained_hashes[key] == content_hash(value) for key, value in state.items())

    key, value = next(iter(state.items()))
    value.view(-1)[0] += 1e-6
    touched = [k for k, v in last.state_dict().items() if last.pretrained_hashes[k] != content_hash(v)]
    assert touched == [key]


def test_fresh_groups_have_no_hashes() -> None:
    group = blueprint("resnet10", images(32)).stages[0]()
    assert isinstance(group, Group) and group.pretrained_hashes == {}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(2, 3).T,
        torch.tensor(5),
        torch.zeros(0, 4),
        torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.rand(3).bfloat16(),
        torch.tensor([True, False]),
    ],
)
def test_content_hash_is_the_one_of_the_state(tensor: Tensor) -> None:
    assert content_hash(tensor) == state_hash(tensor) == content_hash(tensor.contiguous().clone())


def test_content_hash_sees_shape_and_dtype() -> None:
    values = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)]
    assert len({content_hash(value) for value in values}) == 3


def test_pretrained_weights_meet_grey_images(weights: Path) -> None:
    net = blueprint("resnet10", images(28, channels=1), str(weights)).whole()
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 512)


def test_pretrained_transformer_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    torch.manual_seed(0)
    model: Any = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10).eval()
    save_file(model.state_dict(), path)
    net = blueprint("timm/vit_tiny_patch16_224", images(32), str(path)).whole().eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        want = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.equal(net(x), want)


def test_file_of_another_network(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(DataError, match=r"has no values for .* of timm/resnet18"):
        blueprint("resnet18", images(32), str(weights))  # a prefix of every layer, the rest is missing
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(DataError, match="does not hold the weights of timm/resnet18"):
        blueprint("resnet18", images(32), str(path))


def test_file_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.safetensors", tmp_path / "pickle.pth"):
        with pytest.raises(DataError, match=r"is no \.safetensors file that can be found"):
            blueprint("resnet18", images(32), str(path))


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        DataError, match="weights of timm/resnet18 could not be had: no route to host; give a local file"
    ):
        pretrained_stages("resnet18", (3, 32, 32), True, {})


@pytest.mark.parametrize("name", ["resnet32", "convnet2", "mlp"])
def test_small_nets_have_no_weights(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no pretrained weights, got pretrained=True"):
        blueprint(name, CIFAR, pretrained=True)


def test_resnet10_has_no_published_weights() -> None:
    with pytest.raises(ConfigError, match="resnet10 has no published weights"):
        blueprint("resnet10", CIFAR, pretrained=True)
