"""The name tables of every registered backbone: by library, a row per kind of layer.

``torchvision`` also names what torchvision's authors publish as files; ``timm`` what timm publishes as safetensors;
``transformers`` what Hugging Face Transformers saves; ``npz`` the flat files ``stage1/block0/conv1/bn_scale``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from xbm_jax.models.weights.names import Row, Table
from xbm_jax.models.zoo import mobilenet, vgg

__all__ = ["BERT", "CIFAR_RESNET", "DENSENET", "MOBILENET_V2", "RESNET50", "VGG16_BN", "VIT"]

CIFAR_RESNET: Mapping[str, Table] = {
    "akamaster": (
        Row(r"(conv1|bn1|linear)", r"\1"),
        Row(r"layer(\d)\.(\d+)\.(conv[12]|bn[12])", r"layer\1_\2/\3"),
    ),
}

RESNET50: Mapping[str, Table] = {
    "torchvision and timm": (
        Row(r"(conv1|bn1|fc)", r"\1"),
        Row(r"layer(\d)\.(\d+)\.(conv[123]|bn[123])", r"layer\1_\2/\3"),
        Row(r"layer(\d)\.(\d+)\.downsample\.0", r"layer\1_\2/proj"),
        Row(r"layer(\d)\.(\d+)\.downsample\.1", r"layer\1_\2/proj_bn"),
    ),
    "transformers": (
        Row(r"resnet\.embedder\.embedder\.convolution", "conv1"),
        Row(r"resnet\.embedder\.embedder\.normalization", "bn1"),
        *(
            row
            for s in range(4)
            for stage, ours in [(rf"resnet\.encoder\.stages\.{s}\.layers\.(\d+)", rf"layer{s + 1}_\1")]
            for row in (
                *(Row(rf"{stage}\.layer\.{k}\.convolution", f"{ours}/conv{k + 1}") for k in range(3)),
                *(Row(rf"{stage}\.layer\.{k}\.normalization", f"{ours}/bn{k + 1}") for k in range(3)),
                Row(rf"{stage}\.shortcut\.convolution", f"{ours}/proj"),
                Row(rf"{stage}\.shortcut\.normalization", f"{ours}/proj_bn"),
            )
        ),
        Row(r"classifier\.1", "fc"),
    ),
    "npz": (
        Row(r"stem\.conv", "conv1"),
        Row(r"stem\.conv\.bn", "bn1"),
        *(
            row
            for s in range(1, 5)
            for row in (
                Row(rf"stage{s}\.block(\d+)\.conv(\d)", rf"layer{s}_\1/conv\2"),
                Row(rf"stage{s}\.block(\d+)\.conv(\d)\.bn", rf"layer{s}_\1/bn\2"),
                Row(rf"stage{s}\.block(\d+)\.proj", rf"layer{s}_\1/proj"),
                Row(rf"stage{s}\.block(\d+)\.proj\.bn", rf"layer{s}_\1/proj_bn"),
            )
        ),
        Row("head", "fc"),
    ),
}


def _torchvision_mobilenet(blocks: int) -> Table:
    """``features.0`` is the stem, ``features.1`` the block that does not expand, then the others, then the last."""
    first, rest, last = (
        r"features\.1\.conv",
        rf"features\.({'|'.join(map(str, range(2, blocks + 1)))})\.conv",
        blocks + 1,
    )
    return (
        Row(r"features\.0\.0", "stem"),
        Row(r"features\.0\.1", "stem_bn"),
        Row(rf"{first}\.0\.0", "block1/depthwise"),
        Row(rf"{first}\.0\.1", "block1/depthwise_bn"),
        Row(rf"{first}\.1", "block1/project"),
        Row(rf"{first}\.2", "block1/project_bn"),
        Row(rf"{rest}\.0\.0", r"block\1/expand"),
        Row(rf"{rest}\.0\.1", r"block\1/expand_bn"),
        Row(rf"{rest}\.1\.0", r"block\1/depthwise"),
        Row(rf"{rest}\.1\.1", r"block\1/depthwise_bn"),
        Row(rf"{rest}\.2", r"block\1/project"),
        Row(rf"{rest}\.3", r"block\1/project_bn"),
        Row(rf"features\.{last}\.0", "last"),
        Row(rf"features\.{last}\.1", "last_bn"),
        Row(r"classifier\.1", "head"),
    )


def _timm_mobilenet() -> Table:
    """``blocks.S.I`` is block I of stage S."""
    number, rows = count(1), []
    for s, (expansion, _, blocks, _) in enumerate(mobilenet.STAGES):
        for i in range(blocks):
            theirs, ours = rf"blocks\.{s}\.{i}", f"block{next(number)}"
            convs = (("conv_dw", "depthwise"), ("conv_pw", "project"))
            if expansion != 1:
                convs = (("conv_pw", "expand"), ("conv_dw", "depthwise"), ("conv_pwl", "project"))
            for k, (conv, name) in enumerate(convs, start=1):
                rows += [Row(rf"{theirs}\.{conv}", f"{ours}/{name}"), Row(rf"{theirs}\.bn{k}", f"{ours}/{name}_bn")]
    ends = {"conv_stem": "stem", "bn1": "stem_bn", "conv_head": "last", "bn2": "last_bn", "classifier": "head"}
    return (*rows, *(Row(theirs, ours) for theirs, ours in ends.items()))


MOBILENET_V2: Mapping[str, Table] = {
    "torchvision": _torchvision_mobilenet(blocks=17),
    "timm": _timm_mobilenet(),
    "npz": (
        Row(r"(stem|last|head)", r"\1"),
        Row(r"(stem|last)\.bn", r"\1_bn"),
        Row(r"(block\d+)\.(expand|depthwise|project)", r"\1/\2"),
        Row(r"(block\d+)\.(expand|depthwise|project)\.bn", r"\1/\2_bn"),
    ),
}


def _vgg_features() -> Table:
    """``features.N`` counts convolutions, norms, ReLUs and poolings alike."""
    rows, index = [], 0
    for s, stage in enumerate(vgg.STAGES, start=1):
        for i in range(1, len(stage) + 1):
            rows += [Row(rf"features\.{index}", f"conv{s}_{i}"), Row(rf"features\.{index + 1}", f"bn{s}_{i}")]
            index += 3
        index += 1
    return tuple(rows)


VGG16_BN: Mapping[str, Table] = {
    "torchvision": (
        *_vgg_features(),
        Row(r"classifier\.0", "fc1", flattened=(-1, 7, 7)),
        Row(r"classifier\.3", "fc2"),
        Row(r"classifier\.6", "fc3"),
    ),
    "timm": (
        *_vgg_features(),
        Row(r"pre_logits\.(fc[12])", r"\1", dense=True),
        Row(r"head\.fc", "fc3"),
    ),
}

DENSENET: Mapping[str, Table] = {
    "torchvision and timm": (
        Row(r"features\.(conv0|norm0|norm5)", r"\1"),
        # Files of torchvision before 0.2 write norm.1 for norm1.
        Row(r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)\.?([12])", r"block\1_layer\2/\3\4"),
        Row(r"features\.transition(\d)\.(norm|conv)", r"transition\1/\2"),
        Row("classifier", "classifier"),
    ),
}

BERT: Mapping[str, Table] = {
    "transformers": (
        Row(r"(?:bert\.)?embeddings\.word_embeddings", "words", embedding=True),
        Row(r"(?:bert\.)?embeddings\.position_embeddings", "places", embedding=True),
        Row(r"(?:bert\.)?embeddings\.token_type_embeddings", "segments", embedding=True),
        Row(r"(?:bert\.)?embeddings\.LayerNorm", "norm"),
        Row(r"(?:bert\.)?encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)", r"block\1/\2"),
        Row(r"(?:bert\.)?encoder\.layer\.(\d+)\.attention\.output\.dense", r"block\1/proj"),
        Row(r"(?:bert\.)?encoder\.layer\.(\d+)\.attention\.output\.LayerNorm", r"block\1/norm1"),
        Row(r"(?:bert\.)?encoder\.layer\.(\d+)\.intermediate\.dense", r"block\1/fc1"),
        Row(r"(?:bert\.)?encoder\.layer\.(\d+)\.output\.dense", r"block\1/fc2"),
        Row(r"(?:bert\.)?encoder\.layer\.(\d+)\.output\.LayerNorm", r"block\1/norm2"),
        # Tokens are counted from zero, and the pooler is for the pretraining's second task.
        Row(r"(?:bert\.)?(embeddings\.position_ids|pooler\.dense)", None),
        Row("classifier", "head"),
    ),
}

VIT: Mapping[str, Table] = {
    "timm": (
        Row(r"(cls_token|pos_embed|norm|head)", r"\1"),
        Row(r"patch_embed\.proj", "patch_embed"),
        Row(r"blocks\.(\d+)\.(norm[12])", r"block\1/\2"),
        Row(r"blocks\.(\d+)\.attn\.(qkv|proj)", r"block\1/\2"),
        Row(r"blocks\.(\d+)\.mlp\.(fc[12])", r"block\1/\2"),
    ),
    "transformers": (
        Row(r"(?:vit\.)?embeddings\.cls_token", "cls_token"),
        Row(r"(?:vit\.)?embeddings\.position_embeddings", "pos_embed"),
        Row(r"(?:vit\.)?embeddings\.patch_embeddings\.projection", "patch_embed"),
        *(
            Row(rf"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.attention\.{name}", r"block\1/qkv", part=(i, 3))
            for i, name in enumerate(("query", "key", "value"))
        ),
        Row(r"(?:vit\.)?encoder\.layer\.(\d+)\.attention\.output\.dense", r"block\1/proj"),
        Row(r"(?:vit\.)?encoder\.layer\.(\d+)\.intermediate\.dense", r"block\1/fc1"),
        Row(r"(?:vit\.)?encoder\.layer\.(\d+)\.output\.dense", r"block\1/fc2"),
        Row(r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_before", r"block\1/norm1"),
        Row(r"(?:vit\.)?encoder\.layer\.(\d+)\.layernorm_after", r"block\1/norm2"),
        Row(r"(?:vit\.)?layernorm", "norm"),
        Row(r"(?:vit\.)?pooler\.dense", None),  # of a pretraining's task
        Row("classifier", "head"),
    ),
}
