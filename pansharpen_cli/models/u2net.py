"""U2Net: Peng et al., "U2Net: A General Framework with Spatial-Spectral-Integrated Double U-Net for Image Fusion",
ACM MM 2023."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu, pixel_shuffle, scaled_dot_product_attention

from .base import Backbone, Inputs, Published, SceneStats

HEAD = 16
"""Channels of an attention head."""
WINDOW = 64
"""Largest side, in PAN pixels, of the windows that pixels attend to each other in."""
RATIO = 4


def window_of(side: int) -> int:
    """The largest window, a multiple of four, that `side` is a multiple of. Raises ValueError if there is none."""
    return max(w for w in range(RATIO, WINDOW + 1, RATIO) if side % w == 0)


class S2Block(nn.Module):
    """Spectral stream x and spatial stream y mixed: (attention between y's pixels, of x) o (y, attention between x's
    channels), then an MLP; both are added to x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.sa1, self.sa2, self.se1, self.se2 = (nn.Linear(channels, channels, bias=False) for _ in range(4))
        self.to_out = nn.Linear(channels, channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, channels // 2), nn.LeakyReLU(), nn.Linear(channels // 2, channels))

    def forward(self, x: Tensor, y: Tensor, window: tuple[int, int]) -> Tensor:
        x, y = x.movedim(1, -1), y.movedim(1, -1)
        x = x + self.attend(self.norm(x), self.norm(y), window)
        x = x + self.mlp(self.mlp_norm(x))
        return x.movedim(-1, 1)

    def attend(self, x: Tensor, y: Tensor, window: tuple[int, int]) -> Tensor:
        """Attention of (n, rows, cols, channels), in each window and head on its own: (windows, heads, pixels, 16)."""
        (n, rows, cols, channels), (r, c) = x.shape, window
        lattice = (n, rows // r, r, cols // c, c, channels // HEAD, HEAD)

        def split(layer: nn.Linear, image: Tensor) -> Tensor:
            return layer(image).view(lattice).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, channels // HEAD, r * c, HEAD)

        y1, y2, x1, x2 = split(self.sa1, y), split(self.sa2, y), split(self.se1, x), split(self.se2, x)
        spatial = scaled_dot_product_attention(y1, y2, x1)
        between = (x1.transpose(-2, -1) @ x2).float() * (HEAD**0.5 / (r * c))
        spectral = y1 @ between.softmax(-1).to(y1.dtype)
        mixed = (spatial * spectral).view(n, rows // r, cols // c, channels // HEAD, r, c, HEAD)
        return self.to_out(mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(x.shape))


class Down(nn.Module):
    """Half the size, other channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 2, stride=2),
            nn.LeakyReLU(),
            nn.Conv2d(channels, out, 1),
            nn.Conv2d(out, out, 3, padding=1, groups=out),
            nn.LeakyReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """Twice the size, the skip added, a convolution."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.up1 = nn.Sequential(nn.ConvTranspose2d(channels, out, 2, stride=2), nn.LeakyReLU())
        self.conv = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return leaky_relu(self.conv(self.up1(x) + skip))


class Residual(nn.Module):
    """conv3x3 to half the channels, LeakyReLU, conv3x3, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv1 = nn.Conv2d(channels // 2, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(leaky_relu(self.conv0(x)))


class U2Net(Backbone):
    """Two U-Nets, of PAN and of the learned up-sampling of the MS, mixed at five levels by attention.

    536 248 parameters at 8 bands; official checkpoints hold 105 760 more that are never used (0.64 M in all).

    The residual is added to that up-sampling, not to Up(MS). As in PanNet here, the MS at its own size is sampled from
    Up(MS): the mean of the four central pixels of each 4 x 4 cell, at ratio 4 and phase 0 the MS up to the
    interpolation.

    Attention between pixels costs the square of their number: the paper takes patches of 64 pixels. Here it keeps to
    windows of at most 64 PAN pixels, while the convolutions run across them, so that a patch of 64 is the paper's and a
    tile has no hard borders inside. Tiles begin at a multiple of 64, so that all agree on the windows, and are blended,
    for what reaches through windows goes farther than any sensible halo: `halo` keeps most of a tile's border away.

    `width` channels at full size, a multiple of 16, twice and four times as many below. Parameter names are the
    official ones but for the S2Blocks (see `public`).
    """

    halo = 30
    tile_bytes = (2800, 45)
    multiple_of = WINDOW
    last_halo = 2 * RATIO
    public = Published(
        (
            (r"^upsample\.upsamle\.0\.", "upsample."),
            (r"^(s2block\d)\.layers\.0\.0\.fn\.norm\.", r"\1.norm."),
            (r"^(s2block\d)\.layers\.0\.0\.fn\.fn\.to_out\.0\.", r"\1.to_out."),
            (r"^(s2block\d)\.layers\.0\.0\.fn\.fn\.", r"\1."),
            (r"^(s2block\d)\.layers\.0\.1\.fn\.norm\.", r"\1.mlp_norm."),
            (r"^(s2block\d)\.layers\.0\.1\.fn\.fn\.net\.0\.", r"\1.mlp.0."),
            (r"^(s2block\d)\.layers\.0\.1\.fn\.fn\.net\.3\.", r"\1.mlp.2."),
        ),
        unused=r"^(down[01]\.maxpool_conv|up[01]\.up0)\.",
    )
    stitch = "blend"

    def __init__(self, bands: int, width: int = 32) -> None:
        super().__init__()
        if width < HEAD or width % HEAD:
            raise ValueError(f"width is a multiple of {HEAD}, not {width}")
        self.bands, self.features = bands, width
        self.upsample = nn.Conv2d(bands, bands * RATIO**2, 3, padding=1, bias=False)
        self.raise_ms_dim = nn.Sequential(nn.Conv2d(bands, width, 3, padding=1), nn.LeakyReLU())
        self.raise_pan_dim = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.LeakyReLU())
        sides = (width, 2 * width, 4 * width, 2 * width, width)
        self.s2block0, self.s2block1, self.s2block2, self.s2block3, self.s2block4 = (S2Block(c) for c in sides)
        self.resblock0, self.resblock1, self.resblock2, self.resblock3 = (Residual(c) for c in sides[:-1])
        self.down0, self.down1 = Down(sides[0], sides[1]), Down(sides[1], sides[2])
        self.up0, self.up1 = Up(sides[2], sides[3]), Up(sides[3], sides[4])
        self.to_hrms = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(width, bands, 3, padding=1)
        )
        for parameter in self.to_hrms[-1].parameters():
            nn.init.zeros_(parameter)
        place = (torch.arange(RATIO) + 0.5) / RATIO - 0.5
        taps = torch.stack([(-place).relu(), 1 - place.abs(), place.relu()], 1)
        kernels = torch.einsum("ri,cj->rcij", taps, taps).flatten(0, 1)
        with torch.no_grad():  # a fresh network interpolates the MS bilinearly
            weight = self.upsample.weight.zero_().view(bands, RATIO**2, bands, 3, 3)
            for band in range(bands):
                weight[band, :, band] = kernels

    def expand(self, expanded: Tensor) -> Tensor:
        """The learned up-sampling of the MS that Up(MS) is sampled to."""
        return pixel_shuffle(self.upsample(avg_pool2d(expanded[..., 1:-1, 1:-1], 2, RATIO)), RATIO)

    def extract(self, encoded: Tensor) -> Tensor:
        rows, cols = (window_of(side) for side in encoded.shape[-2:])
        windows = [(rows >> level, cols >> level) for level in range(3)]
        x, y = self.raise_ms_dim(self.expand(encoded[:, :-1])), self.raise_pan_dim(encoded[:, -1:])
        x0 = self.s2block0(x, y, windows[0])
        y0 = self.resblock0(y)
        x, y = self.down0(x0), self.down0(y0)
        x1 = self.s2block1(x, y, windows[1])
        y1 = self.resblock1(y)
        x, y = self.down1(x1), self.down1(y1)
        x = self.up0(self.s2block2(x, y, windows[2]), x1)
        y = self.up0(self.resblock2(y), y1)
        x = self.up1(self.s2block3(x, y, windows[1]), x0)
        y = self.up1(self.resblock3(y), y0)
        return self.s2block4(x, y, windows[0])

    def map(self, features: Tensor) -> Tensor:
        return self.to_hrms(features)

    def base(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        return self.expand(inputs.expanded)
