// Recollect from JavaScript: one module without a package, for browsers and for Node.js 20 or later.

const AGAIN = [502, 503, 504];

/** An answer other than 2xx; the message is the sentence that says what is wrong. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `Status ${status}.`);
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
   * the same key; the deadline bounds both attempts together.
   */
  async call(method, path, body) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() };
    if (this.apiKey) headers.Authorization = `Bearer ${this.apiKey}`;
    const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(this.deadlineMs) };
    for (let again = true; ; again = false) {
      let pauseMs = 10 + 40 * Math.random();
      try {
        const response = await fetch(this.service + path, options);
        if (response.ok) return await response.json();
        if (!again || !AGAIN.includes(response.status)) {
          throw new Refused(response.status, await response.json().catch(() => ({})));
        }
        if (response.status === 503) pauseMs += 1000 * Number(response.headers.get("Retry-After"));
      } catch (error) {
        if (!again || error instanceof Refused || options.signal.aborted) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      options.signal.throwIfAborted();
    }
  }
}
