// Runs the statements of a file, one after the other, and waits for each INSERT:
//     java -cp ... Run.java FILE [NAME=VALUE ...]
// where ${NAME} in the file becomes VALUE.

import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

public class Run {
    public static void main(String[] arguments) throws Exception {
        String text = Files.readString(Path.of(arguments[0]));
        Configuration configuration = new Configuration();
        for (int at = 1; at < arguments.length; at++) {
            String[] pair = arguments[at].split("=", 2);
            if (pair[0].contains(".")) {
                configuration.setString(pair[0], pair[1]);
            } else {
                text = text.replace("${" + pair[0] + "}", pair[1]);
            }
        }
        TableEnvironment tables = TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
        for (String statement : text.split(";\\s*(\n|$)")) {
            if (!statement.isBlank()) {
                var result = tables.executeSql(statement);
                if (statement.strip().startsWith("INSERT")) {
                    result.await();
                }
            }
        }
    }
}
