"""Pictures of varying size: the published sets by their folders, squares and cuts as torchvision makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomResizedCrop, Resize
from torchvision.transforms.functional import resized_crop

from clearn.config import load
from clearn.context import Context
from clearn.errors import ConfigError, DataError
from clearn.ledger import Budget
from clearn.options import TrainerOptions
from clearn.parts.augment import PRESETS, Augment, draw_boxes
from clearn.parts.samples import CutSamples, DatasetSamples, TensorSamples, concat
from clearn.progress import Progress
from clearn.recipe import Recipe
from clearn.streams import DATASETS, class_incremental, datasets, domain_incremental, from_arrays
from clearn.streams.datasets import dataset, images
from clearn.streams.datasets.images import RELEASES, ImageArrays, ImageFiles, View
from clearn.streams.datasets.record import RELEASED, Options

torch.set_num_threads(1)
SIZES = ((40, 30), (25, 61), (33, 33), (300, 20))  # width, height


def picture(seed: int, width: int, height: int) -> Image.Image:
    noise = np.random.RandomState(seed).randint(0, 256, (height // 5 + 1, width // 5 + 1, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def write_release(place: Path, classes: int = 4, train: int = 3, test: int = 2) -> None:
    """A miniature of a published set: JPEG, PNG and grey files of different sizes."""
    for part, n in (("train", train), ("test", test)):
        for label in range(classes):
            folder = place / part / f"n{label:03d}"
            folder.mkdir(parents=True)
            for i in range(n):
                image = picture(100 * label + 10 * i + len(part), *SIZES[(label + i) % len(SIZES)])
                image = image.convert("L") if i == 1 else image
                image.save(folder / f"{i}.{'jpg' if i else 'png'}")


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def everything(samples: Any) -> Tensor:
    return samples.fetch(torch.arange(len(samples)))


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    write_release(tmp_path / "cub")
    return tmp_path


# Published sets by name


def test_the_published_sets_are_listed_with_their_folders() -> None:
    assert tuple(RELEASES) == RELEASED
    for name, release in RELEASES.items():
        assert f"ROOT/{release.folders[0]}/train/CLASS/*" in DATASETS[name]


@pytest.mark.parametrize(
    ("name", "place"), [*((name, release.folders[0]) for name, release in RELEASES.items()), ("vtab", "vtab-cil/vtab")]
)
def test_a_miniature_of_each_set_is_read_by_name(name: str, place: str, tmp_path: Path) -> None:
    write_release(tmp_path / place)
    data = dataset(name, str(tmp_path), size=16, resize=18, resample="bicubic")
    assert data.name == name
    assert data.classes == ("n000", "n001", "n002", "n003")
    assert data.inputs.shape == (3, 16, 16)
    assert data.mean == (0.5,) * 3
    assert data.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    paths = [path for label in range(4) for path in sorted((tmp_path / place / "test" / f"n{label:03d}").iterdir())]
    theirs = Compose([Resize(18, InterpolationMode.BICUBIC), CenterCrop(16)])
    for path, ours in zip(paths, everything(data.test), strict=True):
        with Image.open(path) as image:
            assert torch.equal(ours, from_pil(theirs(image.convert("RGB")))), path


def test_the_variable_names_the_root_too(cub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARN_DATA", str(cub))
    assert len(dataset("cub", size=8).train) == 12


@pytest.mark.parametrize("name", RELEASES)
def test_a_missing_set_says_what_was_looked_for_where_and_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset(name, str(tmp_path), size=8)
    said = str(caught.value)
    for folder in RELEASES[name].folders:
        assert f"{tmp_path / folder}/{{train,test}}" in said
    assert "https://github.com/zhoudw-zdw/RevisitingCIL#dataset" in said
    assert f"{tmp_path / RELEASES[name].folders[0]}/train/CLASS/*" in said
    assert "set root (or CLEARN_DATA)" in said


def test_a_set_without_its_test_part_is_missing(cub: Path) -> None:
    (cub / "cub/test").rename(cub / "cub/tests")
    with pytest.raises(DataError, match=r"looked for .*train,test"):
        dataset("cub", str(cub), size=8)


def test_sizes_that_vary_need_a_size(cub: Path) -> None:
    with pytest.raises(DataError, match=r"n000.1.jpg is .*all must be alike: give `size: 224`"):
        dataset("cub", str(cub))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resize": 18}, "resize=18 .*give size"),
        ({"size": 20, "resize": 18}, "resize=18 must be size=20 or more"),
        ({"size": 20, "resize": 0}, "resize=0 must be 1 or more"),
        ({"size": 20, "resample": "bicubik"}, "did you mean 'bicubic'"),
        ({"name": "digits", "size": 20}, "size=20 is for folder, cub.* not data=digits"),
        ({"name": "mnist", "resample": "bicubic"}, "resample='bicubic' is for folder"),
    ],
)
def test_wrong_options_name_the_remedy(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        dataset(**{"name": "cub", **options})


# Squares


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "resize"), [(224, 256), (16, 20), (15, 15)])
def test_the_centre_is_torchvisions_bicubic_resize_and_centre_crop(
    size: tuple[int, int], side: int, resize: int
) -> None:
    image = picture(1, *size)
    theirs = Compose([Resize(resize, InterpolationMode.BICUBIC), CenterCrop(side)])(image)
    assert torch.equal(from_pil(View(side, resize, bicubic=True).centre(image)), from_pil(theirs))


@pytest.mark.parametrize("size", SIZES)
def test_a_cut_is_torchvisions_resized_crop_of_the_whole_picture(size: tuple[int, int]) -> None:
    image, view = picture(2, *size), View(24, 28, bicubic=True)
    width, height = size
    seen = set()
    for seed in range(20):
        box = draw_boxes(1, height, width, (0.05, 1.0), torch.Generator().manual_seed(seed))[0].tolist()
        theirs = resized_crop(image, *box, [24, 24], InterpolationMode.BILINEAR)
        assert torch.equal(from_pil(view.box(image, (0.05, 1.0), seed)), from_pil(theirs))
        seen.add(tuple(box))
    assert len(seen) > 10 or width == 300  # of so long a picture most boxes fall back to the centre


def test_the_cuts_of_a_picture_follow_torchvisions_distribution() -> None:
    ramp = np.zeros((30, 40, 3), np.uint8)  # red grows to the right, green downwards: a cut's mean tells its centre
    ramp[..., 0], ramp[..., 1] = 6 * np.arange(40)[None], 8 * np.arange(30)[:, None]
    image, view = Image.fromarray(ramp), View(8)
    torch.manual_seed(0)
    theirs_of = RandomResizedCrop(8, (0.05, 1.0), (3 / 4, 4 / 3))
    ours = torch.stack([from_pil(view.box(image, (0.05, 1.0), seed)).double() for seed in range(1500)])
    theirs = torch.stack([from_pil(theirs_of(image)).double() for _ in range(1500)])
    for summary in (lambda x: x.mean((2, 3)), lambda x: x.std((2, 3))):  # where it lies, how large it is
        a, b = summary(ours)[:, :2], summary(theirs)[:, :2]
        error = 4 * ((a.var(0) + b.var(0)) / 1500).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= error).all()


def test_images_in_memory_are_seen_at_another_size_by_the_same_rules() -> None:
    held = torch.stack([from_pil(picture(i, 32, 32)) for i in range(3)])
    view = View(224, 256, bicubic=True)
    large = ImageArrays(held, [0, 1, 2], view)
    theirs = Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)])
    for i in range(3):
        assert torch.equal(large[i][0], from_pil(theirs(picture(i, 32, 32))))
    options = Options(name="cifar100", size=24, resize=28, resample="bicubic")
    both = TensorSamples(held, torch.arange(3)), TensorSamples(held[:1], torch.arange(1))
    kept, _ = images.resized(*both, options)
    asked, test = images.resized(*both, Options(name="cifar100", size=24, resize=28, resample="bicubic", in_memory=0))
    assert isinstance(kept, TensorSamples)
    assert isinstance(asked, DatasetSamples)
    assert torch.equal(everything(kept), everything(asked))
    assert test.shape == (3, 24, 24)
    assert images.resized(*both, Options(name="cifar100")) == both


# Cuts in training


def stream_of(root: Path, **options: Any) -> class_incremental.ClassIncremental:
    asked = {"data": "cub", "root": str(root), "increment": 2, "size": 16, "resize": 18, "augment": "pilot", **options}
    made = class_incremental.build(**asked)
    assert isinstance(made, class_incremental.ClassIncremental)
    return made


def context(stream: Any, step: int = 0) -> Context:
    return Context(
        seed=0,
        step=step,
        trainer=TrainerOptions(accelerator="cpu", threads=1),
        device=torch.device("cpu"),
        augment=stream.augment,
        budget=Budget(),
        planned=[],
        progress=Progress(),
    )


def trained_on(stream: Any, epochs: int = 1, augment: bool = True, **options: Any) -> list[Tensor]:
    """The batches that a fit over the first task sees."""
    net, seen = nn.Linear(1, 1), []

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(inputs.clone())
        return net(targets[:, None].float()).square().mean()

    recipe = Recipe(epochs=epochs, lr=1e-3, batch_size=4)
    context(stream).fit(net, stream.task(0).train, recipe, loss=loss, augment=augment, **options)
    return seen


def test_training_sees_cuts_and_everything_else_the_centre(cub: Path) -> None:
    stream = stream_of(cub)
    train = stream.task(0).train
    assert isinstance(train, CutSamples)
    assert stream.augment == Augment(flip=True)
    assert PRESETS["pilot"] == Augment(flip=True, resized_crop=(0.05, 1.0), whole=True)
    centres = everything(train)
    files = train.dataset
    assert isinstance(files, ImageFiles)
    for i, centre in enumerate(centres):
        with Image.open(files.paths[int(train.index[i])]) as image:
            assert torch.equal(centre, from_pil(Compose([Resize(18), CenterCrop(16)])(image.convert("RGB"))))
    assert torch.equal(torch.cat([x for x, _ in train.batches(4)]), centres)  # what is described is never cut

    first, second = (torch.cat(batches) for batches in (trained_on(stream, 2)[:2], trained_on(stream, 2)[2:]))
    assert first.shape == second.shape == (6, 3, 16, 16)
    known = {x.numpy().tobytes() for x in torch.cat([centres, centres.flip(3)])}
    assert not known & {x.numpy().tobytes() for x in first}
    assert not {x.numpy().tobytes() for x in first} & {x.numpy().tobytes() for x in second}  # anew each epoch
    plain = torch.cat(trained_on(stream, augment=False))
    assert {x.numpy().tobytes() for x in plain} == {x.numpy().tobytes() for x in centres}


def test_the_same_seed_gives_the_same_cuts_with_any_number_of_workers(cub: Path) -> None:
    alone, again, helped = (trained_on(stream_of(cub, workers=workers), 2) for workers in (0, 0, 2))
    assert len(alone) == len(again) == len(helped) == 4
    for x, same, read_ahead in zip(alone, again, helped, strict=True):
        assert torch.equal(x, same)
        assert torch.equal(x, read_ahead)


def test_a_cut_depends_on_picture_and_seed_alone(cub: Path) -> None:
    train = stream_of(cub).task(0).train
    rows, seeds = torch.tensor([3, 0, 3]), torch.tensor([7, 8, 9])
    three = train.fetch_varied(rows, seeds)
    assert torch.equal(three[1:2], train.fetch_varied(rows[1:2], seeds[1:2]))
    assert not torch.equal(three[0], three[2])
    taken = train.take(torch.tensor([3]))
    assert torch.equal(taken.fetch_varied(torch.tensor([0]), torch.tensor([7])), three[:1])
    assert train.fetch_varied(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)).shape == (
        0,
        3,
        16,
        16,
    )


def test_stored_squares_beside_files_are_read_as_they_are(cub: Path) -> None:
    train = stream_of(cub).task(0).train
    exemplars = TensorSamples(everything(train)[:2], train.labels[:2])
    both = concat([exemplars, train])
    assert both.varied
    rows, seeds = torch.tensor([1, 4]), torch.tensor([5, 6])
    found = both.fetch_varied(rows, seeds)
    assert torch.equal(found[0], exemplars.inputs[1])
    assert torch.equal(found[1:], train.fetch_varied(torch.tensor([2]), seeds[1:]))
    joined = list(both.training_loader([rows], torch.Generator().manual_seed(0)))
    assert torch.equal(joined[0][1], both.labels[rows])
    assert len(trained_on(stream_of(cub), replay=(exemplars, 2))[0]) == 6


def test_in_memory_sets_are_cut_out_of_whole_pictures_too(cub: Path) -> None:
    kept = stream_of(cub, augment="flip")
    assert isinstance(kept.task(0).train, TensorSamples)
    assert torch.equal(everything(kept.task(0).train), everything(stream_of(cub).task(0).train))


def test_cuts_need_pictures_and_a_size(cub: Path) -> None:
    with pytest.raises(ConfigError, match=r"whole=True .*data=digits .*size: 224"):
        class_incremental.build(data="digits", augment="pilot")
    with pytest.raises(ConfigError, match=r"whole=True .*size: 224"):
        stream_of(cub, size=None, resize=None)
    with pytest.raises(ConfigError, match="class_incremental streams alone"):
        domain_incremental.build(data="digits", augment="pilot")
    x = np.zeros((20, 8, 8, 3), np.uint8)
    with pytest.raises(ConfigError, match="augment: imagenet"):
        from_arrays(x, np.arange(20) // 10, augment="pilot", increment=1)
    with pytest.raises(ConfigError, match="says where resized_crop cuts"):
        Augment(flip=True, whole=True)


# Orders and splits of the papers


@pytest.mark.parametrize(
    ("n", "first"),
    [
        (10, [4, 2, 7, 6, 0, 3, 5, 8, 9, 1]),
        (100, [68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89]),
        (200, [168, 136, 51, 9, 183, 101, 171, 99, 42, 159]),
    ],
)
def test_orders_of_seed_1993(n: int, first: list[int]) -> None:
    assert class_incremental.class_order(n, 1993)[: len(first)].tolist() == first


@pytest.mark.parametrize(
    ("name", "classes", "tasks"),
    [
        ("cifar100", 100, 20),
        ("cub", 200, 20),
        ("imagenet_r", 200, 10),
        ("imagenet_a", 200, 10),
        ("objectnet", 200, 20),
        ("omnibenchmark", 300, 10),
        ("vtab", 50, 5),
    ],
)
def test_splits_of_the_papers(name: str, classes: int, tasks: int) -> None:
    assert name in datasets.READERS
    stream = load(f"pretrained/published/common/{name}")["stream"]
    assert len(class_incremental.split(classes, stream["increment"])) == tasks
    order = class_incremental.class_order(classes, stream.get("order_seed")).tolist()
    if name == "vtab":
        assert order == list(range(50))
    else:
        assert order == np.random.RandomState(1993).permutation(classes).tolist()
