// Runs Unleash's own frontend SDK, unmodified: unleash.js URL TOKEN GET|POST FLAG USER_ID [PROPERTIES_JSON]
//
// Prints lines of JSON until standard input ends: "fetch" for each request it has made, "ready", "state" when it is
// ready and on each update, "sent" with the metrics that it has reported, "error", "recovered", "impression". A line of
// JSON on standard input, {"context":{…}}, replaces its context; {} has it print its "state".
"use strict";

const { UnleashClient } = require("unleash-proxy-client");
const { commands, fail, print } = require("./lines.js");

const [url, clientKey, mode, flag, userId, properties] = process.argv.slice(2);
if (mode !== "GET" && mode !== "POST") fail(new Error(`neither GET nor POST: ${mode}`));
// The SDK reports to the console what it tells by events too.
console.error = () => {};

async function fetchAndTell(input, options) {
  const asked = new URL(input);
  const told = {
    event: "fetch",
    method: options.method,
    path: asked.pathname,
    query: asked.search,
    ifNoneMatch: Boolean(options.headers["if-none-match"]),
  };
  try {
    const response = await fetch(input, options);
    print({ ...told, status: response.status, etag: response.headers.get("ETag") });
    return response;
  } catch (error) {
    print({ ...told, status: 0, error: error.name });
    throw error;
  }
}

const client = new UnleashClient({
  url,
  clientKey,
  appName: "stitchd-tests",
  refreshInterval: 1,
  metricsInterval: 2,
  metricsIntervalInitial: 1,
  usePOSTrequests: mode === "POST",
  context: { userId, properties: properties ? JSON.parse(properties) : undefined },
  fetch: fetchAndTell,
});

function state() {
  const all = client.getAllToggles().map((toggle) => toggle.name);
  print({ event: "state", enabled: client.isEnabled(flag), variant: client.getVariant(flag), all });
}

client.on("ready", () => {
  print({ event: "ready" });
  state();
});
client.on("update", state);
client.on("recovered", () => print({ event: "recovered" }));
client.on("sent", (data) => print({ event: "sent", data }));
client.on("impression", (data) => print({ event: "impression", data }));
client.on("error", (error) => {
  const cause = error && error.error;
  print({ event: "error", type: error.type, code: error.code, message: String((cause || error).message || "") });
});
client.start().catch(fail);
commands(async ({ context }) => {
  if (context) await client.updateContext(context);
  else state();
});
