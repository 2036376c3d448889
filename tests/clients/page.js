// What browser.js runs in its page: both browser SDKs, unmodified. `tell` and `asked` are browser.js's.
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { UnleashClient } from "unleash-proxy-client";

const { unleashUrl, unleashToken, ofrepUrl, ofrepToken, flag, options, types, defaults, context } = window.asked;

/** A `fetch` that tells what JavaScript gets to see. */
function telling(client) {
  return async (input, init) => {
    const { url, method } = input instanceof Request ? input : { url: input, method: init.method };
    const told = { event: "response", client, method, path: new URL(url).pathname };
    try {
      const response = await fetch(input, init);
      window.tell({ ...told, status: response.status, etag: response.headers.get("ETag") });
      return response;
    } catch (error) {
      window.tell({ ...told, status: 0, error: error.name });
      throw error;
    }
  };
}

function unleashContext({ targetingKey, ...properties }) {
  return { userId: targetingKey, properties };
}

const unleash = new UnleashClient({
  url: unleashUrl,
  clientKey: unleashToken,
  appName: "stitchd-tests",
  refreshInterval: 1,
  metricsInterval: 2,
  metricsIntervalInitial: 1,
  context: unleashContext(context),
  fetch: telling("unleash"),
});
const tellUnleash = () =>
  window.tell({ event: "unleash", enabled: unleash.isEnabled(flag), variant: unleash.getVariant(flag) });
unleash.on("ready", tellUnleash);
unleash.on("update", tellUnleash);
unleash.on("sent", () => window.tell({ event: "sent" }));
unleash.on("error", ({ type, code }) => window.tell({ event: "error", client: "unleash", type, code }));

const provider = new OFREPWebProvider({
  ...options,
  baseUrl: ofrepUrl,
  headers: [["Authorization", `Bearer ${ofrepToken}`]],
  fetchImplementation: telling("ofrep"),
});
const openfeature = OpenFeature.getClient();
function tellOfrep() {
  const found = provider.flagCache[flag];
  const type = found && typeof found.value in types ? typeof found.value : "missing";
  window.tell({ event: "ofrep", ...openfeature[`get${types[type]}Details`](flag, defaults[type]) });
}
openfeature.addHandler(ProviderEvents.ConfigurationChanged, tellOfrep);
openfeature.addHandler(ProviderEvents.Stale, ({ message }) => window.tell({ event: "stale", message }));
openfeature.addHandler(ProviderEvents.Error, ({ message }) =>
  window.tell({ event: "error", client: "ofrep", message }),
);

window.setContext = async (changed) => {
  await Promise.all([OpenFeature.setContext(changed), unleash.updateContext(unleashContext(changed))]);
  tellOfrep();
};

unleash.start();
await OpenFeature.setContext(context);
try {
  await OpenFeature.setProviderAndWait(provider);
} catch (error) {
  window.tell({ event: "failed", client: "ofrep", name: error.name, message: error.message });
}
tellOfrep();
