//! What is measured: aggregations over columns of `lineitem`, as plans of kernels.

use bowshot_kernels::{Aggregate, AggregateFunction, AggregatePlan, ArithmeticOp, ColumnType, CompareOp, Expr, Literal};

use crate::lineitem::{COLUMNS, DISCOUNT, EXTENDEDPRICE, KEY, LINESTATUS, QUANTITY, RETURNFLAG, SHIPDATE, TAX};
use crate::report::STEP;

/// 1994-01-01, 1995-01-01 and 1998-09-02 as days since 1970-01-01.
const YEAR_BEGIN: i128 = 8_766;
const YEAR_END: i128 = 9_131;
const LAST_SHIPPED: i128 = 10_471;

/// Products of prices: exact, as SQL has them.
const WIDE: ColumnType = ColumnType::Decimal128 { precision: 38, scale: 6 };

/// One aggregation.
pub struct Query {
    pub name: String,
    /// Columns of `lineitem`, in the plan's order.
    pub columns: Vec<usize>,
    pub plan: AggregatePlan,
}

impl Query {
    fn new(name: &str, columns: &[usize], filter: Option<Expr>, keys: Vec<usize>, aggregates: Vec<Aggregate>) -> Self {
        let types = columns.iter().map(|column| COLUMNS[*column].1).collect();
        Self { name: name.into(), columns: columns.to_vec(), plan: AggregatePlan { columns: types, filter, keys, aggregates } }
    }
}

/// All but the sweep; Q1 first, since it reads every column.
pub fn queries() -> Vec<Query> {
    let price = || Some(Expr::Column(0));
    vec![
        q1(),
        q6(),
        Query::new(
            "filter_count",
            &[SHIPDATE, DISCOUNT],
            Some(Expr::And(vec![compare(CompareOp::GtEq, 0, YEAR_BEGIN), compare(CompareOp::GtEq, 1, 5)])),
            vec![],
            vec![aggregate(AggregateFunction::CountStar, None)],
        ),
        Query::new("sum_quantity", &[QUANTITY], None, vec![], vec![aggregate(AggregateFunction::Sum, price())]),
        Query::new("sum_price", &[EXTENDEDPRICE], None, vec![], vec![aggregate(AggregateFunction::Sum, price())]),
        Query::new(
            "min_max_price",
            &[EXTENDEDPRICE, QUANTITY],
            // Without a filter statistics of the column have the answer.
            Some(compare(CompareOp::Lt, 1, 2_400)),
            vec![],
            vec![aggregate(AggregateFunction::Min, price()), aggregate(AggregateFunction::Max, price())],
        ),
    ]
}

/// `SELECT k, sum(l_quantity), count(*) … GROUP BY k`; the key comes after the columns of `lineitem`.
pub fn sweep(cardinality: u64) -> Query {
    let aggregates = vec![aggregate(AggregateFunction::Sum, Some(Expr::Column(0))), aggregate(AggregateFunction::CountStar, None)];
    let mut query = Query::new(&format!("{STEP}{cardinality}"), &[QUANTITY], None, vec![1], aggregates);
    query.plan.columns.push(KEY);
    query
}

fn q6() -> Query {
    let filter = Expr::And(vec![
        compare(CompareOp::GtEq, 0, YEAR_BEGIN),
        compare(CompareOp::Lt, 0, YEAR_END),
        compare(CompareOp::GtEq, 1, 5),
        compare(CompareOp::LtEq, 1, 7),
        compare(CompareOp::Lt, 2, 2_400),
    ]);
    let revenue = arithmetic(ArithmeticOp::Mul, Expr::Column(3), Expr::Column(1));
    let aggregates = vec![aggregate(AggregateFunction::Sum, Some(revenue))];
    Query::new("q6", &[SHIPDATE, DISCOUNT, QUANTITY, EXTENDEDPRICE], Some(filter), vec![], aggregates)
}

/// Averages are sums and counts here: the caller divides.
fn q1() -> Query {
    let hundred = || Expr::Literal(Literal::Int(100));
    let discounted = || arithmetic(ArithmeticOp::Mul, Expr::Column(4), arithmetic(ArithmeticOp::Sub, hundred(), Expr::Column(1)));
    let charge = arithmetic(ArithmeticOp::Mul, discounted(), arithmetic(ArithmeticOp::Add, hundred(), Expr::Column(3)));
    let sums = [Expr::Column(2), Expr::Column(4), discounted(), charge, Expr::Column(1)];
    let mut aggregates: Vec<Aggregate> = sums.into_iter().map(|sum| aggregate(AggregateFunction::Sum, Some(sum))).collect();
    aggregates.push(aggregate(AggregateFunction::CountStar, None));
    let columns = [SHIPDATE, DISCOUNT, QUANTITY, TAX, EXTENDEDPRICE, RETURNFLAG, LINESTATUS];
    Query::new("q1", &columns, Some(compare(CompareOp::LtEq, 0, LAST_SHIPPED)), vec![5, 6], aggregates)
}

fn compare(op: CompareOp, column: usize, value: i128) -> Expr {
    Expr::Compare { op, left: Box::new(Expr::Column(column)), right: Box::new(Expr::Literal(Literal::Int(value))) }
}

fn arithmetic(op: ArithmeticOp, left: Expr, right: Expr) -> Expr {
    Expr::Arithmetic { op, left: Box::new(left), right: Box::new(right), result: WIDE }
}

fn aggregate(function: AggregateFunction, argument: Option<Expr>) -> Aggregate {
    Aggregate { function, argument, filter: None }
}
