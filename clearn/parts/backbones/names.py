"""The networks `blueprint` can build, one line each; imports nothing, so that a listing answers at once."""

from __future__ import annotations

BACKBONES: dict[str, str] = {
    "convnet2": "two 3x3 convolution blocks, 64 features; 38,976 parameters on 3 channels; images from 4x4",
    "convnet4": "four convolution blocks, 512 features; 906,240 parameters on 3 channels; images from 31x31",
    "cosine_resnet32": "resnet32 of UCIR and PODNet, 64 features of either sign; 466,256 parameters",
    "mlp": "flatten, then two layers of 100 ReLU units; images or vectors",
    "resnet10": "ImageNet ResNet, basic blocks 1-1-1-1, 512 features; 4.9 million parameters",
    "resnet8": "CIFAR ResNet, 1 block per stage, 64 features; 74,640 parameters",
    "resnet14": "CIFAR ResNet, 2 blocks per stage, 64 features; 171,856 parameters",
    "resnet18": "ImageNet ResNet, basic blocks 2-2-2-2, 512 features; 11.2 million parameters",
    "resnet20": "CIFAR ResNet, 3 blocks per stage, 64 features; 269,072 parameters",
    "resnet26": "CIFAR ResNet, 4 blocks per stage, 64 features; 366,288 parameters (not timm/resnet26)",
    "resnet32": "CIFAR ResNet, 5 blocks per stage, 64 features; 463,504 parameters",
    "resnet34": "ImageNet ResNet, basic blocks 3-4-6-3, 512 features; 21.3 million parameters",
    "resnet50": "ImageNet ResNet, bottleneck blocks 3-4-6-3, 2048 features; 23.5 million parameters",
    "timm/NAME": "any timm model whose stages follow one another, e.g. timm/resnet26, timm/convnext_atto",
}
"""Backbone name -> one line for `clearn list`; `timm/NAME` stands for a family and is not a name itself."""
