// Recollect from JavaScript: one module without a package, for browsers and for Node.js 20 or later.

const AGAIN = [502, 503, 504];
const ATTEMPTS = 2;

/** No answer came: the connection could not be made or broke, or the deadline passed; `cause` is the reason. */
export class Unanswered extends Error {}

/** An answer other than 2xx; the message is the sentence that says what is wrong. */
export class Refused extends Error {
  constructor(status, problem) {
    super(typeof problem.detail === "string" ? problem.detail : `Status ${status}.`);
    this.status = status;
    this.problem = problem;
  }
}

/** The service at one address. */
export class Client {
  constructor(service, { apiKey = null, deadlineMs = 3000 } = {}) {
    this.service = service.replace(/\/+$/, "");
    this.apiKey = apiKey;
    this.deadlineMs = deadlineMs;
  }

  /** A user's list: the fields of POST /v1/recommendations. */
  recommend(request) {
    return this.call("POST", "/v1/recommendations", request);
  }

  /** Reports events, all of them or none; sent again under the same key they count once. */
  send(...events) {
    return this.call("POST", "/v1/events", { events });
  }

  /** What is known of an item. */
  item(id) {
    return this.call("GET", `/v1/items/${encodeURIComponent(id)}`);
  }

  /** The served model, with the embedding space that vectors must be of. */
  model() {
    return this.call("GET", "/v1/model");
  }

  /** The items nearest to a vector: the fields of POST /v1/candidates. */
  candidates(request) {
    return this.call("POST", "/v1/candidates", request);
  }

  /**
   * Any route, JSON in and out. After a broken connection, 502, 503 or 504 it is tried once more, with the same body and
   * the same key, after a 503 when its Retry-After has passed. The deadline bounds both attempts and the pause together;
   * if no time is left for the pause, the first failure is thrown.
   */
  async call(method, path, body) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() };
    if (this.apiKey) headers.Authorization = `Bearer ${this.apiKey}`;
    const ends = performance.now() + this.deadlineMs;
    const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(this.deadlineMs) };
    for (let attempt = 1; ; attempt++) {
      let failure;
      let pauseMs = 10 + 40 * Math.random();
      try {
        const response = await fetch(this.service + path, options);
        if (response.ok) return await response.json();
        failure = new Refused(response.status, (await response.json().catch(() => null)) ?? {});
        if (!AGAIN.includes(response.status)) throw failure;
        if (response.status === 503) pauseMs += 1000 * (Number(response.headers.get("Retry-After")) || 0);
      } catch (error) {
        // An answer that is not JSON will be none the next time either.
        if (error === failure || error instanceof SyntaxError) throw error;
        const reason = options.signal.aborted ? `within ${this.deadlineMs} ms` : `(${error.cause?.message ?? error.message})`;
        failure = new Unanswered(`${method} ${path} was not answered ${reason}.`, { cause: error });
      }
      if (attempt === ATTEMPTS || performance.now() + pauseMs >= ends) throw failure;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}
