#!/bin/sh
# Looks for bytes that do harm as requests, led by coverage, for FUZZ_S seconds (tests/it/fuzz_requests.rs).
# What covers something new is kept in the corpus, what does harm beside it in crashes/: commit both, the
# tests try them. `load/fuzz.sh reduce` makes the corpus as small as it can be.
set -eu
cd "$(dirname "$0")/.."

name=fuzz_requests::random_bytes_do_no_harm
folder=tests/it/__fuzz__/fuzz_requests__random_bytes_do_no_harm
host=$(rustc -vV | sed -n 's/^host: //p')
corpus=$folder/corpus
mkdir -p "$corpus" "$folder/crashes"

case "${1:-run}" in
run) engine="-max_total_time=${FUZZ_S:-1800} -dict=load/fuzz.dict -max_len=12000 -timeout=30 -print_final_stats=1
    -artifact_prefix=$folder/crashes/ $corpus $folder/crashes" ;;
reduce) rm -rf "$folder/all" && mv "$corpus" "$folder/all" && mkdir "$corpus"
    engine="-set_cover_merge=1 -use_counters=0 -max_len=12000 $corpus $folder/all" ;;
*) echo "usage: $0 [run|reduce]" >&2; exit 2 ;;
esac

# The engine comes with the test; the built program has no part in it and does without.
RUSTFLAGS="--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Clink-arg=-Wl,--unresolved-symbols=ignore-all" \
BOLERO_TEST_NAME=$name BOLERO_LIBTEST_HARNESS=1 BOLERO_LIBFUZZER_ARGS=$(echo $engine) \
    ${CARGO:-cargo} test --locked --profile fuzz --target "$host" --target-dir target/fuzz --test it ${FUZZ_CARGO:-} -- \
    "$name" --exact --nocapture --quiet --test-threads 1
rm -rf "$folder/all"
