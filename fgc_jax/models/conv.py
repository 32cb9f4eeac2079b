"""Two-dimensional convolution in the formulation that is fast on the platform at hand."""

from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(x, kernel, *, stride=1, padding, groups=1):
    """Convolves x [B, H, W, Cin] with kernel [kh, kw, Cin / groups, Cout].

    padding is an int (the same on every side) or "SAME", TensorFlow's rule, which puts the odd
    row or column at the bottom right.
    """
    pads = "SAME" if padding == "SAME" else ((padding, padding),) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=groups
    )
