// Lets Node.js reach loopback addresses only; the variable NODE_OPTIONS loads it.
const { Socket } = require("node:net");

const { connect } = Socket.prototype;
Socket.prototype.connect = function (...args) {
  const [target] = args.flat(); // net.connect passes an array
  const host = typeof target === "object" ? (target.host ?? "localhost") : args[1];
  if (!/^(localhost|::1|127(\.\d+){3})$/.test(host)) throw new Error(`tests reach loopback addresses only, not ${host}`);
  return connect.apply(this, args);
};
