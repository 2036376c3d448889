// Runs OpenFeature's web SDK and its OFREP provider, unmodified:
//   ofrep_web.js URL TOKEN FLAGS_JSON USER_ID poll|stream|both
//
// FLAGS_JSON maps a flag's key to the type it is read as (see `DEFAULTS`). With "poll" the provider takes no stream,
// with "stream" it never polls, with "both" it polls where it has no stream.
//
// Prints lines of JSON until standard input ends: "fetch" for each request it has made and "stream" for what happens on
// its stream, "ready" (or "failed"), "changed" for each change that the provider tells, "stale", "error", and "details"
// of all flags when it is ready and after each change. Lines of JSON on standard input: {"context":{…}} sets its
// context, after which it prints "details" again, as it does for {}.
"use strict";

const { EventSource } = require("eventsource-spec");
const { OpenFeature, ProviderEvents } = require("@openfeature/web-sdk");
const { OFREPWebProvider } = require("@openfeature/ofrep-web-provider");
const { commands, fail, print } = require("./lines.js");
const { DEFAULTS, MODES, TYPES } = require("./openfeature.js");

const [baseUrl, token, flagsJson, userId, mode] = process.argv.slice(2);
const flags = JSON.parse(flagsJson);
const options = MODES[mode];
if (!options) fail(new Error(`no such mode: ${mode}`));

async function fetchAndTell(request, init) {
  const asked = new URL(request.url);
  const told = {
    event: "fetch",
    method: request.method,
    path: asked.pathname,
    query: asked.search,
    ifNoneMatch: request.headers.has("If-None-Match"),
  };
  try {
    const response = await fetch(request, init);
    print({ ...told, status: response.status, etag: response.headers.get("ETag") });
    return response;
  } catch (error) {
    print({ ...told, status: 0, error: error.name });
    throw error;
  }
}

// What a browser has, and node does not.
globalThis.EventSource = class extends EventSource {
  constructor(url) {
    super(url, {
      fetch: async (input, init) => {
        const response = await fetch(input, init);
        const lastEventId = init.headers["Last-Event-ID"] || null;
        print({ event: "stream", what: "answer", path: new URL(input).pathname, status: response.status, lastEventId });
        return response;
      },
    });
    this.addEventListener("open", () => print({ event: "stream", what: "open" }));
    this.addEventListener("error", () => print({ event: "stream", what: "error", closed: this.readyState === 2 }));
    this.addEventListener("message", ({ data, lastEventId }) =>
      print({ event: "stream", what: "message", data, id: lastEventId }),
    );
  }

  close() {
    print({ event: "stream", what: "close" });
    super.close();
  }
};

const client = OpenFeature.getClient();

function details() {
  const found = {};
  for (const [key, type] of Object.entries(flags)) found[key] = client[`get${TYPES[type]}Details`](key, DEFAULTS[type]);
  print({ event: "details", flags: found });
}

client.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged, message }) => {
  print({ event: "changed", flags: flagsChanged, message });
  details();
});
client.addHandler(ProviderEvents.Stale, ({ message }) => print({ event: "stale", message }));
client.addHandler(ProviderEvents.Error, ({ message, errorCode }) => print({ event: "error", message, errorCode }));

async function run() {
  await OpenFeature.setContext({ targetingKey: userId });
  const provider = new OFREPWebProvider({
    ...options,
    baseUrl,
    headers: token ? [["Authorization", `Bearer ${token}`]] : [],
    fetchImplementation: fetchAndTell,
    // Node has no storage for it.
    cacheMode: "disabled",
  });
  try {
    await OpenFeature.setProviderAndWait(provider);
    print({ event: "ready" });
  } catch (error) {
    print({ event: "failed", name: error.name, message: error.message, cause: error.cause && error.cause.name });
  }
  details();
}

const started = run().catch(fail);
commands(
  async ({ context }) => {
    await started;
    if (context) await OpenFeature.setContext(context);
    details();
  },
  () => OpenFeature.close(),
);
