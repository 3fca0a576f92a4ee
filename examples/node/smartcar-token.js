import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";

const CACHE_SECONDS = 300;
const MARGIN_SECONDS = 60;
const RETRY_SECONDS = 10;

/** The secret has no token that is still valid, or cannot be read and none is at hand. */
export class NoValidTokenError extends Error {
  name = "NoValidTokenError";
}

/**
 * Reads the published token when it is needed, for any number of requests at the same time.
 *
 * A token is kept for 5 minutes, and not beyond a minute before it expires. It is read once more when
 * the API answers 401, and the request repeated if there is another. While the secret cannot be read,
 * a token that is still valid stays in use.
 */
export class SmartcarToken {
  #token = { access_token: "", expires_at: 0 };
  #readAgainAt = 0;
  /** @type {Promise<void> | undefined} */
  #reading;

  /**
   * @param {string} secretId name or ARN of the token secret
   * @param {object} [options]
   * @param {SecretsManagerClient} [options.client] without one, the usual one
   * @param {() => number} [options.clock] returns the Unix time in seconds
   */
  constructor(secretId, { client = new SecretsManagerClient(), clock = () => Date.now() / 1000 } = {}) {
    this.secretId = secretId;
    this.client = client;
    this.clock = clock;
  }

  /**
   * Send a request with the token, and once more if that was refused and there is another.
   *
   * @param {string | URL} url
   * @param {RequestInit} [init] its body has to be one that can be sent twice, so no stream
   * @returns {Promise<Response>}
   */
  async fetch(url, init = {}) {
    const token = await this.get();
    const response = await fetch(url, withToken(token, init));
    if (response.status !== 401) return response;
    const newer = await this.get(token);
    if (newer === token) return response;
    await response.body?.cancel();
    return fetch(url, withToken(newer, init));
  }

  /**
   * Return a valid access token: the one at hand, unless it is old or the API has refused it.
   *
   * @param {string} [refused]
   * @returns {Promise<string>}
   * @throws {NoValidTokenError} there is none
   */
  async get(refused) {
    if (this.clock() >= this.#readAgainAt || this.#token.access_token === refused) {
      this.#reading ??= this.#read().finally(() => (this.#reading = undefined));
      await this.#reading;
    }
    if (this.clock() >= this.#token.expires_at) {
      throw new NoValidTokenError(`secret ${this.secretId} holds no valid token`);
    }
    return this.#token.access_token;
  }

  async #read() {
    const now = this.clock();
    try {
      const secret = await this.client.send(new GetSecretValueCommand({ SecretId: this.secretId }));
      this.#token = JSON.parse(secret.SecretString ?? "");
    } catch (error) {
      if (now >= this.#token.expires_at) {
        throw new NoValidTokenError(`secret ${this.secretId} cannot be read`, { cause: error });
      }
      this.#readAgainAt = now + RETRY_SECONDS;
      return;
    }
    this.#readAgainAt = Math.min(now + CACHE_SECONDS, this.#token.expires_at - MARGIN_SECONDS);
  }
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
