"""torchxrayvision's way: its reading, centre crop and skimage resize to 224, then a ResNet-50.

Written after `load_image`, `XRayCenterCrop` and `XRayResizer` of torchxrayvision 1.x and its
`process_image.py`, which takes one image at a time. The weights are random: speed does not depend
on them. One JSON line in, {"path": ...}, one with the seconds of one image out.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pydicom
import skimage.io
import skimage.transform
import torch
from torch import Tensor, nn

SIZE = 224
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride


def unit(inside: int, outside: int, side: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation."""
    convolution = nn.Conv2d(inside, outside, side, stride, side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside))


class Bottleneck(nn.Module):
    """The block that ResNet-50 repeats (He et al. 2016, figure 5)."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.narrow, self.middle = unit(inside, width, 1), unit(width, width, 3, stride)
        self.wide = unit(width, 4 * width, 1)
        same = inside == 4 * width and stride == 1
        self.shortcut = nn.Identity() if same else unit(inside, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) -> (B, 4 width, H / stride, W / stride)."""
        inner = self.middle(self.narrow(x).relu()).relu()
        return (self.wide(inner) + self.shortcut(x)).relu()


def resnet50() -> nn.Sequential:
    """One grey channel in, 18 pathologies out, as torchxrayvision's networks."""
    layers: list[nn.Module] = [unit(1, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for width, blocks, first_stride in STAGES:
        for number in range(blocks):
            layers.append(Bottleneck(inside, width, 1 if number else first_stride))
            inside = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 18)]
    return nn.Sequential(*layers).eval()


def load_image(path: Path) -> np.ndarray:
    """(1, rows, columns) float32, from -1024 to 1024."""
    with path.open("rb") as file:
        is_dicom = file.read(132)[128:] == b"DICM"
    if is_dicom:
        dataset = pydicom.dcmread(path, force=True)
        pixels, highest = dataset.pixel_array, 2**dataset.BitsStored - 1
    else:
        pixels, highest = skimage.io.imread(path), 255
    if pixels.max() > highest:
        raise ValueError("larger than the largest possible value")
    return ((2 * (pixels.astype(np.float32) / highest) - 1.0) * 1024)[np.newaxis]


def transformed(image: np.ndarray) -> np.ndarray:
    """XRayCenterCrop, then XRayResizer: (1, SIZE, SIZE) float32."""
    _, rows, columns = image.shape
    side = min(rows, columns)
    top, left = rows // 2 - side // 2, columns // 2 - side // 2
    square = image[:, top : top + side, left : left + side]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resized = skimage.transform.resize(
            square, (1, SIZE, SIZE), mode="constant", preserve_range=True
        )
    return resized.astype(np.float32)


def answer(network: nn.Module, path: str) -> dict[str, float]:
    """The seconds of one image, from its file on."""
    cpu, wall = time.process_time(), time.perf_counter()
    with torch.no_grad():
        network(torch.from_numpy(transformed(load_image(Path(path)))).unsqueeze(0))
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


if __name__ == "__main__":
    model = resnet50()
    for line in sys.stdin:
        print(json.dumps(answer(model, **json.loads(line))), flush=True)
