"""Fourier transforms and complex numbers."""

from prunas.supernet.operators.call import Call, Dims, rule


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def _fourier(call: Call) -> Dims:
    dims = list(call.dims(call.args[0]))
    for axis in call.args[1]:
        call.pin(dims[axis], "a Fourier transform mixes its entries")
        dims[axis] = call.labels.zeros(call.out.shape[axis])
    return tuple(dims)


@rule("aten.view_as_complex")
def _as_complex(call: Call) -> Dims:
    *dims, pair = call.dims(call.args[0])
    call.pin(pair, "it holds the two parts of a complex number")
    return tuple(dims)


@rule("aten.view_as_real")
def _as_real(call: Call) -> Dims:
    return (*call.dims(call.args[0]), call.labels.zeros(2))
