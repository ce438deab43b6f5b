"""Networks of an agent that sees pictures, and of the rewards of steps: ensembles whose members are computed together.

For pictures, the agent has the convolutions of Mnih et al. 2013 (arXiv:1312.5602), and a reward those of Christiano et
al. 2017, appendix A.2 (arXiv:1706.03741), without dropout and batch normalisation.
"""

from itertools import pairwise

import torch
from gymnasium.spaces import Box
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

SLOPE = 0.01
"""Slope of the leaky ReLU below 0."""
REWARD_CONVOLUTIONS = ((7, 3, 0), (5, 2, 0), (3, 1, 1), (3, 1, 1))
"""Kernel, stride and padding of each."""
CHANNELS = 16
PICTURE_UNITS = 64
"""Units of the layer after the convolutions."""


def reward_networks(feature_shape: tuple[int, ...], members: int, hidden: int, seed: int) -> nn.Module:
    """Return an ensemble of K networks: features of N steps, (N, *feature_shape), to rewards, (K, N).

    Args:
        feature_shape: (F,), or (C, H, W) of pictures.
        hidden: units of each of two hidden layers; 0: linear. Pictures have layers of their own.
        seed: of the first weights.
    """
    generator = torch.Generator().manual_seed(seed)
    if len(feature_shape) == 1:
        return DenseNetworks([*feature_shape, *([hidden] * 2 if hidden else []), 1], members, generator)
    return PictureNetworks(feature_shape, members, generator)


class DenseNetworks(nn.Module):
    """K networks with layers of these widths."""

    def __init__(self, widths: list[int], members: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            self.weights.append(nn.Parameter(_uniform((members, fan_in, fan_out), fan_in, generator)))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, fan_out)))

    def forward(self, features: Tensor) -> Tensor:
        """Return (K, N) for (N, F), or for inputs that differ by member, (K, N, F)."""
        hidden = features if features.ndim == 3 else features.expand(len(self.weights[0]), *features.shape)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, leaky_relu(hidden, SLOPE) if layer else hidden, weight)
        return hidden[..., 0]


class PictureNetworks(nn.Module):
    """K convolutional networks of pictures, (C, H, W)."""

    def __init__(self, shape: tuple[int, ...], members: int, generator: torch.Generator) -> None:
        super().__init__()
        self.members = members
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        channels = shape[0]
        for size, _, _ in REWARD_CONVOLUTIONS:
            fan_in = channels * size * size
            kernels = _uniform((members * CHANNELS, channels, size, size), fan_in, generator)
            self.kernels.append(nn.Parameter(kernels))
            self.biases.append(nn.Parameter(torch.zeros(members * CHANNELS)))
            channels = CHANNELS
        with torch.no_grad():
            num_features = self._convolve(torch.zeros(1, *shape)).shape[1] // members
        self.head = DenseNetworks([num_features, PICTURE_UNITS, 1], members, generator)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (K, N) for bytes, (N, C, H, W)."""
        hidden = self._convolve(pictures.float() / 255)
        rewards: Tensor = self.head(hidden.view(len(hidden), self.members, -1).transpose(0, 1))
        return rewards

    def _convolve(self, pictures: Tensor) -> Tensor:
        """Return the features of all members, (N, K x features): groups of channels are the members."""
        hidden = pictures.repeat(1, self.members, 1, 1)
        for kernels, bias, (_, stride, padding) in zip(self.kernels, self.biases, REWARD_CONVOLUTIONS, strict=True):
            hidden = nn.functional.conv2d(hidden, kernels, bias, stride, padding, groups=self.members)
            hidden = leaky_relu(hidden, SLOPE)
        return hidden.flatten(1)


class AgentConvolutions(BaseFeaturesExtractor):
    """What an agent makes of a picture, before its policy and its value function."""

    def __init__(self, observation_space: Box) -> None:
        super().__init__(observation_space, features_dim=256)
        convolutions = [nn.Conv2d(observation_space.shape[0], 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU()]
        body = nn.Sequential(*convolutions, nn.Flatten())
        with torch.no_grad():
            width = body(torch.zeros(1, *observation_space.shape)).shape[1]
        self.network = nn.Sequential(body, nn.Linear(width, self.features_dim), nn.ReLU())

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (N, 256) for pictures from 0 to 1, (N, C, H, W)."""
        features: Tensor = self.network(pictures)
        return features


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    bound = float(fan_in**-0.5)
    return torch.rand(shape, generator=generator) * 2 * bound - bound
