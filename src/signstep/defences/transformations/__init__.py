"""Input transformations that have been proposed as defences, one a file."""

from signstep.defences.transformations import (
    bit_depth,
    colour_332,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    median_blur,
    random_crop,
    resize,
    resize_pad,
    total_variation,
    uniform_noise,
)

ROWS = (
    jpeg.ROW,
    bit_depth.ROW,
    colour_332.ROW,
    gaussian_blur.ROW,
    median_blur.ROW,
    total_variation.ROW,
    resize.ROW,
    resize_pad.ROW,
    random_crop.ROW,
    uniform_noise.ROW,
    gaussian_noise.ROW,
)
