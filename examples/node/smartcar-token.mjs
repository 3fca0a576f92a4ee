import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";

const CACHE_SECONDS = 300;
const MARGIN_SECONDS = 60;
const RETRY_SECONDS = 10;
const READ_SECONDS = 10;

/** By default, the SDK waits without a limit. A read that takes longer than READ_SECONDS is aborted. */
const CLIENT_CONFIG = {
  maxAttempts: 2,
  requestHandler: { connectionTimeout: 1000, socketTimeout: 3000 },
};

/** No valid token is cached, and the secret holds none or cannot be read. */
export class NoValidTokenError extends Error {
  name = "NoValidTokenError";
}

/**
 * Reads the token when it is needed, for any number of concurrent requests.
 *
 * A token is cached for 5 minutes, but only until one minute before it expires. After a 401, the secret
 * is read again, and the request is retried if the token has changed. Two reads are at least 10 seconds
 * apart, and each takes at most 10 seconds. While the secret cannot be read, a token that is still valid
 * stays in use.
 */
export class SmartcarToken {
  #token = { access_token: "", expires_at: 0 };
  #readAt = 0;
  /** @type {unknown} */
  #error;
  /** @type {Promise<void> | undefined} */
  #reading;

  /**
   * @param {string} secretId name or ARN of the token secret
   * @param {object} [options]
   * @param {SecretsManagerClient} [options.client] by default a new one
   * @param {() => number} [options.clock] returns the Unix time in seconds
   */
  constructor(secretId, { client = new SecretsManagerClient(CLIENT_CONFIG), clock = () => Date.now() / 1000 } = {}) {
    this.secretId = secretId;
    this.client = client;
    this.clock = clock;
  }

  /**
   * Send a request with the token; after a 401, retry it if the token has changed.
   *
   * @param {string | URL} url
   * @param {RequestInit} [init] its body must not be a stream, which cannot be sent twice
   * @returns {Promise<Response>}
   */
  async fetch(url, init = {}) {
    if (url instanceof Request) throw new TypeError("pass a URL and options: a Request cannot be sent twice");
    const token = await this.get("", init.signal);
    const response = await fetch(url, withToken(token, init));
    if (response.status !== 401) return response;
    const newer = await this.get(token, init.signal);
    if (newer === token) return response;
    await response.body?.cancel();
    return fetch(url, withToken(newer, init));
  }

  /**
   * Return a valid token; if possible, not the one that the API rejected.
   *
   * @param {string} [rejected]
   * @param {AbortSignal | null} [signal] ends the wait with its reason
   * @returns {Promise<string>}
   * @throws {NoValidTokenError} there is none
   */
  async get(rejected = "", signal) {
    // While one request reads, the others wait only if they have no usable token.
    const usable = this.#token.access_token !== rejected && this.clock() < this.#token.expires_at;
    if (this.#reading ? !usable : this.#isDue(rejected)) {
      this.#reading ??= this.#read().finally(() => (this.#reading = undefined));
      await unlessAborted(this.#reading, signal);
    }
    if (this.clock() < this.#token.expires_at) return this.#token.access_token;
    const problem = this.#error ? "cannot be read" : "holds no valid token";
    throw new NoValidTokenError(`secret ${this.secretId} ${problem}`, { cause: this.#error });
  }

  /** @param {string} rejected */
  #isDue(rejected) {
    const { access_token, expires_at } = this.#token;
    const now = this.clock();
    const age = Math.abs(now - this.#readAt); // the clock may have been set back
    const isOld = age >= CACHE_SECONDS || now >= expires_at - MARGIN_SECONDS;
    return age >= RETRY_SECONDS && (isOld || access_token === rejected || this.#error !== undefined);
  }

  async #read() {
    try {
      const abortSignal = AbortSignal.timeout(READ_SECONDS * 1000);
      const command = new GetSecretValueCommand({ SecretId: this.secretId });
      // By itself, `send` does not end at an abort while it waits for credentials.
      const secret = await unlessAborted(this.client.send(command, { abortSignal }), abortSignal);
      this.#token = parse(secret.SecretString ?? "");
      this.#error = undefined;
    } catch (error) {
      this.#error = error;
    }
    this.#readAt = this.clock();
  }
}

/**
 * Wait for a promise, but reject with the reason of the signal as soon as it is aborted.
 *
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal | null} [signal]
 * @returns {Promise<T>}
 */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal?.removeEventListener("abort", abort));
  });
}

/**
 * Return a published token; an error shows no part of the value.
 *
 * @param {string} value
 * @returns {{ access_token: string, expires_at: number }}
 */
function parse(value) {
  try {
    const { access_token, expires_at } = JSON.parse(value);
    const isToken = typeof access_token === "string" && /^[\w.~+/-]+=*$/.test(access_token);
    if (isToken && Number.isFinite(expires_at)) {
      return { access_token, expires_at };
    }
  } catch {
    // Not passed on: the message may show part of the value.
  }
  throw new Error("its value is not a published token");
}

/**
 * @param {string} token
 * @param {RequestInit} init
 * @returns {RequestInit}
 */
function withToken(token, init) {
  const headers = new Headers(init.headers);
  headers.set("Authorization", `Bearer ${token}`);
  return { ...init, headers };
}
