//! What arrow says of a value that a type does not hold, in the words of SQL.

/// The text in the words of SQL, with what to write; `None` of other texts.
pub fn in_sql(text: &str) -> Option<String> {
    let text = ["Compute error: ", "Arithmetic overflow: ", "Parser error: "]
        .iter()
        .fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    // Of a cast from an integer or a decimal to a decimal with more digits after the point: the factor says how many.
    if let Some((value, factor)) = text.strip_prefix("Overflow happened on: ").and_then(|rest| rest.split_once(" * ")) {
        let digits = factor.strip_prefix('1').filter(|zeros| !zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0'))?.len();
        return Some(format!("{value} is beyond DECIMAL(38, {digits}): CAST to fewer digits after the point, or AS DOUBLE"));
    }
    let of_type = |value: &str, name: &str| {
        let (name, wider) = match name {
            "Int8" => ("TINYINT", "BIGINT"),
            "Int16" => ("SMALLINT", "BIGINT"),
            "Int32" => ("INTEGER", "BIGINT"),
            "Int64" => ("BIGINT", "DECIMAL(38, 0)"),
            "UInt8" => ("TINYINT UNSIGNED", "BIGINT"),
            "UInt16" => ("SMALLINT UNSIGNED", "BIGINT"),
            "UInt32" => ("INTEGER UNSIGNED", "BIGINT"),
            "UInt64" => ("BIGINT UNSIGNED", "DECIMAL(38, 0)"),
            _ => return None,
        };
        Some(format!("{value} is beyond {name}: CAST AS {wider}"))
    };
    if let Some((value, name)) = text.strip_prefix("Can't cast value ").and_then(|rest| rest.split_once(" to type ")) {
        return of_type(value, name);
    }
    if let Some((value, name)) = text.strip_prefix("value of ").and_then(|rest| rest.split_once(" is out of range ")) {
        return of_type(value, name);
    }
    if let Some((name, call)) = text.split_once("Array overflow on ") {
        return of_type(call, name);
    }
    let (name, value) = text.strip_prefix("Cannot cast to Decimal")?.split_once(". Overflowing on ")?;
    let (_, digits) = name.split_once('(')?;
    Some(format!("{value} is beyond DECIMAL({digits}: CAST to fewer digits after the point, or AS DOUBLE"))
}

#[cfg(test)]
mod tests {
    use super::in_sql;

    #[test]
    fn arrow_s_texts_become_sql() {
        for (arrow, sql) in [
            (
                "Arithmetic overflow: Overflow happened on: -32768 * 100000000000000000000000000000000000",
                "-32768 is beyond DECIMAL(38, 35): CAST to fewer digits after the point, or AS DOUBLE",
            ),
            ("Compute error: Int32Array overflow on abs(-2147483648)", "abs(-2147483648) is beyond INTEGER: CAST AS BIGINT"),
            ("Can't cast value 2147483648 to type Int32", "2147483648 is beyond INTEGER: CAST AS BIGINT"),
            ("value of -1336581223138388 is out of range Int32", "-1336581223138388 is beyond INTEGER: CAST AS BIGINT"),
            (
                "Cannot cast to Decimal128(8, 4). Overflowing on NaN",
                "NaN is beyond DECIMAL(8, 4): CAST to fewer digits after the point, or AS DOUBLE",
            ),
        ] {
            assert_eq!(in_sql(arrow).as_deref(), Some(sql));
        }
        assert_eq!(in_sql("division by zero"), None);
        assert_eq!(in_sql("Overflow happened on: 3 * 7"), None);
    }
}
