"""Ibis expressions as SQL of the engine: Ibis' compiler for DataFusion, without what only the DataFusion inside Ibis' own backend has.

That one registers a dozen functions written in Python (`ibis.backends.datafusion.udfs`). A server runs no Python, so each operation that
uses one is either compiled to what the engine has, or undefined: `has_operation` says so, and compiling it names the operation.
"""

import math

import ibis.common.exceptions as exceptions
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.base import NULL
from ibis.backends.sql.compilers.datafusion import DataFusionCompiler
from ibis.expr.operations.udf import InputType

from bowshot.ibis_types import arrow_name

# date_part counts milliseconds and microseconds from the start of the minute, Ibis from the start of the second.
_MILLISECONDS, _MICROSECONDS = 1_000, 1_000_000


class BowshotCompiler(DataFusionCompiler):
    """SQL of the engine."""

    __slots__ = ()

    # Those of the class above are methods by now, and would take the place of ours.
    SIMPLE_OPS = {}

    UNSUPPORTED_OPS = (
        # Functions in Python of the embedded DataFusion.
        ops.ExtractAuthority,
        ops.ExtractFile,
        ops.ExtractFragment,
        ops.ExtractHost,
        ops.ExtractPath,
        ops.ExtractProtocol,
        ops.ExtractQuery,
        ops.ExtractUserInfo,
        ops.RegexSplit,
        ops.ElementWiseVectorizedUDF,
        # Those that DataFusion's compiler refuses too, but for what is below.
        *(op for op in DataFusionCompiler.UNSUPPORTED_OPS if op is not ops.DateDelta),
        # Ibis wants an interval, the engine gives days: DateDelta is what tells them.
        ops.DateDiff,
    )

    def visit_NonNullLiteral(self, op, *, value, dtype):
        if dtype.is_floating() and math.isfinite(value):
            # A number with a point is a decimal to the engine: beside a double it must not be.
            return self.exactly(sge.Literal.number(repr(float(value))), dtype)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)

    def visit_ScalarUDF(self, op, **arguments):
        if op.__input_type__ != InputType.BUILTIN:
            kind = op.__input_type__.name.lower()
            raise exceptions.UnsupportedOperationError(
                f"the server runs no Python, so it cannot run {op.__func_name__}, a function of kind {kind}: declare a function that"
                " the engine has with ibis.udf.scalar.builtin, or apply yours to the result"
            )
        return self.f.anon[op.__func_name__](*arguments.values())

    def visit_Cast(self, op, *, arg, to):
        if to.is_interval() or to.is_timestamp():
            return super().visit_Cast(op, arg=arg, to=to)
        return self.exactly(arg, to)

    def exactly(self, value, to):
        """`value` as exactly the type `to`."""
        return self.f.arrow_cast(value, arrow_name(to))

    def visit_Date(self, op, *, arg):
        return self.cast(arg, dt.date)

    def visit_Sign(self, op, *, arg):
        return self.exactly(self.f.anon.signum(arg), op.dtype)

    def visit_ExtractEpochSeconds(self, op, *, arg):
        # Down to the whole second, before 1970 too.
        return self.exactly(self.f.floor(self.f.date_part("epoch", arg)), op.dtype)

    def visit_ExtractHour(self, op, *, arg):
        return self.f.date_part("hour", arg)

    def visit_ExtractMinute(self, op, *, arg):
        return self.f.date_part("minute", arg)

    def visit_ExtractSecond(self, op, *, arg):
        return self.exactly(self.f.floor(self.f.date_part("second", arg)), op.dtype)

    def visit_ExtractMillisecond(self, op, *, arg):
        return sge.paren(self.f.date_part("millisecond", arg)) % _MILLISECONDS

    def visit_ExtractMicrosecond(self, op, *, arg):
        return sge.paren(self.f.date_part("microsecond", arg)) % _MICROSECONDS

    def visit_ExtractIsoYear(self, op, *, arg):
        return self.f.date_part("isoyear", arg)

    def visit_DateDelta(self, op, *, left, right, part):
        # Dates differ by days; what a month between two of them is, engines do not agree on.
        unit = op.part.value if isinstance(op.part, ops.Literal) else op.part
        if str(unit).lower() != "day":
            raise exceptions.UnsupportedOperationError(f"dates differ by days, not by units of {unit}: use delta(..., unit='day')")
        return left - right

    def visit_TryCast(self, op, *, arg, to):
        return self.f.arrow_try_cast(arg, arrow_name(to))

    def visit_BitwiseXor(self, op, *, left, right):
        # The generator writes `#`, as Postgres does; the engine has `^`, which the generator takes for a power.
        return sge.paren(sge.paren(sge.BitwiseOr(this=left, expression=right)) - sge.paren(sge.BitwiseAnd(this=left, expression=right)))

    def visit_BitwiseNot(self, op, *, arg):
        return sge.paren(sge.convert(-1) - arg)

    def visit_HexDigest(self, op, *, arg, how):
        if how == "md5":
            return self.f.anon.md5(arg)
        if how in ("sha224", "sha256", "sha384", "sha512"):
            return self.f.anon.encode(self.f.anon[how](arg), "hex")
        raise exceptions.UnsupportedOperationError(f"the engine has no digest {how!r}: md5, sha224, sha256, sha384 and sha512 are there")

    def visit_GroupConcat(self, op, *, arg, sep, where, order_by):
        return self.agg.string_agg(arg, sep, where=where, order_by=order_by)

    def visit_MapGet(self, op, *, arg, key, default):
        # By name of the function: the generator would shift an index in brackets by one.
        return NULL if op.dtype.is_null() else self.f.coalesce(self.f.array_element(self.f.map_extract(arg, key), 1), default)

    def visit_ArrayPosition(self, op, *, arg, other):
        return self.if_(arg.is_(NULL), NULL, super().visit_ArrayPosition(op, arg=arg, other=other))

    def visit_ApproxQuantile(self, op, *, arg, quantile, where):
        # Ibis looks for the DataFusion beside it to choose the syntax; the one that counts is the server's.
        expression = sge.WithinGroup(
            this=self.f.approx_percentile_cont(quantile), expression=sge.Order(expressions=[sge.Ordered(this=arg)])
        )
        return expression if where is None else sge.Filter(this=expression, expression=sge.Where(this=where))

    def no_rows(self, schema):
        """A query of no rows, with exactly these columns."""
        columns = [self.exactly(NULL, dtype).as_(name, quoted=self.quoted) for name, dtype in schema.items()]
        return sg.select(*columns).where(sge.false())


compiler = BowshotCompiler()
