"""Method-agnostic bricks: backbones, heads, exemplars, codecs, samples, augmentation."""
