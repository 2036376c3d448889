// Runs both browser SDKs, unmodified, in Chromium, on a page of another origin than the service's:
//   browser.js UNLEASH_URL UNLEASH_TOKEN OFREP_URL OFREP_TOKEN FLAG [poll|stream|both]
//
// `STITCHD_TEST_CHROMIUM` is the browser (default /usr/bin/chromium); the last argument is as for ofrep_web.js.
//
// Prints lines of JSON until standard input ends: "unleash" and "ofrep" with the flag at first and after each change,
// "response" for each answer as JavaScript sees it, and "wire" for each as the network does, preflights and streams
// included ("wire" of the kind "message" is an event on a stream). Also "sent", "stale", "error", "failed", and
// "console" for what the browser complains of. Lines of JSON on standard input: {"context":{…}} sets the context of
// both SDKs, and {"reload":true} loads the page again.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { chromium } = require("playwright-core");
const { commands, fail, print } = require("./lines.js");
const { DEFAULTS, MODES, TYPES } = require("./openfeature.js");

const [unleashUrl, unleashToken, ofrepUrl, ofrepToken, flag, mode = "both"] = process.argv.slice(2);
if (!MODES[mode]) fail(new Error(`no such mode: ${mode}`));
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The build of a package that a browser loads as it is, beside the one that node would load. */
function build(name, file, from = __dirname) {
  return path.join(path.dirname(require.resolve(name, { paths: [from] })), file);
}

const provider = build("@openfeature/ofrep-web-provider", "index.esm.js");
const MODULES = {
  "@openfeature/core": build("@openfeature/core", "../esm/index.js"),
  "@openfeature/ofrep-core": build("@openfeature/ofrep-core", "index.esm.js", path.dirname(provider)),
  "@openfeature/ofrep-web-provider": provider,
  "@openfeature/web-sdk": build("@openfeature/web-sdk", "../esm/index.js"),
  "unleash-proxy-client": build("unleash-proxy-client", "main.esm.js"),
  page: path.join(__dirname, "page.js"),
};
const imports = Object.fromEntries(Object.keys(MODULES).map((name) => [name, `/${name}.js`]));
const PAGE = `<!doctype html>
<link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({ imports })}</script>
<script type="module">import "page";</script>
`;

function serve(request, response) {
  const found = Object.keys(MODULES).find((name) => imports[name] === request.url);
  if (found) {
    response.writeHead(200, { "Content-Type": "text/javascript" }).end(fs.readFileSync(MODULES[found]));
  } else if (request.url === "/") {
    response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(PAGE);
  } else {
    response.writeHead(404).end();
  }
}

/** Prints what the network sees of requests to the service; an answer's own status is only in its extra information. */
async function watchWire(page) {
  const ours = new Set([new URL(unleashUrl).origin, new URL(ofrepUrl).origin]);
  const session = await page.context().newCDPSession(page);
  const requests = new Map();
  const early = new Map();
  const tell = (id, status) => {
    const { method, url, kind } = requests.get(id);
    if (!ours.has(new URL(url).origin)) return;
    print({ event: "wire", kind, method, path: new URL(url).pathname, status });
  };
  session.on("Network.requestWillBeSent", ({ requestId, request, type }) => {
    requests.set(requestId, { method: request.method, url: request.url, kind: type });
    if (early.has(requestId)) tell(requestId, early.get(requestId));
    early.delete(requestId);
  });
  session.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) => {
    if (requests.has(requestId)) tell(requestId, statusCode);
    else early.set(requestId, statusCode);
  });
  session.on("Network.eventSourceMessageReceived", ({ eventName, eventId, data }) =>
    print({ event: "wire", kind: "message", name: eventName, id: eventId, data }),
  );
  await session.send("Network.enable");
}

let browser;

async function run() {
  const server = http.createServer(serve);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  browser = await chromium.launch({
    executablePath: process.env.STITCHD_TEST_CHROMIUM || "/usr/bin/chromium",
    args: FLAGS,
  });
  const page = await browser.newPage();
  page.on("pageerror", fail);
  page.on("crash", () => fail(new Error("the page crashed")));
  page.on("console", (message) => {
    if (message.type() === "error") print({ event: "console", text: message.text() });
  });
  await watchWire(page);
  await page.exposeFunction("tell", print);
  const asked = { unleashUrl, unleashToken, ofrepUrl, ofrepToken, flag };
  asked.context = { targetingKey: "user-1" };
  await page.addInitScript((given) => Object.assign(window, { asked: given }), {
    ...asked,
    options: MODES[mode],
    types: TYPES,
    defaults: DEFAULTS,
  });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  return page;
}

const started = run().catch(fail);
commands(
  async ({ context, reload }) => {
    const page = await started;
    if (reload) await page.reload();
    if (context) await page.evaluate((given) => window.setContext(given), context);
  },
  async () => {
    await started;
    await browser.close();
  },
);
