// Asks with the Node.js example what the lines of standard input say, and answers each with a line:
// "get" and "many N" with the statuses or the error, "age N" makes the clock go N seconds.
import { createInterface } from "node:readline";

import { SmartcarToken } from "../../examples/node/smartcar-token.js";

let seconds = 0;
const token = new SmartcarToken(process.env.TOKEN_SECRET_ID, {
  clock: () => Date.now() / 1000 + seconds,
});

for await (const line of createInterface({ input: process.stdin })) {
  const [word, number] = line.split(" ");
  if (word === "age") {
    seconds += Number(number);
    console.log(JSON.stringify([]));
    continue;
  }
  const requests = Array.from({ length: Number(number ?? 1) }, () =>
    token.fetch(`${process.env.SMARTCAR_API_URL}/connections`).then(
      (response) => response.status,
      (error) => `${error.name}: ${error.message}`,
    ),
  );
  console.log(JSON.stringify(await Promise.all(requests)));
}
