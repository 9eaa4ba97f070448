"""The 22 queries of TPC-H as Ibis expressions, written as one would write them in Ibis: joins, filters and aggregates, no SQL.

Each function takes the tables it needs by name, and gives an expression with the columns of the specification in their order. Order and
LIMIT are part of it.
"""

import datetime
import decimal
import inspect

import ibis
from ibis import _


def expression(name, tables):
    """The query `q01` … `q22`; `tables` gives a table by its name."""
    query = globals()[name]
    return query(*(tables(parameter) for parameter in inspect.signature(query).parameters))


def revenue(table):
    return table.l_extendedprice * (1 - table.l_discount)


def exactly(number):
    """A decimal literal with as many digits as it is written with."""
    return ibis.literal(decimal.Decimal(number), f"decimal(15, {len(number.partition('.')[2])})")


def from_day(column, year, month, day, **length):
    """Whether a date is within the time that begins on a day."""
    first = datetime.date(year, month, day)
    return (column >= first) & (column < ibis.date(first) + ibis.interval(**length))


def q01(lineitem):
    return (
        lineitem.filter(_.l_shipdate <= ibis.date("1998-12-01") - ibis.interval(days=90))
        .mutate(disc_price=revenue(_))
        .mutate(charge=_.disc_price * (1 + _.l_tax))
        .group_by("l_returnflag", "l_linestatus")
        .agg(
            sum_qty=_.l_quantity.sum(),
            sum_base_price=_.l_extendedprice.sum(),
            sum_disc_price=_.disc_price.sum(),
            sum_charge=_.charge.sum(),
            avg_qty=_.l_quantity.mean(),
            avg_price=_.l_extendedprice.mean(),
            avg_disc=_.l_discount.mean(),
            count_order=_.count(),
        )
        .order_by("l_returnflag", "l_linestatus")
    )


def q02(part, supplier, partsupp, nation, region):
    offers = (
        part.join(partsupp, part.p_partkey == partsupp.ps_partkey)
        .join(supplier, _.ps_suppkey == supplier.s_suppkey)
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .join(region, _.n_regionkey == region.r_regionkey)
        .filter(_.r_name == "EUROPE")
    )
    cheapest = offers.group_by(key=_.p_partkey).agg(least=_.ps_supplycost.min())
    return (
        offers.filter(_.p_size == 15, _.p_type.like("%BRASS"))
        .join(cheapest, [_.p_partkey == cheapest.key, _.ps_supplycost == cheapest.least])
        .select("s_acctbal", "s_name", "n_name", "p_partkey", "p_mfgr", "s_address", "s_phone", "s_comment")
        .order_by(_.s_acctbal.desc(), "n_name", "s_name", "p_partkey")
        .limit(100)
    )


def q03(customer, orders, lineitem):
    return (
        customer.join(orders, customer.c_custkey == orders.o_custkey)
        .join(lineitem, _.o_orderkey == lineitem.l_orderkey)
        .filter(_.c_mktsegment == "BUILDING", _.o_orderdate < datetime.date(1995, 3, 15), _.l_shipdate > datetime.date(1995, 3, 15))
        .group_by("l_orderkey", "o_orderdate", "o_shippriority")
        .agg(revenue=revenue(_).sum())
        .select("l_orderkey", "revenue", "o_orderdate", "o_shippriority")
        .order_by(_.revenue.desc(), "o_orderdate")
        .limit(10)
    )


def q04(orders, lineitem):
    late = lineitem.filter(_.l_commitdate < _.l_receiptdate)
    return (
        orders.filter(from_day(_.o_orderdate, 1993, 7, 1, months=3))
        .semi_join(late, orders.o_orderkey == late.l_orderkey)
        .group_by("o_orderpriority")
        .agg(order_count=_.count())
        .order_by("o_orderpriority")
    )


def q05(customer, orders, lineitem, supplier, nation, region):
    return (
        customer.join(orders, customer.c_custkey == orders.o_custkey)
        .join(lineitem, _.o_orderkey == lineitem.l_orderkey)
        .join(supplier, [_.l_suppkey == supplier.s_suppkey, _.c_nationkey == supplier.s_nationkey])
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .join(region, _.n_regionkey == region.r_regionkey)
        .filter(_.r_name == "ASIA", from_day(_.o_orderdate, 1994, 1, 1, years=1))
        .group_by("n_name")
        .agg(revenue=revenue(_).sum())
        .order_by(_.revenue.desc())
    )


def q06(lineitem):
    return lineitem.filter(
        from_day(_.l_shipdate, 1994, 1, 1, years=1), _.l_discount.between(exactly("0.05"), exactly("0.07")), _.l_quantity < 24
    ).agg(revenue=(_.l_extendedprice * _.l_discount).sum())


def q07(supplier, lineitem, orders, customer, nation):
    sellers = nation.select(supp_key="n_nationkey", supp_nation="n_name")
    buyers = nation.select(cust_key="n_nationkey", cust_nation="n_name")
    return (
        supplier.join(lineitem, supplier.s_suppkey == lineitem.l_suppkey)
        .join(orders, _.l_orderkey == orders.o_orderkey)
        .join(customer, _.o_custkey == customer.c_custkey)
        .join(sellers, _.s_nationkey == sellers.supp_key)
        .join(buyers, _.c_nationkey == buyers.cust_key)
        .filter(
            ((_.supp_nation == "FRANCE") & (_.cust_nation == "GERMANY")) | ((_.supp_nation == "GERMANY") & (_.cust_nation == "FRANCE")),
            _.l_shipdate.between(datetime.date(1995, 1, 1), datetime.date(1996, 12, 31)),
        )
        .group_by("supp_nation", "cust_nation", l_year=_.l_shipdate.year())
        .agg(revenue=revenue(_).sum())
        .order_by("supp_nation", "cust_nation", "l_year")
    )


def q08(part, supplier, lineitem, orders, customer, nation, region):
    homes = nation.select(home_key="n_nationkey", home_region="n_regionkey")
    return (
        part.join(lineitem, part.p_partkey == lineitem.l_partkey)
        .join(supplier, _.l_suppkey == supplier.s_suppkey)
        .join(orders, _.l_orderkey == orders.o_orderkey)
        .join(customer, _.o_custkey == customer.c_custkey)
        .join(homes, _.c_nationkey == homes.home_key)
        .join(region, _.home_region == region.r_regionkey)
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .filter(
            _.r_name == "AMERICA",
            _.o_orderdate.between(datetime.date(1995, 1, 1), datetime.date(1996, 12, 31)),
            _.p_type == "ECONOMY ANODIZED STEEL",
        )
        .mutate(volume=revenue(_), o_year=_.o_orderdate.year())
        .group_by("o_year")
        .agg(mkt_share=_.volume.sum(where=_.n_name == "BRAZIL").cast("float64") / _.volume.sum().cast("float64"))
        .order_by("o_year")
    )


def q09(part, supplier, lineitem, partsupp, orders, nation):
    return (
        lineitem.join(supplier, lineitem.l_suppkey == supplier.s_suppkey)
        .join(partsupp, [_.l_suppkey == partsupp.ps_suppkey, _.l_partkey == partsupp.ps_partkey])
        .join(part, _.l_partkey == part.p_partkey)
        .join(orders, _.l_orderkey == orders.o_orderkey)
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .filter(_.p_name.contains("green"))
        .group_by(nation=_.n_name, o_year=_.o_orderdate.year())
        .agg(sum_profit=(revenue(_) - _.ps_supplycost * _.l_quantity).sum())
        .order_by("nation", _.o_year.desc())
    )


def q10(customer, orders, lineitem, nation):
    return (
        customer.join(orders, customer.c_custkey == orders.o_custkey)
        .join(lineitem, _.o_orderkey == lineitem.l_orderkey)
        .join(nation, _.c_nationkey == nation.n_nationkey)
        .filter(from_day(_.o_orderdate, 1993, 10, 1, months=3), _.l_returnflag == "R")
        .group_by("c_custkey", "c_name", "c_acctbal", "c_phone", "n_name", "c_address", "c_comment")
        .agg(revenue=revenue(_).sum())
        .select("c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment")
        .order_by(_.revenue.desc())
        .limit(20)
    )


def q11(partsupp, supplier, nation):
    german = (
        partsupp.join(supplier, partsupp.ps_suppkey == supplier.s_suppkey)
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .filter(_.n_name == "GERMANY")
        .mutate(value=_.ps_supplycost * _.ps_availqty)
    )
    least = german.value.sum().cast("float64").as_scalar() * 0.0001
    return german.group_by("ps_partkey").agg(value=_.value.sum()).filter(_.value.cast("float64") > least).order_by(_.value.desc())


def q12(orders, lineitem):
    urgent = _.o_orderpriority.isin(["1-URGENT", "2-HIGH"])
    return (
        orders.join(lineitem, orders.o_orderkey == lineitem.l_orderkey)
        .filter(
            _.l_shipmode.isin(["MAIL", "SHIP"]),
            _.l_commitdate < _.l_receiptdate,
            _.l_shipdate < _.l_commitdate,
            from_day(_.l_receiptdate, 1994, 1, 1, years=1),
        )
        .group_by("l_shipmode")
        .agg(high_line_count=urgent.ifelse(1, 0).sum(), low_line_count=urgent.ifelse(0, 1).sum())
        .order_by("l_shipmode")
    )


def q13(customer, orders):
    plain = orders.filter(~_.o_comment.like("%special%requests%"))
    return (
        customer.left_join(plain, customer.c_custkey == plain.o_custkey)
        .group_by("c_custkey")
        .agg(c_count=_.o_orderkey.count())
        .group_by("c_count")
        .agg(custdist=_.count())
        .order_by(_.custdist.desc(), _.c_count.desc())
    )


def q14(lineitem, part):
    return (
        lineitem.join(part, lineitem.l_partkey == part.p_partkey)
        .filter(from_day(_.l_shipdate, 1995, 9, 1, months=1))
        .mutate(revenue=revenue(_))
        .agg(promo=_.revenue.sum(where=_.p_type.startswith("PROMO")), total=_.revenue.sum())
        .select(promo_revenue=100 * _.promo.cast("float64") / _.total.cast("float64"))
    )


def q15(lineitem, supplier):
    sold = lineitem.filter(from_day(_.l_shipdate, 1996, 1, 1, months=3)).group_by("l_suppkey").agg(total_revenue=revenue(_).sum())
    return (
        supplier.join(sold, supplier.s_suppkey == sold.l_suppkey)
        .filter(_.total_revenue == sold.total_revenue.max().as_scalar())
        .select("s_suppkey", "s_name", "s_address", "s_phone", "total_revenue")
        .order_by("s_suppkey")
    )


def q16(partsupp, part, supplier):
    complained = supplier.filter(_.s_comment.like("%Customer%Complaints%"))
    return (
        partsupp.join(part, partsupp.ps_partkey == part.p_partkey)
        .filter(
            _.p_brand != "Brand#45",
            ~_.p_type.like("MEDIUM POLISHED%"),
            _.p_size.isin([49, 14, 23, 45, 19, 3, 36, 9]),
            ~_.ps_suppkey.isin(complained.s_suppkey),
        )
        .group_by("p_brand", "p_type", "p_size")
        .agg(supplier_cnt=_.ps_suppkey.nunique())
        .order_by(_.supplier_cnt.desc(), "p_brand", "p_type", "p_size")
    )


def q17(lineitem, part):
    averages = lineitem.group_by(key=_.l_partkey).agg(small=_.l_quantity.cast("float64").mean() * 0.2)
    return (
        lineitem.join(part, lineitem.l_partkey == part.p_partkey)
        .filter(_.p_brand == "Brand#23", _.p_container == "MED BOX")
        .join(averages, _.l_partkey == averages.key)
        .filter(_.l_quantity.cast("float64") < _.small)
        .agg(total=_.l_extendedprice.sum())
        .select(avg_yearly=_.total.cast("float64") / 7.0)
    )


def q18(customer, orders, lineitem):
    large = lineitem.group_by(key=_.l_orderkey).agg(quantity=_.l_quantity.sum()).filter(_.quantity > 300)
    return (
        customer.join(orders, customer.c_custkey == orders.o_custkey)
        .join(lineitem, _.o_orderkey == lineitem.l_orderkey)
        .filter(_.o_orderkey.isin(large.key))
        .group_by("c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice")
        .agg(sum_quantity=_.l_quantity.sum())
        .order_by(_.o_totalprice.desc(), "o_orderdate")
        .limit(100)
    )


def q19(lineitem, part):
    def wanted(brand, containers, quantity, size):
        boxes = [
            f"{containers} {kind}" for kind in (("BAG", "BOX", "PKG", "PACK") if containers == "MED" else ("CASE", "BOX", "PACK", "PKG"))
        ]
        return (_.p_brand == brand) & _.p_container.isin(boxes) & _.l_quantity.between(quantity, quantity + 10) & _.p_size.between(1, size)

    return (
        lineitem.join(part, lineitem.l_partkey == part.p_partkey)
        .filter(
            _.l_shipmode.isin(["AIR", "AIR REG"]),
            _.l_shipinstruct == "DELIVER IN PERSON",
            wanted("Brand#12", "SM", 1, 5) | wanted("Brand#23", "MED", 10, 10) | wanted("Brand#34", "LG", 20, 15),
        )
        .agg(revenue=revenue(_).sum())
    )


def q20(supplier, nation, partsupp, part, lineitem):
    shipped = (
        lineitem.filter(from_day(_.l_shipdate, 1994, 1, 1, years=1))
        .group_by(part_key=_.l_partkey, supplier_key=_.l_suppkey)
        .agg(half=_.l_quantity.sum().cast("float64") * 0.5)
    )
    forest = part.filter(_.p_name.startswith("forest"))
    plenty = (
        partsupp.filter(_.ps_partkey.isin(forest.p_partkey))
        .join(shipped, [partsupp.ps_partkey == shipped.part_key, partsupp.ps_suppkey == shipped.supplier_key])
        .filter(_.ps_availqty.cast("float64") > _.half)
    )
    return (
        supplier.filter(_.s_suppkey.isin(plenty.ps_suppkey))
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .filter(_.n_name == "CANADA")
        .select("s_name", "s_address")
        .order_by("s_name")
    )


def q21(supplier, lineitem, orders, nation):
    late = lineitem.filter(_.l_receiptdate > _.l_commitdate)
    others, others_late = lineitem.view(), late.view()
    waited = late.semi_join(others, [late.l_orderkey == others.l_orderkey, late.l_suppkey != others.l_suppkey])
    waited = waited.anti_join(others_late, [waited.l_orderkey == others_late.l_orderkey, waited.l_suppkey != others_late.l_suppkey])
    return (
        waited.join(supplier, waited.l_suppkey == supplier.s_suppkey)
        .join(orders, _.l_orderkey == orders.o_orderkey)
        .join(nation, _.s_nationkey == nation.n_nationkey)
        .filter(_.o_orderstatus == "F", _.n_name == "SAUDI ARABIA")
        .group_by("s_name")
        .agg(numwait=_.count())
        .order_by(_.numwait.desc(), "s_name")
        .limit(100)
    )


def q22(customer, orders):
    chosen = customer.mutate(cntrycode=_.c_phone.substr(0, 2)).filter(_.cntrycode.isin(["13", "31", "23", "29", "30", "18", "17"]))
    average = chosen.filter(_.c_acctbal > 0).c_acctbal.cast("float64").mean().as_scalar()
    rich = chosen.filter(_.c_acctbal.cast("float64") > average)
    return (
        rich.anti_join(orders, rich.c_custkey == orders.o_custkey)
        .group_by("cntrycode")
        .agg(numcust=_.count(), totacctbal=_.c_acctbal.sum())
        .order_by("cntrycode")
    )
