# Varnish in front of stitchd: what was served once goes on being served, for as long as `stale-if-error` says.
#
# Varnish by itself knows no `stale-if-error`, and an answer with a 5xx status throws a good copy away. With this file
# such answers are dropped, and a request that finds no backend is answered from the copy that is there.
#
# Change the backend and who may purge; the rest needs no change. For Varnish 6.5 and later.
vcl 4.1;

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
    # Who gets a copy older than its time to live, at first: only those who ask while it is being fetched anew.
    if (req.restarts == 0) {
        set req.grace = 10s;
        unset req.http.X-Stitchd-Stale;
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

sub vcl_hit {
    if (req.method == "PURGE") {
        call refresh;
    }
}

sub vcl_miss {
    if (req.method == "PURGE") {
        call refresh;
    }
}

# Fetches at once, as if the copy were too old for everybody. It stays until the new one has arrived, so a purge
# that finds stitchd broken loses nothing.
sub refresh {
    set req.method = "GET";
    # 0 would mean: no limit.
    set req.ttl = 0.001s;
    set req.grace = 0s;
    return (restart);
}

sub vcl_backend_response {
    # An answer like this must not take the place of a good copy.
    if (beresp.status >= 500) {
        return (abandon);
    }
    if (beresp.http.Cache-Control ~ "stale-if-error=[0-9]+") {
        set beresp.grace = std.duration(
            regsub(beresp.http.Cache-Control, "^.*stale-if-error=([0-9]+).*$", "\1s"), 10s);
        # For `If-None-Match` when even that is over.
        set beresp.keep = 1d;
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
}

sub vcl_backend_fetch {
    unset bereq.http.X-Stitchd-Stale;
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "hit";
    } else {
        set resp.http.X-Cache = "miss";
    }
}
