# Functions of .ci/run: running tests, and a second chance for those that fail on a crowded machine.
# shellcheck shell=bash

# Tests that failed and then passed by themselves, for the summary.
flaky=()

# More failures than this are no accident: nothing is run again.
reruns_max=10

# open_files: as many as the system lets us have, where the usual limit is low. Some tests hold thousands of connections.
open_files() {
    local soft hard
    soft=$(ulimit -Sn)
    hard=$(ulimit -Hn)
    [ "$soft" != unlimited ] && [ "$soft" -lt 8192 ] || return 0
    if ulimit -Sn "$hard"; then
        printf 'open files: up to %s, before it was %s\n' "$hard" "$soft"
    else
        printf 'open files: %s cannot be raised, tests with many connections open fewer\n' "$soft"
    fi
}

# failed_tests LOG: one line `BINARY TEST` for each test that `cargo test` lists as failed; `doc` stands for doc-tests.
failed_tests() {
    # The list is the last one before the result: what a test prints may look like one, too.
    awk '
        /^ +Running .*\(.*\)$/ { binary = $0; sub(/^.*\(/, "", binary); sub(/\)$/, "", binary); number = 0 }
        /^ +Doc-tests / { binary = "doc"; number = 0 }
        /^failures:$/ { number = 0; is_list = 1; next }
        /^test result: / { for (i = 1; i <= number; i++) print binary " " names[i]; number = 0 }
        is_list && /^    [^ ]/ { name = $0; sub(/^ +/, "", name); names[++number] = name; next }
        is_list && /^$/ { next }
        { is_list = 0 }
    ' "$1"
}

# failed_targets LOG: how many test binaries cargo says have failed, whether they lived to tell which tests or not.
failed_targets() {
    sed -n '/^error: [0-9]* targets\{0,1\} failed:$/,$ s/^    `.*`$/&/p' "$1" | wc -l
}

# is_rerunnable LOG: whether every failure is one of a few tests that can be run by themselves.
is_rerunnable() {
    local failed
    failed=$(failed_tests "$1")
    [ -n "$failed" ] || return 1
    [ "$(wc -l <<<"$failed")" -le "$reruns_max" ] || return 1
    ! grep -q '^doc ' <<<"$failed" || return 1
    # A binary that crashed or was killed lists nothing.
    [ "$(cut -d ' ' -f 1 <<<"$failed" | sort -u | wc -l)" -eq "$(failed_targets "$1")" ]
}

# cargo_test LOG ARGUMENT...: `cargo test`, every binary to its end. A test that fails is run once more by itself, by the
# same binary; only if it fails again, the run has failed. Others are noted as flaky.
cargo_test() {
    local log=$1 status=0 binary name
    shift
    cargo test --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
    if [ "$status" -eq 0 ] || ! is_rerunnable "$log"; then
        return "$status"
    fi
    local failed again=0
    failed=$(failed_tests "$log")
    while read -r binary name; do
        printf '\n==> once more, by itself: %s\n' "$name"
        if CARGO=$(command -v cargo) CARGO_MANIFEST_DIR=$PWD "$binary" --exact "$name" </dev/null 2>&1 | tee "$log.again" &&
            grep -q '^test result: ok\. 1 passed' "$log.again"; then
            flaky+=("$name")
        else
            again=$status
        fi
    done <<<"$failed"
    rm -f "$log.again"
    return "$again"
}

# print_flaky: one line for each test that needed a second chance.
print_flaky() {
    local name
    for name in "${flaky[@]}"; do
        printf 'flaky: %s\n' "$name"
    done
}
