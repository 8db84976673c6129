// Recollect from Java, in one file and without a library. Scala and Kotlin call it as they call any class.
//
//     java Client.java [http://127.0.0.1:8080 [user [vector]]]
//
// shows a user's list, reports that its first item was bought, and shows the next list; then, given a vector as
// 0.12,-0.5 of the model's embedding space, the items nearest to it. The key in API_KEY is sent if it is set.

import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpTimeoutException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;

/** The service at one address. Threads may share it; it keeps connections open between calls. */
public final class Client {
    /** An answer other than 2xx, with the sentence that says what is wrong. */
    public static final class Refused extends IOException {
        public final int status;

        Refused(int status, String detail) {
            super(detail == null ? "Status " + status + "." : status + ": " + detail);
            this.status = status;
        }
    }

    /** An item of a list; fields has what was asked for and is known. */
    public record Item(String id, double score, String source, Map<String, Object> fields) {}

    /** A list; degraded is null unless the service lacked something, and events counts those that the list reflects. */
    public record Listed(String recommendationId, List<Item> items, String degraded, long events) {}

    /** Items near a vector, best first, with their scores. */
    public record Candidates(String model, String embeddingSpace, List<String> itemIds, List<Double> scores) {}

    private static final Set<Integer> AGAIN = Set.of(502, 503, 504);
    private static final int ATTEMPTS = 2;

    private final String service;
    private final String key;
    private final Duration deadline;
    private final HttpClient http;

    public Client(String service, String key, Duration deadline) {
        this.service = service.replaceAll("/+$", "");
        this.key = key;
        this.deadline = deadline;
        this.http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(deadline).build();
    }

    public static void main(String[] arguments) throws Exception {
        String service = arguments.length > 0 ? arguments[0] : "http://127.0.0.1:8080";
        String user = arguments.length > 1 ? arguments[1] : "42";
        Client client = new Client(service, System.getenv("API_KEY"), Duration.ofSeconds(3));

        Listed list = client.recommend(Map.of("user_id", user, "n", 5, "fields", List.of("title")));
        print(list);
        client.send(Map.of("type", "purchase", "user_id", user, "item_id", list.items().get(0).id(),
            "recommendation_id", list.recommendationId(), "position", 0));
        // The replica that accepted the event reflects it at once, every other one within a second.
        Listed next = list;
        for (int look = 0; next.events() == list.events(); look++) {
            if (look == 20) throw new IllegalStateException("The list does not reflect the purchase.");
            if (look > 0) Thread.sleep(100);
            next = client.recommend(Map.of("user_id", user, "n", 5, "fields", List.of("title")));
        }
        print(next);
        if (arguments.length > 2) {
            List<Double> vector = Arrays.stream(arguments[2].split(",")).map(Double::valueOf).toList();
            Object space = client.call("GET", "/v1/model", null).get("embedding_space");
            Candidates near = client.candidates(Map.of("vector", vector, "embedding_space", space, "n", 5));
            for (int i = 0; i < near.itemIds().size(); i++) {
                System.out.printf("%s\t%.3f%n", near.itemIds().get(i), near.scores().get(i));
            }
        }
    }

    private static void print(Listed list) {
        for (Item item : list.items()) {
            System.out.printf("%s\t%.3f\t%s%n", item.id(), item.score(), item.fields().getOrDefault("title", ""));
        }
        System.out.println();
    }

    /** A user's list: the fields of POST /v1/recommendations. */
    public Listed recommend(Map<String, ?> request) throws IOException, InterruptedException {
        Map<String, Object> answer = call("POST", "/v1/recommendations", request);
        List<Item> items = new ArrayList<>();
        for (Object each : (List<?>) answer.get("items")) {
            Map<String, Object> item = object(each);
            Map<String, Object> fields = item.get("fields") == null ? Map.of() : object(item.get("fields"));
            double score = ((Number) item.get("score")).doubleValue();
            items.add(new Item((String) item.get("item_id"), score, (String) item.get("source"), fields));
        }
        long events = ((Number) object(answer.get("freshness")).get("events_applied")).longValue();
        return new Listed((String) answer.get("recommendation_id"), items, (String) answer.get("degraded"), events);
    }

    /** The items nearest to a vector: the fields of POST /v1/candidates. A vector of another space is refused with 409. */
    public Candidates candidates(Map<String, ?> request) throws IOException, InterruptedException {
        Map<String, Object> answer = call("POST", "/v1/candidates", request);
        List<String> ids = ((List<?>) answer.get("item_ids")).stream().map(String.class::cast).toList();
        List<Double> scores = ((List<?>) answer.get("scores")).stream().map(each -> ((Number) each).doubleValue()).toList();
        return new Candidates((String) answer.get("model"), (String) answer.get("embedding_space"), ids, scores);
    }

    /** Reports events, all of them or none; sent again under the same key they count once. */
    @SafeVarargs
    public final void send(Map<String, ?>... events) throws IOException, InterruptedException {
        call("POST", "/v1/events", Map.of("events", List.of(events)));
    }

    /** What is known of an item. */
    public Map<String, Object> item(String id) throws IOException, InterruptedException {
        return call("GET", "/v1/items/" + URLEncoder.encode(id, StandardCharsets.UTF_8).replace("+", "%20"), null);
    }

    /**
     * Any route, JSON in and out. After a broken connection, 502, 503 or 504 it is tried once more, with the same body
     * and the same key, after a 503 when its Retry-After has passed. The deadline bounds both attempts and the pause
     * together; if no time is left for the pause, the first failure is thrown. HttpClient itself repeats a GET once whose
     * connection ends without an answer.
     */
    public Map<String, Object> call(String method, String path, Object body) throws IOException, InterruptedException {
        long until = System.nanoTime() + deadline.toNanos();
        String content = body == null ? "" : Json.write(body);
        String idempotencyKey = UUID.randomUUID().toString();
        for (int attempt = 1; ; attempt++) {
            IOException failure;
            double pauseMs = 10 + 40 * ThreadLocalRandom.current().nextDouble();
            Duration left = Duration.ofNanos(Math.max(until - System.nanoTime(), 1));
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(service + path)).timeout(left)
                .header("Content-Type", "application/json").header("Idempotency-Key", idempotencyKey)
                .method(method, HttpRequest.BodyPublishers.ofString(content));
            if (key != null) request.header("Authorization", "Bearer " + key);
            try {
                HttpResponse<String> response = http.send(request.build(), HttpResponse.BodyHandlers.ofString());
                int status = response.statusCode();
                if (status < 300) return object(Json.read(response.body()));
                failure = new Refused(status, detail(response.body()));
                if (!AGAIN.contains(status)) throw failure;
                String after = response.headers().firstValue("Retry-After").orElse("");
                if (status == 503 && after.matches("\\d{1,6}")) pauseMs += 1000 * Integer.parseInt(after);
            } catch (Refused refused) {
                throw refused;
            } catch (HttpTimeoutException error) {
                failure = new HttpTimeoutException(method + " " + path + " was not answered within " + deadline.toMillis() + " ms.");
            } catch (IOException error) {
                failure = new IOException(method + " " + path + " was not answered (" + error.getMessage() + ").", error);
            }
            if (attempt == ATTEMPTS || System.nanoTime() + pauseMs * 1e6 >= until) throw failure;
            Thread.sleep(Math.round(pauseMs));
        }
    }

    /** What the service says is wrong; null if the answer is of something else on the way, as a proxy's page is. */
    private static String detail(String body) {
        try {
            return (String) object(Json.read(body)).get("detail");
        } catch (RuntimeException unlike) {
            return null;
        }
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> object(Object value) {
        return (Map<String, Object>) value;
    }

    /** JSON as Map, List, String, Long, Double, Boolean and null; the JDK has no reader of its own. */
    static final class Json {
        private final String text;
        private int at;

        private Json(String text) {
            this.text = text;
        }

        static Object read(String text) {
            Json json = new Json(text);
            Object value = json.value();
            if (json.peek() != 0) throw json.wrong();
            return value;
        }

        static String write(Object value) {
            StringBuilder out = new StringBuilder();
            write(value, out);
            return out.toString();
        }

        private static void write(Object value, StringBuilder out) {
            String separator = "";
            if (value instanceof Map<?, ?> map) {
                out.append('{');
                for (Map.Entry<?, ?> entry : map.entrySet()) {
                    out.append(separator);
                    quote(entry.getKey().toString(), out);
                    out.append(':');
                    write(entry.getValue(), out);
                    separator = ",";
                }
                out.append('}');
            } else if (value instanceof Iterable<?> list) {
                out.append('[');
                for (Object each : list) {
                    out.append(separator);
                    write(each, out);
                    separator = ",";
                }
                out.append(']');
            } else if (value instanceof CharSequence string) {
                quote(string.toString(), out);
            } else {
                out.append(value);
            }
        }

        private static void quote(String string, StringBuilder out) {
            out.append('"');
            for (char c : string.toCharArray()) {
                if (c == '"' || c == '\\') out.append('\\').append(c);
                else if (c < ' ') out.append(String.format("\\u%04x", (int) c));
                else out.append(c);
            }
            out.append('"');
        }

        private char peek() {
            while (at < text.length() && " \n\r\t".indexOf(text.charAt(at)) >= 0) at++;
            return at < text.length() ? text.charAt(at) : 0;
        }

        private boolean skip(char expected) {
            if (peek() != expected) return false;
            at++;
            return true;
        }

        private void take(char expected) {
            if (!skip(expected)) throw wrong();
        }

        private IllegalArgumentException wrong() {
            return new IllegalArgumentException("Not JSON at position " + at);
        }

        private Object value() {
            switch (peek()) {
                case '{': return members();
                case '[': return elements();
                case '"': return string();
                case 't': return word("true", true);
                case 'f': return word("false", false);
                case 'n': return word("null", null);
                default: return number();
            }
        }

        private Map<String, Object> members() {
            Map<String, Object> members = new LinkedHashMap<>();
            take('{');
            if (skip('}')) return members;
            do {
                peek();
                String name = string();
                take(':');
                members.put(name, value());
            } while (skip(','));
            take('}');
            return members;
        }

        private List<Object> elements() {
            List<Object> elements = new ArrayList<>();
            take('[');
            if (skip(']')) return elements;
            do elements.add(value());
            while (skip(','));
            take(']');
            return elements;
        }

        private Object word(String word, Object value) {
            if (!text.startsWith(word, at)) throw wrong();
            at += word.length();
            return value;
        }

        private Number number() {
            int start = at;
            while (at < text.length() && "+-.0123456789Ee".indexOf(text.charAt(at)) >= 0) at++;
            String digits = text.substring(start, at);
            if (digits.isEmpty()) throw wrong();
            if (digits.matches("-?\\d{1,18}")) return Long.valueOf(digits);
            return Double.valueOf(digits);
        }

        private String string() {
            StringBuilder out = new StringBuilder();
            take('"');
            while (at < text.length() && text.charAt(at) != '"') {
                char c = text.charAt(at++);
                if (c != '\\') {
                    out.append(c);
                    continue;
                }
                char escaped = at < text.length() ? text.charAt(at++) : 0;
                switch (escaped) {
                    case 'b': out.append('\b'); break;
                    case 'f': out.append('\f'); break;
                    case 'n': out.append('\n'); break;
                    case 'r': out.append('\r'); break;
                    case 't': out.append('\t'); break;
                    case 'u':
                        out.append((char) Integer.parseInt(text.substring(at, at + 4), 16));
                        at += 4;
                        break;
                    default: out.append(escaped);
                }
            }
            take('"');
            return out.toString();
        }
    }
}
