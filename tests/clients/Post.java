// Posts files with java.net.http.HttpClient: java Post.java VERSION MODE URL FILE...
// VERSION: default (which offers HTTP/2 by Upgrade: h2c) or http1. MODE: alone, kept or parallel.
// Prints a line a file, in their order: the status, a tab, the body.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.concurrent.CompletableFuture;

public class Post {
    static HttpClient client(String version) {
        if (version.equals("http1")) {
            return HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        }
        return HttpClient.newHttpClient();
    }

    static void print(HttpResponse<String> response) {
        System.out.println(response.statusCode() + "\t" + response.body());
    }

    public static void main(String[] arguments) throws Exception {
        String version = arguments[0], mode = arguments[1];
        HttpClient shared = client(version);
        var sent = new ArrayList<CompletableFuture<HttpResponse<String>>>();
        for (int each = 3; each < arguments.length; each++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[2]))
                    .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[each]))).build();
            HttpClient client = mode.equals("alone") ? client(version) : shared;
            var body = HttpResponse.BodyHandlers.ofString();
            if (mode.equals("parallel")) {
                sent.add(client.sendAsync(request, body));
            } else {
                print(client.send(request, body));
            }
        }
        for (var answer : sent) {
            print(answer.get());
        }
        System.exit(0);
    }
}
