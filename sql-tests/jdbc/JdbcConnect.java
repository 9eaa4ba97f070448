import java.sql.*;
import java.util.*;

/**
 * Connects with the JDBC driver and tells who it is to the server; test_auth_jdbc.py says what it should be. Properties come as
 * name=value, so that passwords stand in no URL.
 *
 * <pre>java -cp flight-sql-jdbc-driver.jar JdbcConnect.java URL SQL [name=value…]</pre>
 */
public final class JdbcConnect {
    private JdbcConnect() {}

    public static void main(String[] arguments) throws Exception {
        Class.forName("org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver");
        Properties properties = new Properties();
        for (String property : Arrays.copyOfRange(arguments, 2, arguments.length)) {
            String[] parts = property.split("=", 2);
            properties.setProperty(parts[0], parts[1]);
        }
        try (Connection connection = DriverManager.getConnection(arguments[0], properties);
                Statement statement = connection.createStatement();
                ResultSet found = statement.executeQuery(arguments[1])) {
            while (found.next()) {
                System.out.println("row\t" + found.getString(1));
            }
        } catch (SQLException | RuntimeException error) {
            System.out.println("refused\t" + causes(error));
        }
    }

    /** What went wrong, in one line: the driver wraps the server's words a few times. */
    private static String causes(Throwable error) {
        StringJoiner texts = new StringJoiner(" | ");
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            texts.add(String.valueOf(cause.getMessage()).replaceAll("[\t\r\n]+", " "));
        }
        return texts.toString();
    }
}
