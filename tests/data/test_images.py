import io

import numpy as np
import pytest
from PIL import Image

from jaxmodels.data.images import decode, denormalise, normalise, resize, resize_tf_bilinear


def encoded(picture, kind="png", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (3, 2), (200, 10, 10))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    kind = "tiff" if mode == "CMYK" else "png"
    image = decode(encoded(RED.convert(mode), kind))
    assert image.shape == (2, 3, 3) and image.dtype == np.uint8 and image.flags.writeable
    if mode in ("RGB", "RGBA", "P"):
        assert abs(image.astype(int) - [200, 10, 10]).max() <= 60  # the web palette is coarse


def test_a_transparent_palette_is_read_without_a_warning():
    palette = RED.quantize(2)
    assert (decode(encoded(palette, transparency=bytes([0, 128])))[0, 0] == [200, 10, 10]).all()


def test_sixteen_bit_grey_keeps_its_upper_bits():
    deep = Image.fromarray(np.array([[0, 256 * 7 + 200], [65535, 256]], np.uint16))
    assert decode(encoded(deep))[:, :, 0].tolist() == [[0, 7], [255, 1]]


def test_exif_orientation_only_on_request():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(RED, "jpeg", exif=exif)
    assert decode(data).shape == (2, 3, 3) and decode(data, upright=True).shape == (3, 2, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", encoded(Image.new("RGB", (64, 64)), "jpeg")[:-300]])
def test_what_is_no_image_is_named_in_one_line(tmp_path, content):
    file = tmp_path / "cat.jpg"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cat.jpg: expected an image") as error:
        decode(file)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="gone.png: no such image file"):
        decode(tmp_path / "gone.png")


def test_tf_bilinear_is_a_slow_bilinear_loop():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    found = resize_tf_bilinear(image, 8, 4)
    for i in range(8):
        for j in range(4):
            y, x = (i + 0.5) * 5 / 8 - 0.5, (j + 0.5) * 7 / 4 - 0.5
            total = np.zeros(3)
            for a in range(-1, 6):
                for b in range(-1, 8):
                    weight = max(0, 1 - abs(y - a)) * max(0, 1 - abs(x - b))
                    total += weight * image[min(max(a, 0), 4), min(max(b, 0), 6)]
            np.testing.assert_allclose(found[i, j], total, atol=2e-3)


def test_resize_methods_differ_and_unknown_ones_are_refused():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    bicubic, bilinear, tf = (resize(image, 8, method) for method in ("bicubic", "bilinear", "tf_bilinear"))
    assert bicubic.dtype == bilinear.dtype == np.uint8 and tf.dtype == np.float32
    assert (bicubic != bilinear).any() and abs(tf - bilinear).max() > 5
    with pytest.raises(ValueError, match="resize 'area'"):
        resize(image, 8, "area")


def test_normalisation_has_an_inverse():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    for statistics in ("imagenet", "inception"):
        assert normalise(image, statistics).dtype == np.float32
        np.testing.assert_array_equal(denormalise(normalise(image, statistics), statistics), image)
    with pytest.raises(ValueError, match="normalisation 'clip'"):
        normalise(image, "clip")
