// Drives the Node.js example, which is copied next to it: for each line of standard input, writes a line of JSON.
// "get 100" sends 100 requests at once and writes their statuses or errors; "age 10" moves the clock by 10 s.
import { createInterface } from "node:readline";
import { inspect } from "node:util";

import { SmartcarToken } from "./smartcar-token.mjs";

let now = Date.now() / 1000;
const token = new SmartcarToken(process.env.TOKEN_SECRET_ID, { clock: () => now });
const get = () =>
  token.fetch(`${process.env.SMARTCAR_API_URL}/connections`).then(
    (response) => String(response.status),
    (error) => inspect(error),
  );

for await (const line of createInterface({ input: process.stdin })) {
  const [word, number] = line.split(" ");
  if (word === "age") now += Number(number);
  const requests = word === "get" ? Array.from({ length: Number(number) }, get) : [];
  console.log(JSON.stringify(await Promise.all(requests)));
}
