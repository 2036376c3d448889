# Varnish in front of stitchd: what was served once goes on being served, for as long as `stale-if-error` says.
#
# Varnish by itself knows no `stale-if-error`, and an answer with a 5xx status throws a good copy away. With this file
# such answers are dropped, and a request that finds no backend is answered from the copy that is there.
#
# Change the backend and who may purge; the rest needs no change. For Varnish 6.5 and later. Load it with
# `varnishd -f stitchd.vcl`, or into a Varnish that runs: `varnishadm vcl.load stitchd /etc/varnish/stitchd.vcl`, then
# `varnishadm vcl.use stitchd`.
vcl 4.1;

import purge;
import std;

backend stitchd {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 1s;
    .first_byte_timeout = 3s;
    .between_bytes_timeout = 3s;
    # Asked on the data port, so that a dead stitchd costs no timeouts.
    .probe = {
        .url = "/readyz";
        .interval = 1s;
        .timeout = 1s;
        .window = 3;
        .threshold = 2;
        .initial = 2;
    }
}

# stitchd's `publish.purge_targets` come from here.
acl purgers {
    "localhost";
    "127.0.0.1";
    "::1";
}

sub vcl_recv {
    if (req.restarts == 0) {
        # Who gets a copy older than its time to live, at first: only those who ask while it is being fetched anew.
        set req.grace = 10s;
        unset req.http.X-Stitchd-Stale;
        unset req.http.X-Stitchd-Purge;
        # One copy, however the parameters of a query are ordered.
        set req.url = std.querysort(req.url);
    }

    if (req.method == "PURGE") {
        if (client.ip !~ purgers) {
            return (synth(403, "Not allowed"));
        }
        return (hash);
    }

    # Event streams: each client has its own connection.
    if (req.url ~ "^/(sub|v1/stream|ofrep/v1/events)(/|\?|$)") {
        return (pipe);
    }
    # Decisions and evaluations (POST) are for one user.
    if (req.method != "GET" && req.method != "HEAD") {
        return (pass);
    }
    # What a token may see is not for others; the rest of the built-in rules follow.
    if (req.http.Authorization) {
        return (pass);
    }
    # Configuration does not depend on cookies.
    unset req.http.Cookie;
    return (hash);
}

sub vcl_pipe {
    # So that the next request of the connection is looked at again.
    set bereq.http.Connection = "close";
}

sub vcl_hash {
    # Configuration does not depend on the host either; whoever purges calls this cache by another name than readers do.
    hash_data(req.url);
    return (lookup);
}

sub vcl_hit {
    if (req.method == "PURGE") {
        call outdate;
        call refetch;
    }
}

sub vcl_miss {
    if (req.method == "PURGE") {
        call outdate;
        # Nobody is served from a copy that is too old, or not there: whoever asks next fetches it.
        return (synth(200, "Purged"));
    }
}

# Ends the time to live of every variant. They stay for as long as `stale-if-error` says.
sub outdate {
    # A time to live that ends now would be neither left nor over for this very request.
    purge.soft(-1ms, -1s, -1s);
}

# Fetches at once, as if the copy were too old for everybody, so that the very next reader gets the news. A purge that finds
# stitchd broken loses nothing.
sub refetch {
    set req.http.X-Stitchd-Purge = "1";
    set req.method = "GET";
    # Of whoever purges; with it nothing would be kept.
    unset req.http.Authorization;
    # A copy that was on its way during the purge is too old as well. 0 would mean: no limit.
    set req.ttl = 0.001s;
    set req.grace = 0s;
    return (restart);
}

sub vcl_backend_response {
    if (beresp.status >= 500) {
        # Where there is no copy that could suffer, what stitchd says is better than what Varnish would.
        if (bereq.uncacheable || (bereq.http.X-Stitchd-Stale && !bereq.is_bgfetch)) {
            set beresp.uncacheable = true;
            set beresp.ttl = 0s;
            return (deliver);
        }
        # An answer like this must not take the place of a good copy.
        return (abandon);
    }
    if (beresp.http.Cache-Control ~ "stale-if-error=[0-9]+") {
        set beresp.grace = std.duration(
            regsub(beresp.http.Cache-Control, "^.*stale-if-error=([0-9]+).*$", "\1s"), 10s);
        # For `If-None-Match` when even that is over.
        set beresp.keep = 1d;
    }
    # Right after publishing stitchd has not compressed yet; such a copy lasts until the next revision.
    if (beresp.http.Content-Type ~ "json" && !beresp.http.Content-Encoding) {
        set beresp.do_gzip = true;
    }
}

sub vcl_backend_error {
    return (abandon);
}

sub vcl_synth {
    # No backend, or none that answered well: once more, now with any copy that is there.
    if (resp.status == 503 && req.restarts < 2 && !req.http.X-Stitchd-Stale) {
        set req.http.X-Stitchd-Stale = "1";
        set req.ttl = 30d;
        set req.grace = 30d;
        return (restart);
    }
    set resp.http.Cache-Control = "no-store";
    if (resp.status == 503) {
        # As stitchd itself refuses before its first load: nobody may take this for a configuration.
        set resp.http.Content-Type = "application/problem+json";
        set resp.http.Retry-After = "5";
        set resp.body = {"{"type":"about:blank","title":"Service Unavailable","code":"no_copy","detail":"}
            + {""stitchd does not answer, and the cache has no copy","status":503}"};
    } else {
        set resp.http.Content-Type = "text/plain; charset=utf-8";
        set resp.body = resp.reason;
    }
    return (deliver);
}

sub vcl_deliver {
    if (req.http.X-Stitchd-Purge) {
        return (synth(200, "Purged"));
    }
    if (obj.hits > 0) {
        set resp.http.X-Cache = "hit";
    } else {
        set resp.http.X-Cache = "miss";
    }
}
