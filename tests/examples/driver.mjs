// Drives the Node.js example: a line such as "100 0" sends 100 requests at once and writes their statuses or errors as
// JSON; "0 10" moves the clock by 10 seconds.
import { createInterface } from "node:readline";
import { inspect } from "node:util";

import { SmartcarToken } from "../../examples/node/smartcar-token.mjs";

let now = Date.now() / 1000;
const token = new SmartcarToken(process.env.TOKEN_SECRET_ID, { clock: () => now });
const get = () =>
  token.fetch(`${process.env.SMARTCAR_API_URL}/connections`).then(
    (response) => String(response.status),
    (error) => inspect(error),
  );

for await (const line of createInterface({ input: process.stdin })) {
  const [times, seconds] = line.split(" ").map(Number);
  now += seconds;
  console.log(JSON.stringify(await Promise.all(Array.from({ length: times }, get))));
}
