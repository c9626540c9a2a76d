"""GPU hours of a whole run on ImageNet: multiply-accumulates x images x epochs / throughput.

The multiply-accumulates are counted; the throughputs are assumptions, named in docs/scale.md.

Run: python benchmarks/imagenet_hours.py
"""

from dataclasses import dataclass
from typing import Final

import prunas
from prunas.pipeline.networks import create_network

IMAGES: Final = 1_281_167
BUDGET: Final = 0.5  # of the multiply-accumulates
TRAINING: Final = 3  # a forward, and a backward of twice its work
FULL_EPOCHS: Final = 5
SUPERNET_EPOCHS: Final = 20
EVALUATIONS: Final = 400
SEEN: Final = 512 + 10_000  # images that an evaluation is calibrated and scored on
FINALISTS, FINALIST_EPOCHS = 8, 5
SEEDS: Final = 3  # of the found and of the uniform network


@dataclass(frozen=True)
class Setting:
    """A network, the epochs of its final training, and what a GPU sustains on it."""

    network: str
    final_epochs: int
    macs_per_second: float


SETTINGS: Final = (Setting("mobilenetv2_100", 150, 4.5e12), Setting("resnet50", 100, 30e12))


def main() -> None:
    for setting in SETTINGS:
        network = create_network(setting.network, classes=1000, input_size=(3, 224, 224))
        space = prunas.trace(network, (3, 224, 224), genes=("width",))
        macs = int(prunas.Cost(space).macs([space.full()])[0])
        rate = setting.macs_per_second
        print(f"{setting.network}: {macs / 1e9:.4f} G MACs an image, {rate / 1e12:g} T a second")
        for name, images in work(setting).items():
            print(f"  {name}: {images / IMAGES:.1f} epochs, {images * macs / rate / 3600:.1f} h")


def work(setting: Setting) -> dict[str, float]:
    """Forwards of the full network, in images, that each stage is worth."""
    taught = TRAINING * BUDGET + 1  # the full network teaches by one forward
    stages = {
        "full network, from pretrained weights": FULL_EPOCHS * IMAGES * TRAINING,
        "shared weights": SUPERNET_EPOCHS * IMAGES * TRAINING * (1 + BUDGET),
        "search": EVALUATIONS * SEEN * BUDGET,
        "finalists": FINALISTS * FINALIST_EPOCHS * IMAGES * taught,
        "final trainings": 2 * SEEDS * setting.final_epochs * IMAGES * taught,
    }
    return {**stages, "together": sum(stages.values())}


if __name__ == "__main__":
    main()
