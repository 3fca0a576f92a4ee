import { SmartcarToken } from "./smartcar-token.mjs";

const token = new SmartcarToken(process.env.TOKEN_SECRET_ID ?? "smartcar-token/access-token");
const url = process.env.SMARTCAR_API_URL ?? "https://vehicle.api.smartcar.com/v3";

const response = await token.fetch(`${url}/connections`);
if (!response.ok) throw new Error(`Smartcar answered ${response.status}`);
console.log(await response.json());
