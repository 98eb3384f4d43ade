import com.amazon.randomcutforest.RandomCutForest;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * AWS's library on the points of the bench: `ready` when it is trained and compiled, then for each line
 * of standard input the CPU nanoseconds a point. It knows one point at a time only.
 */
public class AwsForest {
    static final int SLICE = 2_000;

    public static void main(String[] arguments) throws IOException {
        int features = Integer.parseInt(arguments[1]);
        float[][] training = read(Path.of(arguments[0], "training-" + features + ".csv"));
        float[][] queries = read(Path.of(arguments[0], "queries-" + features + ".csv"));
        RandomCutForest forest = RandomCutForest.builder().dimensions(features).numberOfTrees(100)
                .sampleSize(256).randomSeed(42).parallelExecutionEnabled(false).build();
        for (float[] point : training) {
            forest.update(point);
        }
        var threads = ManagementFactory.getThreadMXBean();
        double sum = 0;
        int next = 0;
        for (int warmUp = 0; warmUp < 20; warmUp++) {
            for (int i = 0; i < SLICE; i++) {
                sum += forest.getAnomalyScore(queries[next++ % queries.length]);
            }
        }
        System.out.println("ready");
        var lines = new BufferedReader(new InputStreamReader(System.in));
        while (lines.readLine() != null) {
            long start = threads.getCurrentThreadCpuTime();
            for (int i = 0; i < SLICE; i++) {
                sum += forest.getAnomalyScore(queries[next++ % queries.length]);
            }
            long taken = (threads.getCurrentThreadCpuTime() - start) / SLICE;
            System.out.println(taken + " " + taken);
        }
        // So that no score is computed for nothing.
        System.err.println("mean score " + sum / next);
    }

    static float[][] read(Path path) throws IOException {
        try (var lines = Files.lines(path)) {
            return lines.map(line -> {
                String[] cells = line.split(",");
                float[] point = new float[cells.length];
                for (int i = 0; i < cells.length; i++) {
                    point[i] = Float.parseFloat(cells[i]);
                }
                return point;
            }).toArray(float[][]::new);
        }
    }
}
