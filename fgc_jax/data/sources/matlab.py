"""MATLAB files (version 7 and older): their variables, and one kind of error for damaged ones."""

import io

import numpy as np
import scipy.io


def read(path, *names):
    """The variables `names` of a .mat file, a list of arrays without axes of length 1 (but with at
    least one). Texts and structs are elements of arrays of objects.

    ValueError naming the file where it is missing, damaged, or lacks a variable.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        found = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True, variable_names=names)
    except Exception as error:  # damaged files fail in a dozen ways
        raise ValueError(f"{path}: damaged or no MATLAB file ({error})") from error
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"{path}: there is no variable {', '.join(map(repr, absent))}")
    return [np.atleast_1d(found[name]) for name in names]


def columns(path, variable, *fields):
    """The `fields` of each struct in the array `variable`: lists of N texts, numbers as texts too.

    ValueError as for `read`, and where a field is missing.
    """
    (structs,) = read(path, variable)
    absent = [field for field in fields if field not in (structs.dtype.names or ())]
    if absent:
        raise ValueError(f"{path}: {variable!r} has no field {', '.join(map(repr, absent))}")
    return [[str(value) for value in structs[field].ravel()] for field in fields]
