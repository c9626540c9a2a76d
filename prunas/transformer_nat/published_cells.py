"""Published cells, as data.

From the papers and the code that came with them: DARTS (its first- and second-order cells, and its
versions of NASNet and AmoebaNet); PNASNet as several public copies of a port have it; ENAS, NAONet
and the stylised ResNet, VGG and MobileNetV2 blocks that NAT starts from, and what NAT (`NAT_...`)
and NAT++ (`NATv2_...`) made of them; R1 to R5, random cells of NAT, and what it made of these.

`NATv2_MobileNetv2` is the same as `NAT_MobileNetv2` and therefore not listed. "ENAS" is the cell in
the figure of the ENAS paper, not that of its final script. NAT's hand-made cells are no faithful
copies: its MobileNetV2 does not expand, for one.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from prunas.errors import InputError
from prunas.transformer_nat.genotype import Genotype
from prunas.transformer_nat.notation import read_cell

Row = tuple[str, tuple[int, ...], str, tuple[int, ...]]

_ROWS: Final[Mapping[str, Row]] = {
    "DARTS_V1": (
        "2: s3@1, s3@0; 3: sk@0, s3@1; 4: sk@0, s3@1; 5: s3@0, sk@2",
        (2, 3, 4, 5),
        "2: mp3@0, mp3@1; 3: sk@2, mp3@0; 4: mp3@0, sk@2; 5: sk@2, ap3@0",
        (2, 3, 4, 5),
    ),
    "DARTS_V2": (
        "2: s3@0, s3@1; 3: s3@0, s3@1; 4: s3@1, sk@0; 5: sk@0, d3@2",
        (2, 3, 4, 5),
        "2: mp3@0, mp3@1; 3: sk@2, mp3@1; 4: mp3@0, sk@2; 5: sk@2, mp3@1",
        (2, 3, 4, 5),
    ),
    "NAT_DARTS": (
        "2: s3@0, s3@1; 3: sk@0, s3@1; 4: sk@1, sk@0; 5: sk@0, d3@2",
        (2, 3, 4, 5),
        "2: mp3@0, sk@1; 3: sk@2, sk@1; 4: mp3@0, nu@2; 5: sk@2, mp3@1",
        (2, 3, 4, 5),
    ),
    "NATv2_DARTS": (
        "2: s3@0, s3@1; 3: nu@0, sk@1; 4: d3@1, sk@0; 5: sk@0, d3@2",
        (2, 3, 4, 5),
        "2: ap3@0, mp3@1; 3: sk@2, sk@1; 4: ap3@0, sk@2; 5: sk@2, mp3@1",
        (2, 3, 4, 5),
    ),
    "NASNet": (
        "2: s5@1, s3@0; 3: s5@0, s3@0; 4: ap3@1, sk@0; 5: ap3@0, ap3@0; 6: s3@1, sk@1",
        (2, 3, 4, 5, 6),
        "2: s5@1, s7@0; 3: mp3@1, s7@0; 4: ap3@1, s5@0; 5: sk@3, ap3@2; 6: s3@2, mp3@1",
        (4, 5, 6),
    ),
    "AmoebaNet": (
        "2: ap3@0, mp3@1; 3: s3@0, s5@2; 4: s3@0, ap3@3; 5: s3@1, sk@1; 6: sk@0, ap3@1",
        (4, 5, 6),
        "2: ap3@0, s3@1; 3: mp3@0, s7@2; 4: s7@0, ap3@1; 5: mp3@0, mp3@1; 6: c71@0, s3@5",
        (3, 4, 6),
    ),
    "PNASNet": (
        "2: s5@0, mp3@0; 3: s7@1, mp3@1; 4: s5@1, s3@1; 5: s3@4, mp3@1; 6: s3@0, sk@1",
        (2, 3, 4, 5, 6),
        "2: s5@0, mp3@0; 3: s7@1, mp3@1; 4: s5@1, s3@1; 5: s3@4, mp3@1; 6: s3@0, sk@1",
        (2, 3, 4, 5, 6),
    ),
    "ENAS": (
        "2: s3@1, sk@1; 3: sk@0, s5@1; 4: ap3@0, s3@1; 5: s3@0, ap3@1; 6: ap3@0, s5@1",
        (2, 3, 4, 5, 6),
        "2: s5@0, ap3@1; 3: s3@1, ap3@1; 4: ap3@1, s3@1; 5: ap3@1, s5@4; 6: s5@0, s3@5",
        (2, 3, 6),
    ),
    "NAT_ENAS": (
        "2: s3@1, sk@1; 3: sk@0, s5@1; 4: nu@0, s3@1; 5: s3@0, ap3@1; 6: ap3@0, s5@1",
        (2, 3, 4, 5, 6),
        "2: s5@0, ap3@1; 3: s3@1, ap3@1; 4: ap3@1, s3@1; 5: nu@1, s5@4; 6: s5@0, s3@5",
        (2, 3, 6),
    ),
    "NATv2_ENAS": (
        "2: s3@1, nu@1; 3: sk@0, s5@1; 4: ap3@0, s3@1; 5: s3@0, ap3@1; 6: sk@0, s3@1",
        (2, 3, 4, 5, 6),
        "2: s3@0, ap3@1; 3: s3@1, ap3@1; 4: ap3@1, ap3@1; 5: ap3@1, s5@4; 6: s5@0, mp3@5",
        (2, 3, 6),
    ),
    "ResBlock": (
        "2: nu@0, sk@1; 3: nu@0, c3@2; 4: nu@0, c3@3; 5: sk@2, sk@4",
        (5,),
        "2: nu@0, sk@1; 3: nu@0, c3@2; 4: nu@0, c3@3; 5: sk@2, sk@4",
        (5,),
    ),
    "NAT_ResBlock": (
        "2: nu@0, sk@1; 3: sk@0, c3@2; 4: sk@0, c3@3; 5: sk@2, sk@4",
        (5,),
        "2: nu@0, sk@1; 3: sk@0, c3@2; 4: sk@0, c3@3; 5: sk@2, sk@4",
        (5,),
    ),
    "NATv2_ResBlock": (
        "2: sk@0, sk@1; 3: sk@0, c3@2; 4: sk@0, c3@3; 5: sk@2, sk@4",
        (5,),
        "2: sk@0, sk@1; 3: sk@0, c3@2; 4: sk@0, s3@3; 5: sk@2, sk@4",
        (5,),
    ),
    "VGG": (
        "2: nu@0, sk@1; 3: nu@0, c3@2; 4: nu@0, c3@3; 5: nu@0, sk@4",
        (5,),
        "2: nu@0, sk@1; 3: nu@0, c3@2; 4: nu@0, c3@3; 5: nu@0, mp3@4",
        (5,),
    ),
    "NAT_VGG": (
        "2: sk@0, sk@1; 3: nu@0, c3@2; 4: nu@0, c3@3; 5: sk@0, sk@4",
        (5,),
        "2: sk@0, sk@1; 3: nu@0, c3@2; 4: nu@0, c3@3; 5: sk@0, sk@4",
        (5,),
    ),
    "NATv2_VGG": (
        "2: sk@0, sk@1; 3: sk@0, c3@2; 4: nu@0, s3@3; 5: sk@0, sk@4",
        (5,),
        "2: sk@0, sk@1; 3: sk@0, c3@2; 4: nu@0, s3@3; 5: sk@0, mp3@4",
        (5,),
    ),
    "Mobilenetv2": (
        "2: nu@0, c1@1; 3: nu@0, s3@2; 4: nu@0, c1@3; 5: sk@1, sk@4",
        (5,),
        "2: nu@0, c1@1; 3: nu@0, s3@2; 4: nu@0, c1@3; 5: nu@0, sk@4",
        (5,),
    ),
    "NAT_MobileNetv2": (
        "2: nu@0, c1@1; 3: nu@0, s3@2; 4: sk@0, c1@3; 5: sk@1, sk@4",
        (5,),
        "2: nu@0, sk@1; 3: sk@0, s3@2; 4: nu@0, c1@3; 5: nu@0, sk@4",
        (5,),
    ),
    "NAONet": (
        "2: c3@0, ap5@1; 3: c3@1, c13@2; 4: c1@0, c3@1; 5: c13@0, c3@4; 6: c3@0, sk@1",
        (3, 5, 6),
        "2: c3@0, ap2@1; 3: c1@0, ap3@0; 4: mp2@0, c17@1; 5: ap3@0, c1@2; 6: c3@0, mp3@1",
        (3, 4, 5, 6),
    ),
    "NAT_NAONet": (
        "2: c3@0, ap5@1; 3: nu@1, c13@2; 4: c1@0, sk@1; 5: c13@0, c3@4; 6: c3@0, sk@1",
        (3, 5, 6),
        "2: nu@0, ap3@1; 3: c1@0, ap3@0; 4: sk@0, c17@1; 5: ap3@0, sk@2; 6: c3@0, mp3@1",
        (3, 4, 5, 6),
    ),
    "NATv2_NAONet": (
        "2: c3@0, ap5@1; 3: c3@1, c13@2; 4: mp3@0, c3@1; 5: mp3@0, c3@4; 6: s3@0, sk@1",
        (3, 5, 6),
        "2: c3@0, sk@1; 3: ap3@0, ap3@0; 4: mp2@0, c17@1; 5: sk@0, sk@2; 6: mp3@0, mp3@1",
        (3, 4, 5, 6),
    ),
    "R1": (
        "2: d5@1, d5@1; 3: d5@1, d5@2; 4: s3@0, s3@3; 5: sk@1, mp3@0",
        (2, 3, 4, 5),
        "2: s5@0, mp3@0; 3: sk@0, s3@0; 4: c3@0, mp3@2; 5: ap3@2, c3@3",
        (2, 3, 4, 5),
    ),
    "NAT_R1": (
        "2: sk@1, d5@1; 3: nu@1, d5@2; 4: s3@0, s3@3; 5: sk@1, mp3@0",
        (2, 3, 4, 5),
        "2: s5@0, mp3@0; 3: sk@0, s3@0; 4: sk@0, sk@2; 5: sk@2, c3@3",
        (2, 3, 4, 5),
    ),
    "R2": (
        "2: mp3@1, d3@0; 3: s5@2, ap3@2; 4: d5@0, sk@3; 5: s3@1, mp3@3",
        (2, 3, 4, 5),
        "2: c3@1, ap3@1; 3: mp3@0, d5@0; 4: mp3@0, sk@0; 5: d5@4, sk@4",
        (2, 3, 4, 5),
    ),
    "NAT_R2": (
        "2: mp3@1, d3@0; 3: nu@2, nu@2; 4: d5@0, nu@3; 5: s3@1, mp3@3",
        (2, 3, 4, 5),
        "2: sk@1, ap3@1; 3: sk@0, d5@0; 4: nu@0, sk@0; 5: d5@4, sk@4",
        (2, 3, 4, 5),
    ),
    "R3": (
        "2: c3@0, sk@0; 3: c3@0, mp3@0; 4: s5@1, s3@3; 5: ap3@4, ap3@4",
        (2, 3, 4, 5),
        "2: sk@0, mp3@0; 3: s5@2, ap3@0; 4: sk@3, mp3@2; 5: mp3@1, s5@4",
        (2, 3, 4, 5),
    ),
    "NAT_R3": (
        "2: c3@0, sk@0; 3: nu@0, mp3@0; 4: nu@1, nu@3; 5: ap3@4, nu@4",
        (2, 3, 4, 5),
        "2: sk@0, mp3@0; 3: s5@2, ap3@0; 4: nu@3, sk@2; 5: mp3@1, s5@4",
        (2, 3, 4, 5),
    ),
    "R4": (
        "2: c3@1, s3@1; 3: c3@2, c3@2; 4: s3@3, c3@0; 5: mp3@0, mp3@4",
        (2, 3, 4, 5),
        "2: s3@0, s5@1; 3: sk@2, s3@2; 4: s5@2, c3@1; 5: d5@2, mp3@4",
        (2, 3, 4, 5),
    ),
    "NAT_R4": (
        "2: c3@1, s3@1; 3: sk@2, nu@2; 4: s3@3, c3@0; 5: mp3@0, nu@4",
        (2, 3, 4, 5),
        "2: s3@0, s5@1; 3: sk@2, s3@2; 4: sk@2, c3@1; 5: nu@2, sk@4",
        (2, 3, 4, 5),
    ),
    "R5": (
        "2: sk@0, mp3@0; 3: mp3@2, d5@0; 4: mp3@2, c3@2; 5: c3@0, s5@2",
        (2, 3, 4, 5),
        "2: d5@0, ap3@1; 3: s5@0, ap3@2; 4: c3@0, d5@0; 5: s3@0, sk@4",
        (2, 3, 4, 5),
    ),
    "NAT_R5": (
        "2: sk@0, mp3@0; 3: nu@2, d5@0; 4: nu@2, c3@2; 5: c3@0, s5@2",
        (2, 3, 4, 5),
        "2: d5@0, ap3@1; 3: s5@0, ap3@2; 4: c3@0, nu@0; 5: sk@0, sk@4",
        (2, 3, 4, 5),
    ),
}


def _read(row: Row) -> Genotype:
    normal, normal_output, reduce, reduce_output = row
    return Genotype(read_cell(normal, normal_output), read_cell(reduce, reduce_output))


PUBLISHED: Final[Mapping[str, Genotype]] = MappingProxyType(
    {name: _read(row) for name, row in _ROWS.items()}
)
"""Every published genotype by name."""


def published_genotype(name: str) -> Genotype:
    """The published genotype of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PUBLISHED:
        raise InputError(f"no genotype {name!r} was published; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
