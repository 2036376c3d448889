// Runs OpenFeature's server SDK and its OFREP provider, unmodified: ofrep_server.js URL TOKEN FLAGS_JSON CONTEXT_JSON
//
// FLAGS_JSON maps a flag's key to the type it is read as. Prints lines of JSON: "fetch" for each request it has made,
// and "details" of all flags, first at once and then again for each line on standard input, until that ends. Such a
// line is {} or {"context":{…}}, which is the context from then on.
"use strict";

const { OpenFeature } = require("@openfeature/server-sdk");
const { OFREPProvider } = require("@openfeature/ofrep-provider");
const { commands, fail, print } = require("./lines.js");
const { DEFAULTS, TYPES } = require("./openfeature.js");

const [baseUrl, token, flagsJson, contextJson] = process.argv.slice(2);
const flags = JSON.parse(flagsJson);
let context = JSON.parse(contextJson);

async function fetchAndTell(request, init) {
  const asked = new URL(request.url);
  const told = { event: "fetch", method: request.method, path: asked.pathname };
  try {
    const response = await fetch(request, init);
    print({ ...told, status: response.status });
    return response;
  } catch (error) {
    print({ ...told, status: 0, error: error.name });
    throw error;
  }
}

const client = OpenFeature.getClient();

async function details() {
  const found = {};
  for (const [key, type] of Object.entries(flags)) {
    found[key] = await client[`get${TYPES[type]}Details`](key, DEFAULTS[type], context);
  }
  print({ event: "details", flags: found });
}

async function run() {
  await OpenFeature.setProviderAndWait(
    new OFREPProvider({
      baseUrl,
      headers: token ? [["Authorization", `Bearer ${token}`]] : [],
      fetchImplementation: fetchAndTell,
    }),
  );
  await details();
}

const started = run().catch(fail);
commands(
  async (line) => {
    await started;
    context = line.context || context;
    await details();
  },
  () => OpenFeature.close(),
);
