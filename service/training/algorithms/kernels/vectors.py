"""What kernels do with rows of float32 tables and numba alone does slowly: multiply two, and ask for one ahead of time.

Invariant: a product is added up in an order of our own, the same for vectors of any width; nothing is fused or
reordered. Asking for a row reads and writes nothing, so that it can change no result.

Why not loops: of the 52 ns that a step of biased matrix factorisation took on one core with 100 factors, the product
was 30. And at a million users by 100,000 items, where tables are larger than caches, a step took 215 ns, and 98 once it
asked for its rows a few ratings ahead.

numba recompiles a kernel when its own file changes, and not when one that it calls from another file does: after a
change here, remove the `__pycache__` beside this file.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir  # llvmlite has no types
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

from service.training.interactions import Float32

# Rows are padded to whole lanes: what vectors of 128 and 256 bits hold.
LANES: Final = 8
# How many steps ahead a row is asked for: of 4, 8 and 16 the last two were best, and the same.
AHEAD: Final = 8
# A sum waits for the one before it, so that several are under way at a time.
_SUMS: Final = 4
_LINE_FLOATS: Final = 16  # float32 numbers in a cache line of 64 bytes

# What generates code is handed values of numba and LLVM that have no types.
_cgutils: Any = cgutils
_generated: Any = intrinsic
_arrayobj: Any = arrayobj
_FLOAT, _FLAG, _BYTES = ir.FloatType(), ir.IntType(32), ir.IntType(8).as_pointer()
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _product(_context: Any, table: Any, row: Any, other: Any, other_row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, width = _row(context, builder, signature.args[:2], arguments[:2])
        second, _ = _row(context, builder, signature.args[2:], arguments[2:])
        sums = [_cgutils.alloca_once(builder, _VECTOR) for _ in range(_SUMS)]
        for total in sums:
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)

        def add(total: Any, column: Any) -> None:
            addresses = (builder.gep(pointer, [column]) for pointer in (first, second))
            factors = [builder.load(builder.bitcast(at, _VECTOR.as_pointer()), align=4) for at in addresses]
            builder.store(builder.fadd(builder.load(total), builder.fmul(*factors)), total)

        whole = builder.sub(width, builder.urem(width, width.type(_SUMS * LANES)))
        with _columns(builder, width.type(0), whole, _SUMS * LANES) as (column, _):
            for n, total in enumerate(sums):
                add(total, builder.add(column, width.type(n * LANES)))
        with _columns(builder, whole, width, LANES) as (column, _):
            add(sums[0], column)
        pairs = [builder.fadd(*(builder.load(total) for total in sums[n : n + 2])) for n in (0, 2)]
        return _added_up(builder, builder.fadd(*pairs))

    return types.float32(table, row, other, other_row), generate


def _prefetch(_context: Any, table: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, width = _row(context, builder, signature.args, arguments)
        function_type = ir.FunctionType(ir.VoidType(), [_BYTES, _FLAG, _FLAG, _FLAG])
        function = builder.module.declare_intrinsic("llvm.prefetch", [_BYTES], function_type)
        to_write, keep_near, of_data = _FLAG(1), _FLAG(3), _FLAG(1)

        def ask(column: Any) -> None:
            address = builder.bitcast(builder.gep(pointer, [column]), _BYTES)
            builder.call(function, [address, to_write, keep_near, of_data])

        with _columns(builder, width.type(0), width, _LINE_FLOATS) as (column, _):
            ask(column)
        # A row need not begin where a line does, and then ends in one line more.
        ask(builder.sub(width, width.type(1)))
        return context.get_dummy_value()

    return types.void(table, row), generate


product: Callable[[Float32, int, Float32, int], np.float32] = _generated(_product)
"""Return the product of a row of one table with a row of another, for kernels alone: (table, row, other, other_row).

Tables are float32 in C order, of the same width in whole lanes. There are four sums of eight lanes each: vector n goes
to sum n % 4 as long as four are left, and what remains to sum 0. The result is (0 + 1) + (2 + 3), of which then one
half is added to the other until one number is left.
"""

prefetch: Callable[[Float32, int], None] = _generated(_prefetch)
"""Ask for a row of a float32 table in C order, to be read and written soon, for kernels alone: (table, row)."""


def _row(context: Any, builder: Any, argument_types: Any, arguments: Any) -> tuple[Any, Any]:
    """Return the address of a row's first number, and how many there are."""
    array_type, row_type = argument_types
    array, row = arguments
    table = _arrayobj.make_array(array_type)(context, builder, array)
    indices = [context.cast(builder, row, row_type, types.intp), context.get_constant(types.intp, 0)]
    pointer = _cgutils.get_item_pointer(context, builder, array_type, table, indices, wraparound=False)
    return pointer, _cgutils.unpack_tuple(builder, table.shape, 2)[1]


def _columns(builder: Any, start: Any, stop: Any, step: int) -> Any:
    return _cgutils.for_range_slice(builder, start, stop, start.type(step), start.type)


def _added_up(builder: Any, vector: Any) -> Any:
    """Return the sum of a vector's numbers, the upper half added to the lower until one is left."""
    width = LANES
    while width > 1:
        width //= 2
        masks = (ir.Constant(ir.VectorType(_FLAG, width), [*range(first, first + width)]) for first in (0, width))
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, mask) for mask in masks))
    return builder.extract_element(vector, _FLAG(0))
