"""All criteria by name."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from prunas.errors import InputError
from prunas.eval.criteria import (
    activations,
    dependence,
    divergence,
    gradients,
    indicators,
    reconstruction,
    weights,
)
from prunas.eval.criteria.verdict import Criterion

CRITERIA: Final[Mapping[str, Criterion]] = MappingProxyType(
    {
        "di": dependence.discriminant,
        "di-output": partial(dependence.discriminant, aim="output"),
        "di-single": partial(dependence.discriminant, selector="single"),
        "di-loo": partial(dependence.discriminant, selector="leave_out"),
        "di-diff": partial(dependence.discriminant, selector="differential"),
        "di-flat": dependence.flat_discriminant,
        "di-curvature": divergence.curved_discriminant,
        "reconstruction": reconstruction.reconstruction,
        "hsic": dependence.hsic,
        "l1": partial(weights.magnitude, power=1, scope="own"),
        "l2": partial(weights.magnitude, power=2, scope="own"),
        "group-l1": partial(weights.magnitude, power=1, scope="group"),
        "group-l2": partial(weights.magnitude, power=2, scope="group"),
        "fpgm": weights.fpgm,
        "geometric-median": weights.geometric_median,
        "bn-scale": weights.bn_scale,
        "lamp": weights.lamp,
        "leverage": weights.leverage,
        "cpmc": weights.cpmc,
        "taylor": gradients.taylor,
        "taylor-absolute": partial(gradients.taylor, form="absolute"),
        "taylor-gate": gradients.taylor_gate,
        "taylor-activation": activations.taylor_activation,
        "fisher": gradients.fisher,
        "snip": gradients.snip,
        "synflow": gradients.synflow,
        "dais": indicators.dais,
        "apoz": activations.apoz,
        "mean-activation": activations.mean_activation,
        "entropy": activations.entropy,
        "hrank": activations.hrank,
        "wanda": activations.wanda,
        "flap": activations.flap,
        "zero-channel": activations.zero_channel,
        "random": weights.random_order,
    }
)
"""One function each, with its options set where there are variants."""

DEFAULT: Final = "di-curvature"
"""What prunes best (docs/criteria_accuracy.md); it needs images, but no labels."""

WEIGHTS_ALONE: Final = frozenset(
    {
        "l1",
        "l2",
        "group-l1",
        "group-l2",
        "fpgm",
        "geometric-median",
        "bn-scale",
        "lamp",
        "leverage",
        "cpmc",
        "random",
    }
)
"""Those that look at no image."""


def criterion_named(name: str, *, images: bool = True) -> Criterion:
    """The criterion of that name.

    Args:
        images: there are images to look at.

    Raises:
        InputError: there is none, or it looks at images and has none.
    """
    if name not in CRITERIA:
        raise InputError(f"there is no criterion {name!r}; choose one of {', '.join(CRITERIA)}")
    if not images and name not in WEIGHTS_ALONE:
        raise InputError(
            f"criterion {name!r} looks at images; give some, or choose one that does without:"
            f" {', '.join(sorted(WEIGHTS_ALONE))}"
        )
    return CRITERIA[name]
