import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.sql.*;
import java.util.*;

/**
 * What the JDBC driver sees of a server, told as lines of tab-separated fields; test_jdbc.py says what they should be.
 *
 * <pre>java -cp flight-sql-jdbc-driver.jar JdbcDriver.java URL COMMAND [argument…]</pre>
 */
public final class JdbcDriver {
    private final Connection connection;

    private JdbcDriver(Connection connection) {
        this.connection = connection;
    }

    public static void main(String[] arguments) throws Exception {
        Class.forName("org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver");
        int code = 0;
        try {
            Connection connection = DriverManager.getConnection(arguments[0]);
            new JdbcDriver(connection).run(arguments[1], Arrays.copyOfRange(arguments, 2, arguments.length));
            close(connection);
        } catch (SQLException error) {
            tell("error", error.getSQLState(), error.getMessage());
        } catch (Exception error) {
            error.printStackTrace();
            code = 1;
        }
        // A connection that did not close leaves a thread that would keep the process.
        System.exit(code);
    }

    private void run(String command, String[] rest) throws Exception {
        switch (command) {
            case "metadata" -> metadata(rest[0], rest[1]);
            case "query" -> query(rest[0]);
            case "queries" -> queries(rest);
            case "update" -> updates(rest);
            case "types" -> types(rest[0]);
            case "columns" -> columns(rest[0]);
            case "parameters" -> parameters();
            case "batch" -> batch(Integer.parseInt(rest[0]));
            case "cancel" -> cancel(rest[0]);
            case "many" -> many(rest[0]);
            case "browse" -> browse(rest[0], rest[1]);
            default -> throw new IllegalArgumentException(command);
        }
    }

    private static void close(Connection connection) {
        try {
            connection.close();
        } catch (SQLException | IllegalStateException error) {
            // What a cancelled stream had read ahead is not always given back by the driver, which says so here.
            tell("close failed", error.getMessage());
        }
    }

    /** One line of the answer. Tabs and line ends inside of a field are spaces. */
    private static void tell(Object... fields) {
        StringJoiner line = new StringJoiner("\t");
        for (Object field : fields) {
            line.add(String.valueOf(field).replaceAll("[\t\r\n]+", " "));
        }
        System.out.println(line);
    }

    /** Calls every method of DatabaseMetaData with arguments that name a table that is there. */
    private void metadata(String schema, String table) throws Exception {
        DatabaseMetaData metadata = connection.getMetaData();
        Method[] methods = DatabaseMetaData.class.getMethods();
        Arrays.sort(methods, Comparator.comparing(Method::getName).thenComparing(Method::getParameterCount));
        for (Method method : methods) {
            if (method.getDeclaringClass() != DatabaseMetaData.class) {
                continue;
            }
            Object[] values = Arrays.stream(method.getParameterTypes()).map(JdbcDriver::someValue).toArray();
            name(method.getName(), values, schema, table);
            String called = method.getName() + "/" + values.length;
            try {
                Object result = method.invoke(metadata, values);
                if (result instanceof ResultSet found) {
                    tell("rows", called, count(found));
                } else {
                    tell("value", called, result instanceof Connection ? "connection" : result);
                }
            } catch (InvocationTargetException error) {
                tell("failed", called, error.getCause().getClass().getSimpleName(), error.getCause().getMessage());
            }
        }
    }

    private static Object someValue(Class<?> type) {
        if (type == int.class) {
            return 1;
        }
        if (type == boolean.class) {
            return false;
        }
        return null;
    }

    /** Puts schema and table where a method takes them. */
    private static void name(String method, Object[] values, String schema, String table) {
        if (method.equals("getCrossReference")) {
            values[1] = schema;
            values[2] = table;
            values[4] = schema;
            values[5] = table;
        } else if (values.length >= 3 && method.startsWith("get") && !method.equals("getUDTs")) {
            values[1] = schema;
            values[2] = table;
        }
    }

    /** Reads and closes a result: how many rows it had. */
    private static int count(ResultSet result) throws SQLException {
        int rows = 0;
        try (ResultSet found = result) {
            while (found.next()) {
                rows++;
            }
        }
        return rows;
    }

    /** What the columns of a result are said to be: of the plain statement, of the prepared one, and of its result. */
    private void columns(String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            columns(found.getMetaData());
        }
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            columns(statement.getMetaData());
            try (ResultSet found = statement.executeQuery()) {
                columns(found.getMetaData());
            }
        }
    }

    private static void columns(ResultSetMetaData columns) throws SQLException {
        for (int column = 1; column <= columns.getColumnCount(); column++) {
            tell(columns.getColumnLabel(column), columns.getColumnTypeName(column), columns.getPrecision(column), columns.getScale(column));
        }
    }

    private void query(String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            ResultSetMetaData columns = found.getMetaData();
            while (found.next()) {
                Object[] row = new Object[columns.getColumnCount()];
                for (int column = 1; column <= row.length; column++) {
                    row[column - 1] = found.getObject(column);
                }
                tell(row);
            }
        }
    }

    /** Rows of several queries, each behind the number of its query. */
    private void queries(String[] all) throws SQLException {
        for (int number = 0; number < all.length; number++) {
            try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(all[number])) {
                int columns = found.getMetaData().getColumnCount();
                while (found.next()) {
                    Object[] row = new Object[columns + 1];
                    row[0] = number;
                    for (int column = 1; column <= columns; column++) {
                        row[column] = found.getObject(column);
                    }
                    tell(row);
                }
            }
        }
    }

    private void updates(String[] statements) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            for (String sql : statements) {
                tell("updated", statement.executeUpdate(sql));
            }
        }
    }

    /** Types of a query's columns, and each value as an object and as text. */
    private void types(String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            ResultSetMetaData columns = found.getMetaData();
            while (found.next()) {
                for (int column = 1; column <= columns.getColumnCount(); column++) {
                    Object value = found.getObject(column);
                    String type = value == null ? "null" : value.getClass().getSimpleName();
                    String text = found.getString(column);
                    tell(columns.getColumnLabel(column), JDBCType.valueOf(columns.getColumnType(column)), type, text, found.wasNull());
                }
            }
        }
    }

    /** A statement of twelve parameters of twelve types, with values and then with NULLs. */
    private void parameters() throws SQLException {
        String sql = "INSERT INTO twelve VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            tell("parameters", statement.getParameterMetaData().getParameterCount());
            statement.setBoolean(1, true);
            statement.setByte(2, (byte) -8);
            statement.setShort(3, (short) -16);
            statement.setInt(4, -32);
            statement.setLong(5, -64L);
            statement.setFloat(6, 1.5f);
            statement.setDouble(7, 2.25);
            statement.setBigDecimal(8, new BigDecimal("123.45"));
            statement.setString(9, "text é");
            statement.setBytes(10, new byte[] {0, (byte) 0xff});
            statement.setDate(11, java.sql.Date.valueOf("2024-02-29"));
            statement.setTimestamp(12, Timestamp.valueOf("2024-02-29 01:02:03.456"));
            tell("updated", statement.executeUpdate());
            int[] kinds = {Types.BOOLEAN, Types.TINYINT, Types.SMALLINT, Types.INTEGER, Types.BIGINT, Types.REAL, Types.DOUBLE, Types.DECIMAL,
                Types.VARCHAR, Types.VARBINARY, Types.DATE, Types.TIMESTAMP};
            for (int parameter = 1; parameter <= kinds.length; parameter++) {
                statement.setNull(parameter, kinds[parameter - 1]);
            }
            tell("updated", statement.executeUpdate());
        }
    }

    private void batch(int rows) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO batched VALUES (?, ?)")) {
            for (int row = 0; row < rows; row++) {
                statement.setInt(1, row);
                statement.setString(2, "row " + row);
                statement.addBatch();
            }
            tell("batched", Arrays.stream(statement.executeBatch()).sum());
        }
    }

    /** Cancels a query from another thread while its rows are read. */
    private void cancel(String sql) throws Exception {
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(500);
                    statement.cancel();
                } catch (InterruptedException | SQLException error) {
                    tell("cancel failed", error);
                }
            });
            other.start();
            long began = System.nanoTime();
            try {
                tell("read", count(found));
            } catch (SQLException error) {
                tell("cancelled", error.getSQLState(), error.getMessage());
            } catch (RuntimeException error) {
                // By chance the driver passes on what its transport says.
                tell("cancelled", error.getClass().getSimpleName(), error.getMessage());
            }
            tell("milliseconds", (System.nanoTime() - began) / 1_000_000);
            other.join();
        }
    }

    /** Reads all rows of a query, and tells the most memory that was in use meanwhile. */
    private void many(String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery(sql)) {
            Runtime runtime = Runtime.getRuntime();
            long rows = 0;
            long sum = 0;
            long most = 0;
            while (found.next()) {
                sum += found.getLong(1);
                if (rows++ % 100_000 == 0) {
                    most = Math.max(most, runtime.totalMemory() - runtime.freeMemory());
                }
            }
            tell("rows", rows, "sum", sum, "bytes", most);
        }
    }

    /** One question of a database browser. */
    private interface Question {
        Object ask() throws SQLException;
    }

    private static void step(String name, Question question) {
        try {
            tell("step", name, question.ask());
        } catch (SQLException | RuntimeException error) {
            tell("failed", name, error.getMessage());
        }
    }

    /** What DBeaver asks through its generic driver: when it connects, when a table is opened, when its data are shown. */
    private void browse(String schema, String table) throws Exception {
        DatabaseMetaData metadata = connection.getMetaData();
        step("valid", () -> connection.isValid(5));
        step("autocommit", connection::getAutoCommit);
        step("read only", connection::isReadOnly);
        step("isolation", connection::getTransactionIsolation);
        step("catalog", connection::getCatalog);
        step("schema", connection::getSchema);
        step("product", () -> metadata.getDatabaseProductName() + " " + metadata.getDatabaseProductVersion());
        step("driver", () -> metadata.getDriverName() + " " + metadata.getDriverVersion());
        step("terms", () -> metadata.getCatalogTerm() + " " + metadata.getSchemaTerm() + " " + metadata.getProcedureTerm());
        step("transactions", metadata::supportsTransactions);
        step("batches", metadata::supportsBatchUpdates);
        step("quote", metadata::getIdentifierQuoteString);
        step("keywords", () -> metadata.getSQLKeywords().length() > 0);
        step("functions", () -> metadata.getNumericFunctions().contains("ABS") && metadata.getStringFunctions().contains("UPPER")
            && metadata.getTimeDateFunctions().contains("NOW") && metadata.getSystemFunctions() != null);
        step("escape", metadata::getSearchStringEscape);
        step("separator", () -> metadata.getCatalogSeparator() + metadata.isCatalogAtStart());
        step("cases", () -> metadata.storesLowerCaseIdentifiers() + " " + metadata.supportsMixedCaseQuotedIdentifiers());
        step("schemas in statements", () -> metadata.supportsSchemasInDataManipulation() && metadata.supportsSchemasInTableDefinitions());
        step("types", () -> names(metadata.getTypeInfo(), "TYPE_NAME"));
        step("table types", () -> names(metadata.getTableTypes(), "TABLE_TYPE"));
        step("catalogs", () -> names(metadata.getCatalogs(), "TABLE_CAT"));
        step("schemas", () -> names(metadata.getSchemas("bowshot", null), "TABLE_SCHEM"));
        step("tables", () -> names(metadata.getTables("bowshot", schema, "%", null), "TABLE_NAME"));
        step("columns", () -> names(metadata.getColumns("bowshot", schema, table, "%"), "COLUMN_NAME"));
        step("column types", () -> names(metadata.getColumns("bowshot", schema, table, "%"), "TYPE_NAME"));
        step("primary key", () -> names(metadata.getPrimaryKeys("bowshot", schema, table), "COLUMN_NAME"));
        step("imported keys", () -> names(metadata.getImportedKeys("bowshot", schema, table), "PKTABLE_NAME"));
        step("exported keys", () -> names(metadata.getExportedKeys("bowshot", schema, table), "FKTABLE_NAME"));
        step("indexes", () -> names(metadata.getIndexInfo("bowshot", schema, table, false, true), "INDEX_NAME"));
        step("procedures", () -> names(metadata.getProcedures("bowshot", schema, "%"), "PROCEDURE_NAME"));
        try (Statement statement = connection.createStatement()) {
            step("fetch size", () -> { statement.setFetchSize(200); return statement.getFetchSize() >= 0; });
            step("most rows", () -> { statement.setMaxRows(200); return statement.getMaxRows(); });
            step("execute", () -> statement.execute("SELECT * FROM \"" + schema + "\".\"" + table + "\""));
            try (ResultSet found = statement.getResultSet()) {
                ResultSetMetaData columns = found.getMetaData();
                StringJoiner described = new StringJoiner(", ");
                for (int column = 1; column <= columns.getColumnCount(); column++) {
                    described.add(columns.getColumnLabel(column) + " " + columns.getColumnType(column) + " " + columns.isNullable(column));
                }
                tell("step", "result", described);
                tell("step", "rows", count(found));
            }
            step("more results", () -> statement.getMoreResults() || statement.getUpdateCount() > 0);
            step("warnings", statement::getWarnings);
        }
    }

    private static String names(ResultSet found, String column) throws SQLException {
        StringJoiner names = new StringJoiner(",");
        try (found) {
            while (found.next()) {
                names.add(found.getString(column));
            }
        }
        return names.toString();
    }
}
