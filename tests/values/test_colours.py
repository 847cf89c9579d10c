"""Twenty colours that stay apart: measured with CIEDE2000 for four kinds of sight."""

import numpy as np
import pytest

from scgraft.values.colours import COLOURS, SHAPES, SILENT, palette, shapes

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHT = {
    "ordinary": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab(colours: list[str], sight: str) -> np.ndarray:
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def difference(one: np.ndarray, two: np.ndarray) -> float:
    """CIEDE2000 of two colours in Lab (Sharma, Wu and Dalal 2005)."""
    mean_chroma = (np.hypot(*one[1:]) + np.hypot(*two[1:])) / 2
    g = 0.5 * (1 - np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7)))
    (a1, b1), (a2, b2) = (one[1] * (1 + g), one[2]), (two[1] * (1 + g), two[2])
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    light, chroma = two[0] - one[0], c2 - c1
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_light, mean_c = (one[0] + two[0]) / 2, (c1 + c2) / 2
    middle = h1 + h2 if c1 * c2 == 0 else (h1 + h2) / 2
    if c1 * c2 and abs(h1 - h2) > 180:
        middle += 180 if h1 + h2 < 360 else -180
    cos = lambda times, shift: np.cos(np.radians(times * middle + shift))  # noqa: E731
    t = 1 - 0.17 * cos(1, -30) + 0.24 * cos(2, 0) + 0.32 * cos(3, 6) - 0.2 * cos(4, -63)
    s_light = 1 + 0.015 * (mean_light - 50) ** 2 / np.sqrt(20 + (mean_light - 50) ** 2)
    s_chroma, s_hue = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    rotation = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25**7))
    rotation *= np.sin(np.radians(60 * np.exp(-(((middle - 275) / 25) ** 2))))
    parts = light / s_light, chroma / s_chroma, hue / s_hue
    return float(np.sqrt(sum(p * p for p in parts) + rotation * parts[1] * parts[2]))


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [  # from the test data of Sharma, Wu and Dalal (2005)
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_that_of_the_literature(one, two, expected):
    assert difference(np.array(one), np.array(two)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sight", SIGHT)
def test_twenty_types_and_unknown_stay_apart(sight):
    points = lab([*COLOURS, SILENT, "#FFFFFF"], sight)
    apart = np.array([[difference(a, b) for b in points] for a in points])
    types = apart[:20, :20][np.triu_indices(20, 1)]
    assert types.min() > 11 and apart[20, :20].min() > 9 and apart[21, :20].min() > 10


def test_a_hundred_types_are_told_apart_by_colour_and_shape():
    names = [f"type {i}" for i in range(100)]
    colour, shape = palette([*names, "unknown"]), shapes([*names, "unknown"])
    assert len({(colour[n], shape[n]) for n in names}) == 100 == len(COLOURS) * len(SHAPES)
    assert colour["unknown"] == SILENT not in COLOURS
