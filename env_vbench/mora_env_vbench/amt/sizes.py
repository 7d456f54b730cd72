"""The sizes of an AMT model with three flows (AMT-S), told by the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from mora_env_vbench.weights.loading import Shapes


@dataclass(frozen=True)
class UpdateSizes:
    """Channels of an update block: of the features of the correlation, of the flows and of both, and of its state."""

    correlation: int
    flow: int
    joint: int
    hidden: int

    @classmethod
    def of(cls, shapes: Shapes) -> UpdateSizes:
        """Raises KeyError or IndexError if the tensors are not those of AMT."""
        names = ("convc1", "convf2", "conv", "gru.0")
        return cls(*(shapes[f"update4.{name}.weight"][0] for name in names))


@dataclass(frozen=True)
class AmtSizes:
    """Channels: of the feature encoder at 1/2, 1/4, 1/8, of its features, and of the pyramid at 1/2 to 1/16.

    `side` is the number of channels that a decoder's inner convolutions change.
    """

    encoder: tuple[int, int, int]
    features: int
    pyramid: tuple[int, int, int, int]
    side: int
    update: UpdateSizes

    @classmethod
    def of(cls, shapes: Shapes) -> AmtSizes:
        """Raises KeyError or IndexError if the tensors are not those of AMT."""
        half, quarter, eighth = (shapes[f"feat_encoder.layer{level}.1.conv3.weight"][0] for level in (1, 2, 3))
        first, second, third, fourth = (shapes[f"encoder.pyramid{level}.1.0.weight"][0] for level in (1, 2, 3, 4))
        return cls(
            encoder=(half, quarter, eighth),
            features=shapes["feat_encoder.conv2.weight"][0],
            pyramid=(first, second, third, fourth),
            side=shapes["decoder4.convblock.1.conv2.0.weight"][0],
            update=UpdateSizes.of(shapes),
        )


PUBLISHED = AmtSizes(
    encoder=(32, 64, 96),
    features=84,
    pyramid=(20, 32, 44, 56),
    side=20,
    update=UpdateSizes(correlation=64, flow=20, joint=68, hidden=76),
)
