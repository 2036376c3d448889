// Runs GrowthBook's own JavaScript SDK, unmodified: client.js HOST CLIENT_KEY DECRYPTION_KEY FEATURE
//
// Prints a line of JSON with the feature's value when it is loaded and whenever it changes, until standard input ends.
"use strict";

const { GrowthBook, setPolyfills } = require("@growthbook/growthbook");
setPolyfills({
  fetch: globalThis.fetch,
  EventSource: require("eventsource"),
  SubtleCrypto: require("node:crypto").webcrypto.subtle,
});

const [apiHost, clientKey, decryptionKey, feature] = process.argv.slice(2);
const growthbook = new GrowthBook({
  apiHost,
  clientKey,
  decryptionKey: decryptionKey || undefined,
  attributes: { id: "user-1" },
});
let last;

function tell() {
  const line = JSON.stringify({ value: growthbook.getFeatureValue(feature, null) });
  if (line !== last) {
    last = line;
    process.stdout.write(line + "\n");
  }
}

growthbook.setRenderer(tell);
growthbook
  .init({ streaming: true, timeout: 20000 })
  .then((result) => {
    if (!result.success) throw result.error || new Error("nothing was loaded");
    tell();
  })
  .catch((error) => {
    process.stderr.write(`${error.stack || error}\n`);
    process.exit(1);
  });
process.stdin.resume().on("end", () => process.exit(0));
