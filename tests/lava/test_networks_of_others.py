"""Networks of torchvision and timm, smaller than published, all the way from module to Lava.

Conversion itself holds the float program against the module. The reference simulator and Lava share
no code that sums.
"""

import pytest

from benchmarks.networks import library, seeded, whole_way


def torchvision(name, *args, **kwargs):
    return lambda: getattr(library("torchvision"), name)(*args, **kwargs)


def residual(block, layers, **kwargs):
    def make():
        resnet = library("torchvision").resnet
        return resnet.ResNet(getattr(resnet, block), layers, num_classes=5, **kwargs)

    return make


def regnet():
    module = library("torchvision").regnet
    parameters = module.BlockParams.from_init_params(
        depth=4, w_0=8, w_a=8.0, w_m=2.0, group_width=4
    )
    return module.RegNet(parameters, num_classes=5, stem_width=8)


def timm(name, **kwargs):
    return lambda: library("timm").create_model(name, num_classes=5, **kwargs)


NETWORKS = {
    "MobileNetV2": (torchvision("MobileNetV2", num_classes=5, width_mult=0.1), 32),
    "MNASNet": (torchvision("MNASNet", 0.1, num_classes=5), 32),
    "ShuffleNetV2": (torchvision("ShuffleNetV2", [2, 2, 2], [8, 8, 16, 32, 32], num_classes=5), 32),
    "SqueezeNet": (torchvision("SqueezeNet", "1_1", num_classes=5), 32),
    "DenseNet": (torchvision("DenseNet", 4, (2, 2, 2, 2), 8, num_classes=5), 32),
    "GoogLeNet": (torchvision("GoogLeNet", 5, aux_logits=False, init_weights=False), 32),
    "Inception-v3": (torchvision("Inception3", 5, aux_logits=False, init_weights=False), 75),
    "ResNet": (residual("BasicBlock", (1, 1, 1, 1)), 32),
    "ResNeXt": (residual("Bottleneck", (1, 1, 1, 1), groups=4, width_per_group=4), 32),
    "RegNetX": (regnet, 32),
    "ResNet-T": (timm("resnet10t"), 36),  # a mean over 9x9 places whose last windows are smaller
    "DLA": (timm("dla46_c"), 32),
    "RepVGG": (timm("repvgg_a0"), 32),
}
"""How each network is made, and the side of its images."""


@pytest.mark.parametrize("name", NETWORKS)
def test_all_the_way(name, tmp_path):
    make, side = NETWORKS[name]
    outcome = whole_way(seeded(make, (3, side, side)), (3, side, side), tmp_path)
    assert not outcome.found
    assert outcome.compared.equal
    assert outcome.compared.compared > 10_000
